"""Bodies about the fleet: who runs which version."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from edgegc.model.node import State


class RolloutCounts(Struct, frozen=True, kw_only=True):
    """Nodes by state; the four sum to ``total``."""

    total: int
    online: int
    behind: int
    failed: int
    offline: int


class RolloutBehind(Struct, frozen=True, kw_only=True):
    """A node that does not run its effective version, and since when. Who is offline may be gone for good."""

    id: str
    name: str
    state: State
    version: int
    applied_version: int | None
    since: datetime | None


class Rollout(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/rollout``. ``behind`` has at most 500 of ``behind_total`` nodes: those that are there come first."""

    version: int
    nodes: RolloutCounts
    behind: tuple[RolloutBehind, ...]
    behind_total: int
    behind_truncated: bool
