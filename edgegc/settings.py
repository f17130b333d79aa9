"""The server's settings: what they are, their defaults and limits. Where they come from is the loader's business.

Every key is ``section.name`` in the TOML file and ``EDGEGC_SECTION_NAME`` in the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Seconds = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=1)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a section: unknown keys are an error."""


class Data(Section, frozen=True, kw_only=True):
    """Where everything is kept."""

    dir: Path = Path("/var/lib/edgegc")


class Api(Section, frozen=True, kw_only=True):
    """Listeners. ``listen`` are ``host:port``; ``public_urls`` are what bundles tell agents, in order."""

    listen: tuple[str, ...] = ("127.0.0.1:8080",)
    public_urls: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    graceful_timeout_s: Seconds = 5.0
    insecure_http: bool = False


class Tls(Section, frozen=True, kw_only=True):
    """``off``: clear text; ``self-signed``: a key and certificate of our own, remade when needed; ``files``: the two given."""

    mode: Literal["off", "self-signed", "files"] = "off"
    certificate: Path | None = None
    key: Path | None = None


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on what clients may ask of the box. ``rate`` is per second, ``burst`` how many may come at once.

    ``failures``: so many failed authentications of an address make it wait for a minute, or for an hour.
    """

    enabled: bool = True
    node_rate: Rate = 50.0
    node_burst: Count = 100
    enrolment_rate: Rate = 2.0
    enrolment_burst: Count = 10
    failures_in_minute: Count = 10
    failures_in_ten_minutes: Annotated[int, Meta(ge=1, le=1000)] = 50
    connections: Count = 4096
    held_polls: Count = 2000
    json_body_bytes: Count = 1_048_576
    head_bytes: Count = 16_384
    write_queue: Count = 1024


class Nebula(Section, frozen=True, kw_only=True):
    """``path``: the nebula executable; None looks in ``PATH`` and the usual places."""

    path: Path | None = None


class Lighthouse(Section, frozen=True, kw_only=True):
    """How the box's own lighthouses run. ``user`` is the unprivileged account they run as when edgegc is root."""

    user: str = "edgegc-nebula"
    on_exit: Literal["leave", "stop"] = "leave"


class Sampler(Section, frozen=True, kw_only=True):
    """How often resources are sampled, and how much history is kept in memory."""

    interval_s: Annotated[float, Meta(ge=0.1)] = 5.0
    history_s: Annotated[float, Meta(ge=60)] = 3600.0


class Budgets(Section, frozen=True, kw_only=True):
    """What the box may use before ``/health/ready`` says degraded; bytes and percent of one core."""

    daemon_rss_bytes: Count = 134_217_728
    lighthouse_rss_bytes: Count = 52_428_800
    lighthouse_cpu_percent: Annotated[float, Meta(gt=0)] = 5.0
    disk_free_bytes: Count = 67_108_864


class Bundles(Section, frozen=True, kw_only=True):
    """``keep``: how many bundles of an uploaded cluster are kept to go back to, the active one included."""

    keep: Count = 10


class Backup(Section, frozen=True, kw_only=True):
    """``keep``: how many automatic backups stay in ``<data>/backups``."""

    keep: Count = 3


class Log(Section, frozen=True, kw_only=True):
    """``format`` ``auto`` is ``console`` on a terminal and ``json`` elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Section, frozen=True, kw_only=True):
    """All settings of ``edgegc serve``."""

    data: Data = field(default_factory=Data)
    api: Api = field(default_factory=Api)
    tls: Tls = field(default_factory=Tls)
    limits: Limits = field(default_factory=Limits)
    nebula: Nebula = field(default_factory=Nebula)
    lighthouse: Lighthouse = field(default_factory=Lighthouse)
    sampler: Sampler = field(default_factory=Sampler)
    budgets: Budgets = field(default_factory=Budgets)
    bundles: Bundles = field(default_factory=Bundles)
    backup: Backup = field(default_factory=Backup)
    log: Log = field(default_factory=Log)
