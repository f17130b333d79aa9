"""Bodies about looking after the box's data: backups, and what a maintenance step did."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class BackupView(Struct, frozen=True, kw_only=True):
    """A copy of the database in ``<data>/backups``. ``size`` in bytes, ``sha256`` of all of it in hex."""

    name: str
    size: int
    sha256: str
    created_at: datetime


class BackupList(Struct, frozen=True, kw_only=True):
    """The copies there are, newest first."""

    backups: tuple[BackupView, ...]
    next_cursor: str | None = None


class Maintained(Struct, frozen=True, kw_only=True):
    """What a maintenance step did. ``detail``: a sentence; where not ``ok``, what is wrong and what to do."""

    ok: bool
    duration_ms: float
    detail: str
