"""The suite's side of the store's process: starts it, in the device's control groups, tells it its work, ends it.

It is a process of its own so that the limits of an emulated device hold for the store and not for the suite, and so that
what it uses can be seen. Knows what is said (:mod:`edgegc.perf.store_plan`), and nothing of the store.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Unavailable
from edgegc.perf import filesystem, process, respawn
from edgegc.perf.store_plan import HEAD, LONGEST_BYTES, Done, Failed, decode_answer, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgegc.perf.device import Cage
    from edgegc.perf.store_plan import Answer, Work

COMMAND: Final = "_store"
"""The hidden command that is this process."""
END_S: Final = 10.0
"""How long it may take to close the database once it is told to end."""
LOG_TAIL_BYTES: Final = 2048
DATABASE_FILE: Final = "edgegc.db"


class StoreProcess:
    """A store's process that runs; made by :func:`running`."""

    def __init__(self, child: trio.Process, directory: Path, log: Path, cage: Cage | None) -> None:
        self.pid = child.pid
        self.cage = cage
        self._child = child
        self._directory = directory
        self._log = log

    async def do(self, work: Work) -> Done:
        """Have a piece of work done and return what became of it.

        Raises Unavailable for what this machine can't do, Error where the work failed or the process ended. When cancelled,
        the process is of no more use: it goes on with its work.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            await self._child.stdin.send_all(encode(work))
            (size,) = HEAD.unpack(await self._exactly(HEAD.size))
            if size > LONGEST_BYTES:
                raise self._ended()
            answer: Answer = decode_answer(await self._exactly(size))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._ended() from None
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

    async def _exactly(self, size: int) -> bytes:
        assert self._child.stdout is not None
        gathered = bytearray()
        while len(gathered) < size:
            part = await self._child.stdout.receive_some(size - len(gathered))
            if not part:
                raise self._ended()
            gathered += part
        return bytes(gathered)

    def _ended(self) -> Error:
        if self.cage is not None and self.cage.oom_kills():
            return Error(f"the store's process passed the memory limit of {self.cage.device} and was killed")
        with suppress(OSError):
            said = self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            if said:
                return Error(f"the store's process ended before it answered; it said last:\n{said}")
        return Error("the store's process ended before it answered")


@asynccontextmanager
async def running(
    parent: Path, *, cage: Cage | None = None, cpu: int | None = None
) -> AsyncIterator[StoreProcess]:
    """Run a store's process that keeps its database in a directory of its own in ``parent``; both go at the end.

    ``cage``: the control groups that it runs in. ``cpu``: the only processor that it may use. Raises Unavailable where
    it can't be started. Cancellation kills it.
    """
    with filesystem.temporary(parent) as directory:
        log, database = directory / "store.log", directory / "data"
        argv = list(respawn.perf(COMMAND, os.fspath(database)))
        with log.open("wb") as said:
            try:
                child = await trio.lowlevel.open_process(
                    argv if cage is None else cage.wrap(argv),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=respawn.environ(),
                    # Ctrl-C is for the suite, which then ends it.
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable(f"the store's process can't be started: {error}") from error
        try:
            if cpu is not None:
                with suppress(ProcessLookupError):
                    # Before it has threads: they take it over.
                    os.sched_setaffinity(child.pid, {cpu})
            yield StoreProcess(child, database, log, cage)
            assert child.stdin is not None
            await child.stdin.aclose()
            with trio.move_on_after(END_S):
                await child.wait()
        finally:
            with trio.CancelScope(shield=True):
                if child.poll() is None:
                    child.kill()
                await child.wait()
                for stream in (child.stdin, child.stdout):
                    if stream is not None:
                        await stream.aclose()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
