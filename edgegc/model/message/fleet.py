"""Bodies about the fleet: who runs which version."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class RolloutCounts(Struct, frozen=True, kw_only=True):
    """Nodes by state; the four sum to ``total``."""

    total: int
    online: int
    behind: int
    failed: int
    offline: int


class RolloutBehind(Struct, frozen=True, kw_only=True):
    """A node that does not run its effective version, and since when."""

    id: str
    name: str
    version: int
    applied_version: int | None
    since: datetime | None


class Rollout(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/rollout``."""

    version: int
    nodes: RolloutCounts
    behind: tuple[RolloutBehind, ...]
