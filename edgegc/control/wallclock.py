"""Whether the wall clock can be trusted: certificates signed at a wrong time would be dead or immortal.

Boards without a battery start in the past. Refusing to sign is visible and mends itself; a certificate that is not yet
valid cuts a node off.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgegc import build
from edgegc.errors import Conflict, Unavailable
from edgegc.store import audit, meta

if TYPE_CHECKING:
    import sqlite3

TOLERATED_LAG_S = 3600
"""A clock may be set back by this much, as after a summer-time mistake, before it is suspect."""

TRUSTED_SINCE = "clock_trusted_since"
"""In ``meta``: the newest row of the audit log when the operator last said that the clock is right."""

RETRY_AFTER_S = 60
"""Time synchronisation needs about this long after a start."""


def fault(connection: sqlite3.Connection, now: int) -> str | None:
    """Return a sentence on what is wrong with the clock, or None."""
    if now < build.built_at():
        return f"the clock says {_date(now)}, before this edgegc was built: set the clock, certificates wait for it"
    accepted = int(meta.get(connection, TRUSTED_SINCE) or 0)
    newest = audit.newest_at(connection, above=now + TOLERATED_LAG_S, after=accepted)
    if newest is not None:
        return (
            f"the clock says {_date(now)}, but the last change was made at {_date(newest)}:"
            " set the clock, certificates wait for it; if it is right now, and was ahead then, say so with"
            " 'edgegc clock --accept'"
        )
    return None


def accept(connection: sqlite3.Connection, now: int) -> str | None:
    """Trust the clock although changes were made at later times: those are not looked at any more.

    The caller answers for it. Returns what was wrong, None where nothing was. Conflict where the clock is wrong whatever
    the changes say.
    """
    sentence = fault(connection, now)
    if sentence is not None and now < build.built_at():
        raise Conflict(sentence)
    if sentence is not None:
        meta.put(connection, TRUSTED_SINCE, str(audit.newest_id(connection)))
    return sentence


def require_trust(connection: sqlite3.Connection, now: int) -> None:
    """Raise Unavailable unless certificates may be signed now."""
    sentence = fault(connection, now)
    if sentence is not None:
        raise Unavailable(sentence, retry_after_s=RETRY_AFTER_S)


def _date(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
