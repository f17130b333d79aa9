"""Bodies about the rotation of a cluster's authority."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from edgegc.model.cluster import RotationPhase
from edgegc.model.message.common import Request

RotationStep = Literal["prepare", "issue", "retire"]


class CaRotationStep(Request, frozen=True, kw_only=True):
    """``POST /api/v1/clusters/{id}/ca/rotation``; ``force`` does not wait for nodes that have not applied the last step."""

    step: RotationStep
    force: bool = False


class RotationWaiting(Struct, frozen=True, kw_only=True):
    """A node that has not applied the last step; ``id`` is null for the box's own lighthouse."""

    id: str | None
    name: str


class CaRotation(Struct, frozen=True, kw_only=True):
    """How far a rotation is. ``ready``: the next step may be taken without ``force``.

    After ``retire`` the phase is ``none`` again, and ``waiting_for`` lists who has not applied that.
    """

    phase: RotationPhase
    old_fingerprint: str
    new_fingerprint: str | None
    waiting_for: tuple[RotationWaiting, ...]
    ready: bool
