"""Looking after the store: backups of it, checkpoint, compaction, verification. Operator only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edgegc.control import repetition, wallclock
from edgegc.control.callers import operator_only
from edgegc.model.message import BackupList, BackupView, Maintained
from edgegc.store import authorities, certificates

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.store.backups import Copy

LONGEST_GRACE_S = 86_400
"""No cluster lets a replaced certificate live on for longer."""

SHOWN_FAULTS = 10
"""Of a damaged database more of them say nothing new."""


async def backup(control: Control, caller: Caller) -> BackupView:
    """Copy the database into ``<data>/backups``: every write that was answered before is in it. Unavailable without room."""
    operator_only(caller)
    # One at a time: of two equal requests the second finds what was answered to the first.
    async with control.backups.turn:
        known = await control.write(caller, lambda write: repetition.found(write, BackupView))
        if known is not None:
            return known
        # What nodes have reported is in memory until then.
        await control.fleet.flush(last_seen=True)
        made = await control.backups.make(now=control.clock.now())

        def job(write: Write) -> BackupView:
            write.audit("maintenance.backup", made.name)
            return made

        return await control.write(caller, lambda write: repetition.once(write, BackupView, job))


async def list_backups(control: Control, caller: Caller) -> BackupList:
    """Return the copies there are, newest first."""
    operator_only(caller)
    return BackupList(backups=await control.backups.newest_first())


async def find_backup(control: Control, caller: Caller, name: str) -> Copy:
    """Return one copy, to be read. NotFound."""
    operator_only(caller)
    return await control.backups.find(name)


async def checkpoint(control: Control, caller: Caller) -> Maintained:
    """Bring the write-ahead log into the database file."""
    operator_only(caller)
    started = trio.current_time()
    done = await control.database.checkpoint()
    control.last_checkpoint_at = trio.current_time()
    await _audit(control, caller, "maintenance.checkpoint", None)
    detail = f"{done.pages} pages were brought into the database"
    if not done.complete:
        detail += "; a long read kept some of the log needed, the next checkpoint takes it along"
    return Maintained(ok=True, duration_ms=_since(started), detail=detail)


async def compact(control: Control, caller: Caller) -> Maintained:
    """Give back what deleted rows left free; writes wait meanwhile. Unavailable without room for it."""
    operator_only(caller)
    started = trio.current_time()
    done = await control.database.compact()
    await _audit(control, caller, "maintenance.compact", None)
    return Maintained(
        ok=True,
        duration_ms=_since(started),
        detail=f"the database has {done.after} bytes, it had {done.before}",
    )


async def accept_clock(control: Control, caller: Caller) -> Maintained:
    """Trust the clock although the newest changes were made at later times: it was ahead then, and is right now.

    Certificates from then are signed again. Conflict where the clock lies before this edgegc was built.
    """
    operator_only(caller)
    started = trio.current_time()

    def job(write: Write) -> str:
        wrong = wallclock.accept(write.connection, write.now)
        if wrong is None:
            return "the clock was trusted already; nothing was changed"
        again = certificates.due_from_the_future(
            write.connection, now=write.now, latest_blocklist_at=write.now + LONGEST_GRACE_S
        )
        made_then = authorities.from_the_future(write.connection, now=write.now)
        write.audit("clock.accept", None)
        detail = (
            f"the clock is trusted; {again} certificates made by the clock that was ahead are signed again"
        )
        if made_then:
            # Whatever such a CA signs is valid only when its own time has come.
            detail += (
                f"; these clusters have a CA that is not valid yet, replace it with 'edgegc cluster rotate-ca': "
                f"{', '.join(made_then)}"
            )
        return detail

    detail = await control.write(caller, job)
    control.health.set("clock")
    return Maintained(ok=True, duration_ms=_since(started), detail=detail)


async def verify(control: Control, caller: Caller) -> Maintained:
    """Check the database's integrity and its foreign keys, beside reads and writes."""
    operator_only(caller)
    started = trio.current_time()
    faults = await control.database.verify()
    detail = "the database passes its integrity and foreign key checks"
    if faults:
        detail = f"the database is damaged, restore a backup: {'; '.join(faults[:SHOWN_FAULTS])}"
    return Maintained(ok=not faults, duration_ms=_since(started), detail=detail)


async def _audit(control: Control, caller: Caller, action: str, target: str | None) -> None:
    await control.write(caller, lambda write: write.audit(action, target))


def _since(started: float) -> float:
    return round((trio.current_time() - started) * 1000, 1)
