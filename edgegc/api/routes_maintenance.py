"""Paths about looking after the store: backups and their download, checkpoint, compaction, verification."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.api import auth, codec, downloads
from edgegc.api.operation import Content, declare
from edgegc.control import maintenance
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

HEADERS: Final = ("ETag", "Accept-Ranges")
SQLITE: Final = "application/vnd.sqlite3"

describe: Final = partial(declare, tag="Maintenance", who="operator")


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/maintenance/backup")
    @describe(
        "Copy the database into the box's backups",
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={201: message.BackupView},
        says="Every change that was answered before is in it. Secrets in it are sealed with the box's master.key, which "
        "is not. The newest `backup.keep` copies stay.",
    )
    async def backup() -> Reply:
        caller = await app.creator()
        return codec.reply(await maintenance.backup(control, caller), 201)

    @app.get("/api/v1/maintenance/backups")
    @describe("List the copies of the database", gives={200: message.BackupList})
    async def list_backups() -> Reply:
        caller = await app.caller()
        return codec.reply(await maintenance.list_backups(control, caller))

    @app.get("/api/v1/maintenance/backups/<name>")
    @describe(
        "Download a copy of the database",
        headers=("If-None-Match", "Range", "If-Range"),
        gives={
            200: Content(kind=SQLITE, headers=HEADERS, says="The whole copy."),
            206: Content(kind=SQLITE, headers=(*HEADERS, "Content-Range"), says="The part asked for."),
            304: Content(kind=None, headers=HEADERS, says="The caller has it."),
        },
        refuses=(416,),
    )
    async def download_backup(name: str) -> Reply:
        caller = await app.caller()
        copy = await maintenance.find_backup(control, caller, name)
        return downloads.of_file(
            copy.path,
            copy.size,
            tag=f"{copy.written_ns:x}-{copy.size:x}",
            headers={
                "content-disposition": f'attachment; filename="{copy.name}"',
                "cache-control": "private, no-store",
            },
            content_type=SQLITE,
        )

    @app.post("/api/v1/maintenance/checkpoint")
    @describe("Bring the database's log into its file", gives={200: message.Maintained})
    async def checkpoint() -> Reply:
        caller = await app.caller()
        return codec.reply(await maintenance.checkpoint(control, caller))

    @app.post("/api/v1/maintenance/compact")
    @describe(
        "Give back what deleted rows left free in the database",
        gives={200: message.Maintained},
        says="Writes wait meanwhile. Needs room for two more copies of the database.",
    )
    async def compact() -> Reply:
        caller = await app.caller()
        return codec.reply(await maintenance.compact(control, caller))

    @app.post("/api/v1/maintenance/clock")
    @describe(
        "Trust the box's clock although changes were made at later times",
        gives={200: message.Maintained},
        refuses=(409,),
        says="For a clock that was ahead, and is right now: nothing is signed until it is past the newest change, or "
        "this is said. What was signed then is signed again.",
    )
    async def accept_clock() -> Reply:
        caller = await app.caller()
        return codec.reply(await maintenance.accept_clock(control, caller))

    @app.post("/api/v1/maintenance/verify")
    @describe(
        "Check the database's integrity",
        gives={200: message.Maintained},
        says="`ok` is false where it is damaged; `detail` says what was found.",
    )
    async def verify() -> Reply:
        caller = await app.caller()
        return codec.reply(await maintenance.verify(control, caller))
