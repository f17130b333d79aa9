"""The suite's side of the store's process: starts it, in the device's control groups, tells it its work, ends it.

It is a process of its own so that the limits of an emulated device hold for the store and not for the suite, and so that
what it uses can be seen. Knows what is said (:mod:`edgegc.perf.store_plan`), and nothing of the store.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Unavailable
from edgegc.perf import filesystem, process, respawn
from edgegc.perf.child import child
from edgegc.perf.generator.wire import packed
from edgegc.perf.store_plan import Failed, answers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgegc.perf.cages import Cage
    from edgegc.perf.child import Child
    from edgegc.perf.store_plan import Done, Work

COMMAND: Final = "_store"
"""The hidden command that is this process."""
DATABASE_FILE: Final = "edgegc.db"


class StoreProcess:
    """A store's process that runs; made by :func:`running`."""

    def __init__(self, running: Child, directory: Path, cage: Cage | None) -> None:
        self.pid = running.pid
        self.cage = cage
        self._child = running
        self._answers = answers(running.incoming)
        self._directory = directory

    async def do(self, work: Work) -> Done:
        """Have a piece of work done and return what became of it.

        Raises Unavailable for what this machine can't do, Error where the work failed or the process ended. When cancelled,
        the process is of no more use: it goes on with its work.
        """
        with suppress(trio.BrokenResourceError):  # it has ended: its last words say why
            await self._child.outgoing.send_all(packed(work))
        answer = await self._answers.next()
        if answer is None:
            raise await self._ended()
        if isinstance(answer, Failed):
            raise (Unavailable if answer.unavailable else Error)(answer.sentence)
        return answer

    # What is sampled

    def pids(self) -> tuple[int, ...]:
        """Return the process and all below it. Raises :class:`~edgegc.perf.process.Gone`."""
        return process.tree(self.pid)

    def database_bytes(self) -> int:
        """Return the size of the database, without its log."""
        return _size(self._directory / DATABASE_FILE)

    def wal_bytes(self) -> int:
        """Return the size of the database's log."""
        return _size(self._directory / f"{DATABASE_FILE}-wal")

    async def _ended(self) -> Error:
        if self.cage is not None and self.cage.oom_kills():
            return Error(f"the store's process was killed for passing the memory limit of {self.cage.device}")
        return Error(f"the store's process broke: {await self._child.last_words()}")


@asynccontextmanager
async def running(
    parent: Path, *, cage: Cage | None = None, cpu: int | None = None
) -> AsyncIterator[StoreProcess]:
    """Run a store's process that keeps its database in a directory of its own in ``parent``; both go at the end.

    ``cage``: the control groups that it runs in. ``cpu``: the only processor that it may use. Cancellation ends it.
    """
    with filesystem.temporary(parent) as directory:
        database = directory / "data"
        argv = respawn.measured("perf", COMMAND, os.fspath(database))
        async with child(argv if cage is None else cage.wrap(argv), cpu=cpu) as started:
            yield StoreProcess(started, database, cage)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
