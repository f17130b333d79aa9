"""Bodies about the audit log."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class AuditEntry(Struct, frozen=True, kw_only=True):
    """Who did what, or was refused. ``id`` grows with time; ``actor`` is kind and id of the credential, ``target`` the id
    of the record, or what was refused and how often.
    """

    id: int
    at: datetime
    actor: str
    action: str
    target: str | None
    request_id: str
    source: str


class AuditList(Struct, frozen=True, kw_only=True):
    """One page of the audit log, newest first."""

    audit: tuple[AuditEntry, ...]
    next_cursor: str | None
