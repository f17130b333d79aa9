"""Owns what happens to jobs on a connection: group commit for writes, a transaction and a deadline for each read.

Knows no thread and no event loop (:mod:`edgegc.store.executor`), no schema and no aggregate: a job is any function of
a connection.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import outcome

from edgegc import errors

if TYPE_CHECKING:
    import trio

logger = logging.getLogger(__name__)

PROGRESS_INSTRUCTIONS = 10_000
"""SQLite virtual machine steps between looks at the deadline: 0.2 ms on the development machine."""

ANSWER_WITHIN_S = 0.001
"""Reads that are done wait at most about this long for the others of their batch, so that a slow one delays nobody."""

_LOCKED = ("the database is locked by another program", 1)
_DAMAGED = ("the database is damaged: stop edgegc and restore a backup", 300)
_FAILURES = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_NOMEM: ("the box is out of memory", 5),
    # Room is made by people and log rotation, not by waiting a second.
    sqlite3.SQLITE_FULL: ("the disk of the data directory is full", 30),
    sqlite3.SQLITE_IOERR: ("the disk of the data directory fails", 30),
    sqlite3.SQLITE_CANTOPEN: ("the database can't be opened", 30),
    sqlite3.SQLITE_READONLY: ("the database can't be written to", 30),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
"""Where the box failed and not the job: what a caller is told, and after how many seconds trying again makes sense."""

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
    if code is None or code not in _FAILURES:
        return None
    sentence, retry_after_s = _FAILURES[code]
    return errors.Unavailable(sentence, retry_after_s=retry_after_s)


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
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        if not self._run_trusting(group):
            execute("ROLLBACK")
            execute("BEGIN IMMEDIATE")
            # A job that was alone has failed already.
            if len(group) > 1:
                self._run_guarded(group)
        # If this fails, SQLite takes back every frame of this transaction and writes the next one over them,
        # so that a failed fsync can't be forgotten by the kernel: nothing acknowledged ever depends on it.
        execute("COMMIT")

    def _run_trusting(self, group: list[Job]) -> bool:
        """Run jobs without savepoints, for nearly all of them succeed, or fail before they have changed anything.

        False where one left something to take back: then all that was done has to be undone, and done again. What is written
        into a BLOB in place is no change that is counted: no job may fail after it.
        """
        connection = self._connection
        for job in group:
            before = connection.total_changes
            try:
                job.succeed(job.work(connection))
            except Exception as error:
                self._fail(job, error)
                if connection.total_changes != before:
                    return False
            if not connection.in_transaction:
                raise _TransactionLost
        return True

    def _run_guarded(self, group: list[Job]) -> None:
        """Run jobs with a savepoint each, to which one that fails is taken back."""
        execute = self._connection.execute
        for job in group:
            execute("SAVEPOINT job")
            try:
                job.succeed(job.work(self._connection))
            except Exception as error:
                self._fail(job, error)
                execute("ROLLBACK TO job")
            # Fails, and loses the batch, where a job ended the transaction behind our back.
            execute("RELEASE job")

    def _fail(self, job: Job, error: Exception) -> None:
        """Note that a job failed, where only that did; raise where the transaction is lost with it."""
        # SQLITE_FULL, IOERR, NOMEM and their like may roll back the whole transaction, savepoints included, and a
        # job may have translated the error: only in_transaction tells.
        if not self._connection.in_transaction or primary_code(error) in _DAMAGE:
            raise _TransactionLost from error
        job.fail(error)

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
