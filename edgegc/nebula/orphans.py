"""Ends nebula processes that are recorded on disk and that nobody drives. Starts nothing; knows neither side.

For what is recorded but no longer wanted at a start, and for ending processes without a daemon.
"""

from __future__ import annotations

import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec
import trio

from edgegc.nebula import record
from edgegc.nebula.machine import KILL_RETRY_S, TERM_LIMIT_S
from edgegc.nebula.process import SystemSpawner, in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgegc.nebula.process import Child, Spawner

KILL_TRIES = 3
"""SIGKILLs before we say that it does not end: it is in uninterruptible sleep."""


Outcome = Literal["terminated", "killed", "gone", "still running"]

_log = logging.getLogger(__name__)


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one recorded process. ``gone``: it had ended before. ``cluster_id`` names its directory."""

    cluster_id: str
    pid: int | None
    outcome: Outcome


async def stop_recorded(records: Iterable[Path], *, spawner: Spawner | None = None) -> list[Stopped]:
    """End what these records are about, all at the same time: SIGTERM, then SIGKILL; forget what has ended.

    Takes up to 16 s for one that ignores SIGTERM. Returns one entry per record that exists, by cluster id.
    Cancelling leaves the rest to end or run on.
    """
    stopped: list[Stopped] = []

    async def stop(path: Path) -> None:
        known = await in_thread(partial(record.load, path))
        if known is not None:
            stopped.append(await _stop(path, known, spawner or SystemSpawner()))

    async with trio.open_nursery() as nursery:
        for path in records:
            nursery.start_soon(stop, path)
    return sorted(stopped, key=lambda each: each.cluster_id)


async def _stop(path: Path, known: record.Record, spawner: Spawner) -> Stopped:
    # As long as nothing better is known.
    outcome: Outcome = "still running"
    pid = known.pid
    try:
        child = await in_thread(partial(spawner.adopt, known))
        if child is None:
            outcome = "gone"
        else:
            pid = child.pid
            try:
                outcome = await _end(child)
            finally:
                child.release()
        if outcome != "still running":
            await in_thread(partial(record.remove, path))
    except OSError as error:
        # One that can't be held (no file descriptor left) or forgotten (a full disk) does not keep us from the others.
        _log.warning("a recorded nebula can't be dealt with: %s", error, extra={"path": str(path)})
    return Stopped(cluster_id=path.parent.name, pid=pid, outcome=outcome)


async def _end(child: Child) -> Outcome:
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
