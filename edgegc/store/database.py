"""Owns the database of a data directory: open, write, read, back up, checkpoint, close. Knows no table.

A write is answered when it survives a power cut; a read sees every write that was answered before it began.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import outcome
import trio
from msgspec import Struct

from edgegc import errors
from edgegc.store import opening, room
from edgegc.store.executor import Executor, InlineExecutor, Lane, ThreadExecutor
from edgegc.store.gate import lock_data_directory
from edgegc.store.migrations import Plan, released_plan
from edgegc.store.snapshot import copy_database, faults
from edgegc.store.worker import Job, Reader, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

logger = logging.getLogger(__name__)

T = TypeVar("T")

MEMORY = Path(":memory:")
"""A database without a file: for unit tests, with ``executor="inline"``."""

READ_DEADLINE_S = 5.0
"""What no honest request needs, and what a client still waits for."""

WAL_LIMIT_BYTES = 16 * 1024 * 1024
"""Beyond this the writer checkpoints by itself: housekeeping is late, and a start must not replay for seconds."""
WAL_RETRY_BYTES = 4 * 1024 * 1024
"""Where a long read kept that checkpoint from finishing, the next one is tried after this much more."""
CHECKPOINT_WAIT_MS = 100
"""How long a checkpoint waits for readers to leave; writes wait with it."""

SWITCH_INTERVAL_S = 50e-6
"""How long a thread of the store waits for the interpreter lock before it demands it.

Every SQLite call lets the lock go and needs it back. At Python's 5 ms an event loop that is never idle starves
the store: each of the loop's own system calls restarts the wait. Measured with the loop saturated by an echo
server at 170 µs per request, 16 clients of the store: reads 305/s at 5 ms and 619/s at 50 µs (p99 152 and 123 ms),
writes 224/s and 646/s (239 and 82 ms), the echo's own rate unchanged.
"""

_INSPECT_S = 30.0  # bounded: shutdown waits for it


class Checkpoint(Struct, frozen=True):
    """What a checkpoint did. ``complete`` is False where a long read kept some of the log needed."""

    complete: bool
    pages: int
    duration_s: float


class Compacted(Struct, frozen=True):
    """What compacting did, in bytes of the database file."""

    before: int
    after: int


class DatabaseStats(Struct, frozen=True, kw_only=True):
    """Sizes now, counters since the start. ``trouble``: why writes fail at present, None while they don't."""

    database_bytes: int
    wal_bytes: int
    write_queue: int
    read_queue: int
    writes: int
    failed_writes: int
    refused_writes: int
    commits: int
    lost_commits: int
    commit_seconds: float
    longest_commit_s: float
    reads: int
    failed_reads: int
    overdue_reads: int
    refused_reads: int
    read_seconds: float
    checkpoints: int
    trouble: str | None


class StoreCrashed(Exception):
    """A thread of the store died, or the observer of its commits did. Nothing but a new start helps."""


class Database:
    """A database that is open; made by :func:`open_database`."""

    def __init__(self, path: Path, writer: Writer, reader: Reader, source: str) -> None:
        self.path = path
        self.on_commit: Callable[[object], None] = _ignore
        """Called in the trio thread with each job's result, in commit order, before any writer of that batch
        is resumed: what is kept in memory (roll, bus) stays exactly in the order of the commits."""
        self._writer = writer
        self._reader = reader
        self._source = source
        self._writes: Executor
        self._reads: Executor
        self._wal = Path(f"{path}-wal")
        self._checkpoint_above = WAL_LIMIT_BYTES
        self._checkpoints = 0

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job as its part of a group commit; return its value when that is on the disk.

        An error that the job raises is raised here, and nothing of the job remains. Raises Unavailable when the
        disk is full or fails, the queue is full or the store stops; then nothing of the job remains either.
        The job must only touch the database, and be able to run again: where its group is lost it may have run for
        nothing, and where one job of several fails half-way all of them are run a second time. It must not fail after
        it wrote into a BLOB in place.

        Checks for cancellation on entry; once queued it is waited for to the end.
        """
        return cast("T", await self._writes.submit(Job(job), cancellable=False))

    async def read(self, job: Callable[[sqlite3.Connection], T], *, deadline_s: float = READ_DEADLINE_S) -> T:
        """Run a job in one read transaction and return its value.

        Raises Unavailable after ``deadline_s`` seconds, waiting in the queue included, or when the queue is full.
        When cancelled the job is interrupted.
        """
        return cast(
            "T", await self._reads.submit(Job(job, deadline=time.monotonic() + deadline_s), cancellable=True)
        )

    async def checkpoint(self) -> Checkpoint:
        """Bring the write-ahead log into the database file and empty it. Writes wait meanwhile, reads don't."""
        return cast(
            "Checkpoint", await self._writes.submit(Job(self._checkpoint, alone=True), cancellable=False)
        )

    async def optimize(self) -> None:
        """Refresh the planner's statistics where that can help; cheap when it can't."""
        await self._writes.submit(Job(_optimize, alone=True), cancellable=False)

    async def compact(self) -> Compacted:
        """Rebuild the file without what deleted rows left free. Writes wait meanwhile, reads don't.

        Raises Unavailable, having changed nothing, without room for two more copies of the database: SQLite makes one
        beside it and brings it home through the log.
        """
        return cast("Compacted", await self._writes.submit(Job(self._compact, alone=True), cancellable=False))

    async def verify(self) -> list[str]:
        """Return what is wrong with the file, by SQLite's integrity and foreign key checks; empty when nothing is.

        Runs beside reads and writes. Raises Unavailable when that takes too long.
        """
        return await self._beside(_verify)

    async def backup(self, destination: Path) -> None:
        """Copy the database, as of now, to one self-contained file (mode 0600), beside reads and writes.

        Raises Unavailable, leaving ``destination`` as it was, when the copy can't be written. Cancellation stops it.
        """

        def copy(connection: sqlite3.Connection) -> None:
            try:
                copy_database(connection, destination, may_continue=trio.from_thread.check_cancelled)
            except (OSError, sqlite3.Error) as error:
                raise errors.Unavailable(
                    f"the backup could not be written to {destination}: {error}"
                ) from error

        await self._beside(copy)

    def stats(self) -> DatabaseStats:
        """Return sizes and counters; two ``stat`` calls, no SQL."""
        writer, reader = self._writer, self._reader
        return DatabaseStats(
            database_bytes=_size(self.path),
            wal_bytes=_size(self._wal),
            write_queue=self._writes.depth,
            read_queue=self._reads.depth,
            writes=writer.jobs,
            failed_writes=writer.failed_jobs,
            refused_writes=self._writes.refused,
            commits=writer.commits,
            lost_commits=writer.lost_batches,
            commit_seconds=writer.commit_seconds,
            longest_commit_s=writer.longest_commit_s,
            reads=reader.jobs,
            failed_reads=reader.failed_jobs,
            overdue_reads=reader.overdue_jobs,
            refused_reads=self._reads.refused,
            read_seconds=reader.read_seconds,
            checkpoints=self._checkpoints,
            trouble=writer.trouble,
        )

    async def _beside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work that takes long on a connection and in a thread of its own."""

        def run() -> T:
            connection = opening.connect(self._source, read_only=True)
            try:
                return work(connection)
            finally:
                connection.close()

        return await trio.to_thread.run_sync(run)

    # Called by open_database

    def use(self, writes: Executor, reads: Executor) -> None:
        """Take the executors that bring jobs to the writer and the reader."""
        self._writes = writes
        self._reads = reads

    def committed(self, jobs: Sequence[Job]) -> None:
        """Tell the observer what was committed."""
        for job in jobs:
            if isinstance(job.outcome, outcome.Value) and not job.alone:
                self.on_commit(job.outcome.value)

    def bound_log(self, connection: sqlite3.Connection) -> None:
        """Checkpoint when the log has passed its limit; in the writer's thread, between transactions."""
        size = _size(self._wal)
        if size <= self._checkpoint_above:
            return
        try:
            complete = self._checkpoint(connection).complete
        except sqlite3.Error as error:
            # A full disk, most often: what is committed is safe in the log, only the log can't shrink.
            logger.warning(
                "the write-ahead log of %d bytes could not be brought into the database: %s", size, error
            )
            complete = False
        self._checkpoint_above = WAL_LIMIT_BYTES if complete else size + WAL_RETRY_BYTES

    def _checkpoint(self, connection: sqlite3.Connection) -> Checkpoint:
        started = time.perf_counter()
        connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_WAIT_MS}")
        try:
            # First what waits for nobody; TRUNCATE then has little left to hold the writes up with.
            _, _, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {opening.BUSY_TIMEOUT_MS}")
        self._checkpoints += 1
        return Checkpoint(complete=not busy, pages=max(moved, 0), duration_s=time.perf_counter() - started)

    def _compact(self, connection: sqlite3.Connection) -> Compacted:
        self._checkpoint(connection)
        before = _size(self.path)
        room.require(self.path.parent, 2 * before, what="compacting")
        # Everything else that is temporary is small; the copy that is made here must not be kept in memory.
        connection.execute("PRAGMA temp_store = FILE")
        try:
            connection.execute("VACUUM")
        finally:
            connection.execute("PRAGMA temp_store = MEMORY")
        self._checkpoint(connection)
        return Compacted(before=before, after=_size(self.path))


@asynccontextmanager
async def open_database(
    path: Path,
    *,
    executor: Literal["threads", "inline"] = "threads",
    queue_size: int = 1024,
    plan: Plan | None = None,
) -> AsyncIterator[Database]:
    """Open, create or migrate the database at ``path`` and hold its directory (``<directory>/lock``) meanwhile.

    ``executor="inline"`` runs jobs in the calling task, for tests; then ``path`` may be :data:`MEMORY`.
    ``queue_size`` bounds the jobs that wait, for writes and for reads. ``plan`` is for tests of migrations.

    Raises Conflict when another process uses the directory or a newer edgegc made the database, Invalid when the
    file is damaged or another program's, Unavailable when a migration fails: with nothing touched in each case.

    Leaving runs the writes that are queued, then closes. If a thread of the store dies, the body is cancelled and
    :class:`StoreCrashed` raised: nothing may go on that believes its writes are kept.
    """
    plan = plan or released_plan()
    in_memory = path == MEMORY
    if in_memory and executor != "inline":
        raise ValueError("a database in memory is for the inline executor")
    in_thread = trio.to_thread.run_sync if executor == "threads" else _call
    with nullcontext() if in_memory else lock_data_directory(path.parent):
        source = opening.memory_source() if in_memory else opening.file_source(path)
        connections = await in_thread(partial(opening.open_pair, None if in_memory else path, source, plan))
        writer_connection, reader_connection = connections
        if executor == "threads":
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        crash: list[BaseException] = []
        with trio.CancelScope() as scope:

            def on_crash(error: BaseException) -> None:
                logger.critical("the store crashed", exc_info=error)
                crash.append(error)
                scope.cancel()

            reader = Reader(reader_connection)
            writer = Writer(writer_connection)
            database = Database(path, writer, reader, source)
            if not in_memory:
                writer.after_commit = database.bound_log

            def start(
                name: str, lane: Lane, observe: Callable[[Sequence[Job]], None], *, patient: bool
            ) -> Executor:
                if executor == "inline":
                    return InlineExecutor(lane, observe=observe)
                threaded = ThreadExecutor(
                    name, lane, queue_size=queue_size, patient=patient, observe=observe, on_crash=on_crash
                )
                threaded.start()
                return threaded

            writes = start("edgegc-writer", writer, database.committed, patient=True)
            reads = start("edgegc-reader", reader, _ignore, patient=False)
            database.use(writes, reads)
            try:
                yield database
            finally:
                await reads.close()
                await writes.close()
        if crash:
            raise StoreCrashed("the store crashed") from crash[0]


def _optimize(connection: sqlite3.Connection) -> None:
    # Bounds how much of an index ANALYZE reads; the default reads all of it.
    connection.execute("PRAGMA analysis_limit = 400")
    connection.execute("PRAGMA optimize")


def _verify(connection: sqlite3.Connection) -> list[str]:
    give_up_at = time.monotonic() + _INSPECT_S

    def must_stop() -> bool:
        return time.monotonic() > give_up_at

    connection.set_progress_handler(must_stop, 100_000)
    try:
        return faults(connection)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise errors.Unavailable("the check took too long; try again when the box is idle") from error
        return [str(error)]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


async def _call(function: Callable[[], Any]) -> Any:
    """Stand in for a thread."""
    await trio.lowlevel.checkpoint()
    return function()


def _ignore(_result: object) -> None:
    """Observe nothing."""
