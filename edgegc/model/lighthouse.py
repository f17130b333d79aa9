"""The box's own lighthouses: what is wanted of one, and what is known of one."""

from __future__ import annotations

from typing import Literal

import msgspec

LighthouseState = Literal["stopped", "starting", "running", "backoff", "stopping", "fatal"]


class LighthouseSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the supervisor needs to run the lighthouse of one cluster.

    ``config`` is the rendered Nebula configuration without paths and device names (a plain YAML-able mapping);
    the three files are PEM text. ``fingerprint`` is that of the host certificate (lower-case hex).
    """

    cluster_id: str
    cluster_name: str
    version: int
    overlay_ip: str
    port: int
    config: dict[str, object]
    ca_pem: str
    certificate_pem: str
    key_pem: str
    fingerprint: str


class LighthouseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What ``GET /api/v1/lighthouses`` shows of one; ``uptime_s`` in seconds, ``rss_bytes`` in bytes."""

    cluster_id: str
    name: str
    state: LighthouseState
    pid: int | None
    overlay_ip: str
    port: int
    version_running: int | None
    version_desired: int
    restarts: int
    uptime_s: float | None
    rss_bytes: int | None
    cpu_percent: float | None
    fds: int | None
    last_error: str | None
    log_tail: tuple[str, ...]
