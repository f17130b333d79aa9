"""By how much what is stored lets the database file grow, and what that writes to the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgegc.perf import process, store
from edgegc.perf.result import Figure
from edgegc.perf.store_loads import one
from edgegc.perf.store_plan import Done
from edgegc.perf.store_tally import Tally

if TYPE_CHECKING:
    from edgegc.perf.store_plan import Growth
    from edgegc.perf.store_rig import Rig


async def growth(rig: Rig, work: Growth) -> Done:
    """Add so many of something, one in each write, and have the log written back."""
    database = rig.database
    operation = {"node": "node_insert", "bundle": "bundle_insert", "reports": "flush"}[work.what]
    await database.checkpoint()
    before, written_before = database.stats().database_bytes, process.io(os.getpid(), "write_bytes")
    tally = Tally()
    for _ in range(work.count):
        await one(tally, work.what, store.OPERATIONS[operation](rig, work.size))
    load = tally.load()
    # Its writes belong to what was written, too.
    await database.checkpoint()
    grown = database.stats().database_bytes - before
    figures = {
        "file_bytes_each": Figure(
            value=grown / work.count, unit="bytes", note=f"of the database file, for each of {work.count}"
        )
    }
    written_after = process.io(os.getpid(), "write_bytes")
    if written_before is not None and written_after is not None:
        figures["written_bytes_each"] = Figure(
            value=(written_after - written_before) / work.count,
            unit="bytes",
            note="to the disk: log and checkpoint",
        )
    return Done(load=load, figures=figures)
