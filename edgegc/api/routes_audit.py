"""The audit log."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta

from edgegc.api import codec
from edgegc.api.operation import declare
from edgegc.control import audit_log
from edgegc.control.audit_log import MAX_PAGE_SIZE
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

describe: Final = partial(declare, tag="Audit")


class AuditQuery(message.Request, frozen=True, kw_only=True):
    """``GET /api/v1/audit``."""

    cursor: Annotated[str, Meta(max_length=64)] | None = None
    page_size: Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE)] = 50


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.get("/api/v1/audit")
    @describe(
        "Show who did what",
        who="operator",
        query=AuditQuery,
        gives={200: message.AuditList},
        says="Newest first. Every write is an entry; alike refusals of a minute are one, with their number. "
        "Entries are kept for 400 days, and 100,000 of them at most, of which 20,000 refusals.",
    )
    async def list_audit() -> Reply:
        caller = await app.caller()
        asked = app.query(AuditQuery)
        found = await audit_log.list_(control, caller, cursor=asked.cursor, page_size=asked.page_size)
        return codec.reply(found)
