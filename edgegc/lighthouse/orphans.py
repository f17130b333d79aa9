"""Ends lighthouse processes that are recorded in a data directory, without a daemon. Starts nothing.

For ``edgegc lighthouse stop`` when no daemon runs, and for what is recorded but no longer wanted at the daemon's start.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Literal

import msgspec
import trio

from edgegc.lighthouse.render import lighthouses_directory
from edgegc.nebula import record
from edgegc.nebula.machine import KILL_RETRY_S, TERM_LIMIT_S
from edgegc.nebula.process import SystemSpawner, in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.nebula.process import Child, Spawner

RECORD = "process.json"
"""In a lighthouse's directory: the process that runs or ran there."""

KILL_TRIES = 3
"""SIGKILLs before we say that it does not end: it is in uninterruptible sleep."""


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one recorded process. ``gone``: it had ended before."""

    cluster_id: str
    pid: int | None
    outcome: Literal["terminated", "killed", "gone", "still running"]


async def stop_recorded(
    data_dir: Path, cluster_id: str | None = None, *, spawner: Spawner | None = None
) -> list[Stopped]:
    """End the recorded lighthouse of one cluster, or all of them (None), at the same time: SIGTERM, then SIGKILL.

    Only for a data directory that no daemon uses, or it starts them again. Takes up to 16 s for one that ignores
    SIGTERM. Returns one entry per record, by cluster id. Cancelling leaves the rest to end or run on.
    """
    directory = lighthouses_directory(data_dir)
    records = sorted(
        directory.glob(f"*/{RECORD}") if cluster_id is None else [directory / cluster_id / RECORD]
    )
    stopped: list[Stopped] = []

    async def stop(path: Path) -> None:
        known = await in_thread(lambda: record.load(path))
        if known is not None:
            stopped.append(await _stop(path, known, spawner or SystemSpawner()))

    async with trio.open_nursery() as nursery:
        for path in records:
            nursery.start_soon(stop, path)
    return sorted(stopped, key=lambda each: each.cluster_id)


async def _stop(path: Path, known: record.Record, spawner: Spawner) -> Stopped:
    child = await in_thread(lambda: spawner.adopt(known))
    outcome: Literal["terminated", "killed", "gone", "still running"] = "gone"
    if child is not None:
        try:
            outcome = await _end(child)
        finally:
            child.release()
    if outcome != "still running":
        await in_thread(lambda: record.remove(path))
    return Stopped(cluster_id=path.parent.name, pid=child.pid if child else known.pid, outcome=outcome)


async def _end(child: Child) -> Literal["terminated", "killed", "still running"]:
    child.send_signal(signal.SIGTERM)
    with trio.move_on_after(TERM_LIMIT_S):
        await child.wait()
        return "terminated"
    for _ in range(KILL_TRIES):
        child.send_signal(signal.SIGKILL)
        with trio.move_on_after(KILL_RETRY_S):
            await child.wait()
            return "killed"
    return "still running"
