"""Bodies about the box itself: its version, health, resources and own lighthouses."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from edgegc.model.lighthouse import LighthouseStatus


class VersionInfo(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/version``."""

    version: str
    commit: str
    python: str
    platform: str
    api: str = "v1"


class Live(Struct, frozen=True, kw_only=True):
    """``GET /health/live``."""

    status: Literal["ok"]


class Health(Struct, frozen=True, kw_only=True):
    """``GET /health/ready``: one sentence per check, ``ok`` where all is well."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, str]


class Resources(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/resources``: per series a list of ``[Unix seconds, value]``."""

    step_s: float
    series: dict[str, tuple[tuple[float, float], ...]]


class LighthouseList(Struct, frozen=True, kw_only=True):
    """The box's own lighthouses."""

    lighthouses: tuple[LighthouseStatus, ...]
    next_cursor: str | None = None
