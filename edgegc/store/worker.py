"""Owns how jobs meet SQLite: group commit, read transactions, and the two threads that run them.

Knows no schema, no file layout and no aggregate: a job is any function of a connection.

Why threads of our own instead of ``trio.to_thread``: one thread that takes up to :data:`BATCH` jobs per COMMIT
pays one fsync and one wake-up of the event loop for all of them, which is what lets a card that can do fifty
fsyncs a second carry more than five hundred durable writes a second.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import outcome
import trio

from edgegc import errors

logger = logging.getLogger(__name__)

BATCH = 64
"""Jobs per transaction at most. Beyond this the fsync is a small part of the cost, and the first job waits longer."""

PROGRESS_INSTRUCTIONS = 10_000
"""SQLite virtual machine steps between looks at the deadline: about 0.3 ms on a small Arm core."""

ANSWER_WITHIN_S = 0.001
"""Reads that are done wait at most about this long for the others of their batch, so that a slow one delays nobody."""

_RETRY_AFTER_S = {
    sqlite3.SQLITE_BUSY: 1,
    sqlite3.SQLITE_LOCKED: 1,
    sqlite3.SQLITE_NOMEM: 5,
    # Room is made by people and log rotation, not by waiting a second.
    sqlite3.SQLITE_FULL: 30,
    sqlite3.SQLITE_IOERR: 30,
    sqlite3.SQLITE_CANTOPEN: 30,
    sqlite3.SQLITE_PROTOCOL: 30,
    sqlite3.SQLITE_READONLY: 30,
    sqlite3.SQLITE_CORRUPT: 300,
    sqlite3.SQLITE_NOTADB: 300,
}
_SENTENCE = {
    sqlite3.SQLITE_BUSY: "the database is locked by another program",
    sqlite3.SQLITE_LOCKED: "the database is locked by another program",
    sqlite3.SQLITE_NOMEM: "the box is out of memory",
    sqlite3.SQLITE_FULL: "the disk of the data directory is full",
    sqlite3.SQLITE_IOERR: "the disk of the data directory fails",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
    sqlite3.SQLITE_PROTOCOL: "the database is locked by another program",
    sqlite3.SQLITE_READONLY: "the database can't be written to",
    sqlite3.SQLITE_CORRUPT: "the database is damaged: stop edgegc and restore a backup",
    sqlite3.SQLITE_NOTADB: "the database is damaged: stop edgegc and restore a backup",
}
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

STOPPING = "the store is stopping"


def primary_code(error: BaseException) -> int | None:
    """Return SQLite's primary result code (``SQLITE_IOERR`` for ``SQLITE_IOERR_FSYNC``), or None without one."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def environment_failure(error: BaseException) -> errors.Unavailable | None:
    """Return what a caller is told where the box failed (disk, memory, lock), None where the job itself did."""
    # sqlite3 raises SQLITE_NOMEM as a plain MemoryError.
    code = sqlite3.SQLITE_NOMEM if isinstance(error, MemoryError) else primary_code(error)
    if code is None or code not in _SENTENCE:
        return None
    return errors.Unavailable(_SENTENCE[code], retry_after_s=_RETRY_AFTER_S[code])


class Job:
    """A function of a connection on its way to a thread, then its outcome on its way back."""

    __slots__ = ("abandoned", "alone", "deadline", "outcome", "task", "work")

    def __init__(
        self, work: Callable[[sqlite3.Connection], Any], *, alone: bool = False, deadline: float | None = None
    ) -> None:
        self.work = work
        # Runs outside any transaction, between batches: checkpoints and the like.
        self.alone = alone
        # On time.monotonic(), the clock of the threads. None: may take as long as it takes.
        self.deadline = deadline
        self.abandoned = False
        self.outcome: outcome.Value[Any] | outcome.Error | None = None
        self.task: trio.lowlevel.Task | None = None

    def succeed(self, value: object) -> None:
        """Set the outcome."""
        self.outcome = outcome.Value(value)

    def fail(self, error: BaseException) -> None:
        """Set the outcome; what the box is to blame for becomes Unavailable, anything else stays as it is."""
        unavailable = environment_failure(error)
        if unavailable is not None:
            unavailable.__cause__ = error
        self.outcome = outcome.Error(unavailable or error)


Answer = Callable[[list[Job]], None]
"""Takes jobs that have their outcome back to whoever waits."""


class Lane(Protocol):
    """What serves jobs in order on one connection. All methods but ``stop`` belong to one thread."""

    def serve(self, jobs: list[Job], answer: Answer) -> None:
        """Run jobs and answer each of them exactly once."""

    def stop(self) -> None:
        """Called from outside: finish soon."""

    def close(self) -> None:
        """Close the connection."""


class _TransactionLost(Exception):
    """SQLite rolled the whole transaction back: no savepoint, no job of the batch survives."""


class Writer:
    """Runs writes in group commits on its connection; an answered write is on the disk.

    ``after_commit`` runs in the writer's thread between transactions, with nothing open: the place for the
    checkpoint that can't wait for housekeeping.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        after_commit: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self._connection = connection
        self.after_commit = after_commit
        self.jobs = 0
        self.failed_jobs = 0
        self.commits = 0
        self.lost_batches = 0
        self.commit_seconds = 0.0
        self.longest_commit_s = 0.0
        # Why the newest batch was lost; None again as soon as one commits.
        self.trouble: str | None = None
        self._damaged: BaseException | None = None

    def serve(self, jobs: list[Job], answer: Answer) -> None:
        """Run jobs: those that share a transaction as a group, those that want to be alone between groups."""
        group: list[Job] = []
        for job in jobs:
            if not job.alone:
                group.append(job)
                continue
            self._commit(group, answer)
            group = []
            self._run_alone(job)
            answer([job])
        self._commit(group, answer)

    def stop(self) -> None:
        """Nothing to hurry: what is queued is promised, and the queue is bounded."""

    def close(self) -> None:
        """Close the connection; as the last one it checkpoints and removes the write-ahead log."""
        self._connection.close()

    def _run_alone(self, job: Job) -> None:
        try:
            job.succeed(job.work(self._connection))
        except Exception as error:
            job.fail(error)

    def _commit(self, group: list[Job], answer: Answer) -> None:
        if not group:
            return
        started = time.perf_counter()
        try:
            self._run_group(group)
        except (sqlite3.Error, MemoryError, _TransactionLost) as error:
            self._lose(group, error)
        else:
            took = time.perf_counter() - started
            self.commits += 1
            self.commit_seconds += took
            self.longest_commit_s = max(self.longest_commit_s, took)
            if self.trouble is not None:
                self.trouble = None
                logger.info("writes succeed again")
        self.jobs += len(group)
        self.failed_jobs += sum(isinstance(job.outcome, outcome.Error) for job in group)
        answer(group)
        if self.after_commit is not None and not self._connection.in_transaction:
            self.after_commit(self._connection)

    def _run_group(self, group: list[Job]) -> None:
        """Run a group in one transaction. Raises when the transaction is lost, with all that its jobs did."""
        if self._damaged is not None:
            # Writing on would spread the damage; reads may still give out what is whole.
            raise _TransactionLost from self._damaged
        connection = self._connection
        execute = connection.execute
        execute("BEGIN IMMEDIATE")
        for job in group:
            execute("SAVEPOINT job")
            try:
                job.succeed(job.work(connection))
            except Exception as error:
                # SQLITE_FULL, IOERR, NOMEM and their like may roll back the whole transaction, savepoints
                # included, and a job may have translated the error: only in_transaction tells.
                if not connection.in_transaction or primary_code(error) in _DAMAGE:
                    raise _TransactionLost from error
                job.fail(error)
                execute("ROLLBACK TO job")
            # Fails, and loses the batch, where a job ended the transaction behind our back.
            execute("RELEASE job")
        # If this fails, SQLite takes back every frame of this transaction and writes the next one over them,
        # so that a failed fsync can't be forgotten by the kernel: nothing acknowledged ever depends on it.
        execute("COMMIT")

    def _lose(self, group: list[Job], error: Exception) -> None:
        cause = error.__cause__ if isinstance(error, _TransactionLost) and error.__cause__ else error
        if self._connection.in_transaction:
            try:
                self._connection.rollback()
            except sqlite3.Error:
                # SQLite has ended the transaction all the same; if not, the next BEGIN says so.
                logger.exception("rolling back a lost transaction failed")
        if primary_code(cause) in _DAMAGE:
            self._damaged = cause
        unavailable = environment_failure(cause)
        sentence = unavailable.message if unavailable else "a group of writes was rolled back"
        if self.trouble is None:
            logger.error("writes fail: %s (%s)", sentence, cause, exc_info=None if unavailable else cause)
        self.trouble = sentence
        self.lost_batches += 1
        for job in group:
            # One error object per waiter: raising one object in many tasks would mix up their tracebacks.
            lost = errors.Unavailable(sentence, retry_after_s=unavailable.retry_after_s if unavailable else 1)
            lost.__cause__ = cause
            job.outcome = outcome.Error(lost)


class Reader:
    """Runs each job in a read transaction of its own, so that a list and its total agree; bounded by deadlines."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._current: Job | None = None
        self._stopping = False
        self.jobs = 0
        self.failed_jobs = 0
        self.overdue_jobs = 0
        self.read_seconds = 0.0
        # A handler that is always there costs less than one set per job; ``interrupt()`` from another thread
        # might hit the next job instead of the one it was meant for.
        connection.set_progress_handler(self._must_stop, PROGRESS_INSTRUCTIONS)

    def serve(self, jobs: list[Job], answer: Answer) -> None:
        """Run jobs one by one; answer those that are done early where the others take their time."""
        done: list[Job] = []
        started = mark = time.perf_counter()
        for job in jobs:
            if not job.abandoned:
                self._read(job)
            done.append(job)
            now = time.perf_counter()
            if now - mark > ANSWER_WITHIN_S:
                answer(done)
                done, mark = [], now
        if done:
            answer(done)
        self.read_seconds += time.perf_counter() - started

    def stop(self) -> None:
        """Interrupt the job that runs and refuse the others: at shutdown nobody needs the answers."""
        self._stopping = True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _must_stop(self) -> bool:
        job = self._current
        if job is None:
            return False
        return (
            self._stopping or job.abandoned or (job.deadline is not None and time.monotonic() > job.deadline)
        )

    def _read(self, job: Job) -> None:
        connection = self._connection
        self._current = job
        self.jobs += 1
        try:
            if self._must_stop():
                raise self._stopped(job)
            connection.execute("BEGIN")
            job.succeed(job.work(connection))
        except Exception as error:
            self.failed_jobs += 1
            code = primary_code(error)
            if code == sqlite3.SQLITE_INTERRUPT:
                job.fail(self._stopped(job))
            elif code == sqlite3.SQLITE_READONLY:
                # query_only: a job that writes was given to the reader. A bug, not the box's fault.
                job.outcome = outcome.Error(error)
            else:
                job.fail(error)
        finally:
            self._current = None
            if connection.in_transaction:
                connection.rollback()

    def _stopped(self, job: Job) -> errors.Unavailable:
        if self._stopping or job.abandoned:
            return errors.Unavailable(STOPPING)
        self.overdue_jobs += 1
        return errors.Unavailable("the read took longer than it may: the box is busy", retry_after_s=1)


class Executor(Protocol):
    """Brings jobs to a lane and their outcomes back."""

    @property
    def depth(self) -> int:
        """Jobs that wait to be run."""

    @property
    def refused(self) -> int:
        """Jobs that found the queue full."""

    async def submit(self, job: Job, *, cancellable: bool) -> Any:
        """Run a job, return its value or raise its error.

        Checks for cancellation on entry. After that a job that is not ``cancellable`` is waited for to its
        end; one that is, is abandoned (and interrupted where it runs). Raises Unavailable when the queue is
        full or the store stops.
        """

    async def close(self) -> None:
        """Run what is queued, end, close the lane. Not cancellable; at most as long as the queue takes."""


class InlineExecutor:
    """Runs every job at once in the caller's task: for tests under an autojump clock, which jumps over threads."""

    depth = 0
    refused = 0

    def __init__(self, lane: Lane, *, observe: Callable[[Sequence[Job]], None]) -> None:
        self._lane = lane
        self._observe = observe
        self._closed = False

    async def submit(self, job: Job, *, cancellable: bool) -> Any:
        """Run a job; see :class:`Executor`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise errors.Unavailable(STOPPING)
        self._lane.serve([job], self._observe)
        await trio.lowlevel.cancel_shielded_checkpoint()
        assert job.outcome is not None
        return job.outcome.unwrap()

    async def close(self) -> None:
        """Close the lane."""
        self._closed = True
        self._lane.close()
        await trio.lowlevel.cancel_shielded_checkpoint()


class ThreadExecutor:
    """One thread for one lane, fed through a bounded queue, answering a whole batch by one call into the loop.

    ``observe`` is called in the trio thread with each answered batch, before any of its waiters is resumed.
    ``on_crash`` is called in the trio thread when the thread or ``observe`` dies of something that is not a
    job's failure; everybody who waits gets Unavailable.
    """

    def __init__(
        self,
        name: str,
        lane: Lane,
        *,
        queue_size: int,
        observe: Callable[[Sequence[Job]], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._lane = lane
        self._queue_size = queue_size
        self._observe = observe
        self._on_crash = on_crash
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: set[Job] = set()
        self._closing = False
        self._crashed = False
        self._ended = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        # A daemon thread: an interpreter that dies without close() (a second SIGINT) must not hang on it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.refused = 0

    def start(self) -> None:
        """Start the thread. Must be called in the trio thread that will submit."""
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()

    @property
    def depth(self) -> int:
        """Jobs that wait to be run."""
        return self._queue.qsize()

    async def submit(self, job: Job, *, cancellable: bool) -> Any:
        """Run a job; see :class:`Executor`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing or self._crashed:
            raise errors.Unavailable(STOPPING)
        if self._queue.qsize() >= self._queue_size:
            self.refused += 1
            raise errors.Unavailable("the write or read queue of the store is full", retry_after_s=1)
        job.task = trio.lowlevel.current_task()
        self._waiting.add(job)
        self._queue.put(job)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            if not cancellable:
                return trio.lowlevel.Abort.FAILED
            job.abandoned = True
            self._waiting.discard(job)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    async def close(self) -> None:
        """Run what is queued, then join the thread. Not cancellable."""
        self._closing = True
        self._lane.stop()
        self._queue.put(None)
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self._thread.join()

    # In the thread

    def _run(self) -> None:
        try:
            try:
                while self._serve_batch():
                    pass
            finally:
                self._lane.close()
        except BaseException as error:
            self._post(self._crash, error)
        finally:
            self._post(self._ended.set)

    def _serve_batch(self) -> bool:
        """Serve what waits, at least one job; return False when that was the last."""
        job = self._queue.get()
        jobs: list[Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == BATCH or self._queue.empty():
                break
            job = self._queue.get_nowait()
        if jobs:
            self._lane.serve(jobs, self._post_answers)
        return job is not None

    def _post_answers(self, jobs: list[Job]) -> None:
        self._post(self._answer, jobs)

    def _post(self, function: Callable[..., object], *args: object) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            # The loop is gone, and everybody who could wait for the answer with it.
            if not self._closing:
                logger.error("the event loop ended before the store was closed")

    # In the trio thread

    def _answer(self, jobs: list[Job]) -> None:
        crash: BaseException | None = None
        try:
            self._observe(jobs)
        except BaseException as error:
            crash = error
        for job in jobs:
            if job in self._waiting:
                self._waiting.discard(job)
                self._resume(job, job.outcome)
        if crash is not None:
            # The writes did commit, so their writers were told so; but what the observer keeps in memory is
            # no longer what the database says, and only a new start repairs that.
            self._crash(crash)

    def _crash(self, error: BaseException) -> None:
        self._crashed = True
        self._on_crash(error)
        waiting, self._waiting = self._waiting, set()
        for job in waiting:
            self._resume(job, outcome.Error(errors.Unavailable("the store has crashed")))

    def _resume(self, job: Job, result: outcome.Value[Any] | outcome.Error | None) -> None:
        assert job.task is not None
        assert result is not None
        trio.lowlevel.reschedule(job.task, result)
