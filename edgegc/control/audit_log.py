"""The audit log as the operator reads it, newest first. Rows are made by ``write`` and ``failures``, trimmed by housekeeping."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from edgegc.control.callers import operator_only
from edgegc.errors import Invalid, Unavailable
from edgegc.model.message import AuditEntry, AuditList, rfc3339
from edgegc.store import audit

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller

MAX_PAGE_SIZE = 500

_CURSOR = re.compile(r"[0-9]{1,15}")


async def list_(control: Control, caller: Caller, *, cursor: str | None, page_size: int) -> AuditList:
    """Return a page of what was done, newest first; the next one begins after ``cursor``. Invalid names the parameter.

    Failures that are still counted in memory are written first, so that the first page shows them.
    """
    operator_only(caller)
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise Invalid(f"page_size: must be from 1 to {MAX_PAGE_SIZE}, not {page_size}")
    if cursor is not None and _CURSOR.fullmatch(cursor) is None:
        raise Invalid("cursor: not one of ours; take next_cursor from the page before")
    if cursor is None:
        # A store that takes no writes now still shows what it has.
        with contextlib.suppress(Unavailable):
            await control.failures.flush()
    before = None if cursor is None else int(cursor)
    # One more than asked for tells whether there is a next page.
    rows = await control.database.read(
        lambda connection: audit.page(connection, before=before, limit=page_size + 1)
    )
    shown = rows[:page_size]
    return AuditList(
        audit=tuple(
            AuditEntry(
                id=row.id,
                at=rfc3339(row.at),
                actor=row.actor,
                action=row.action,
                target=row.target,
                request_id=row.request_id,
                source=row.source,
            )
            for row in shown
        ),
        next_cursor=str(shown[-1].id) if len(rows) > len(shown) else None,
    )
