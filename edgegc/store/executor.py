"""Owns how jobs get from a task to a connection and their outcomes back: through a thread, or inline in tests.

Knows nothing of SQL: what happens to a job is its lane's business (:mod:`edgegc.store.worker`).

Why threads of our own instead of ``trio.to_thread``: one thread that takes up to :data:`BATCH` jobs at a time pays one
fsync and one wake-up of the event loop for all of them, which is what lets a card that can do fifty fsyncs a second
carry more than five hundred durable writes a second.

Why jobs are handed over only when the loop is about to wait: a thread that is woken by the first of many jobs commits
that one alone, and takes the interpreter lock away from whoever would submit the next. Measured with 16 clients who
compute for 0.3 ms before each write: 16 writes a commit instead of 2, a third less CPU time per write.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import outcome
import trio

from edgegc import errors
from edgegc.store.worker import STOPPING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgegc.store.worker import Answer, Job

logger = logging.getLogger(__name__)

BATCH = 64
"""Jobs per transaction at most. Beyond this the fsync is a small part of the cost, and the first job waits longer."""

PATIENCE = 0.3
"""Of the time that a batch took: how long the next one, for which jobs wait already, waits for those who were just answered.

They come back at once, where many do one thing after another; without it they are always a commit late, and of 16 clients
eight share each. Measured on an emulated quarter of a core: 13 writes a commit, and a sixth less CPU time for each.
"""
LONGEST_PATIENCE_S = 0.005
"""By then they have come back; nobody waits for long because a disk does."""


class Lane(Protocol):
    """What serves jobs in order on one connection. All methods but ``stop`` belong to one thread."""

    def serve(self, jobs: list[Job], answer: Answer) -> None:
        """Run jobs and answer each of them exactly once."""

    def stop(self) -> None:
        """Called from outside: finish soon."""

    def close(self) -> None:
        """Close the connection."""


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


class _BeforeWaiting(trio.abc.Instrument):
    """Calls a function each time that all tasks which could run have run."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def before_io_wait(self, timeout: float) -> None:
        """See :class:`trio.abc.Instrument`."""
        self._function()


class ThreadExecutor:
    """One thread for one lane, fed through a bounded queue, answering a whole batch by one call into the loop.

    ``patient``: the next batch waits a little for those who were answered with the last one, see :data:`PATIENCE`.
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
        patient: bool,
        observe: Callable[[Sequence[Job]], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._lane = lane
        self._queue_size = queue_size
        self._patient = patient
        self._observe = observe
        self._on_crash = on_crash
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: set[Job] = set()
        self._gathered: list[Job] = []
        self._instrument = _BeforeWaiting(self._hand_over)
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
        trio.lowlevel.add_instrument(self._instrument)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Jobs that wait to be run."""
        return self._queue.qsize() + len(self._gathered)

    async def submit(self, job: Job, *, cancellable: bool) -> Any:
        """Run a job; see :class:`Executor`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing or self._crashed:
            raise errors.Unavailable(STOPPING)
        if self.depth >= self._queue_size:
            self.refused += 1
            raise errors.Unavailable("the write or read queue of the store is full", retry_after_s=1)
        job.task = trio.lowlevel.current_task()
        self._waiting.add(job)
        self._gathered.append(job)

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
        self._hand_over()
        trio.lowlevel.remove_instrument(self._instrument)
        self._queue.put(None)
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self._thread.join()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        for job in gathered:
            self._queue.put(job)

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
            began = time.perf_counter()
            self._lane.serve(jobs, self._post_answers)
            if self._patient and 0 < self._queue.qsize() < BATCH:
                time.sleep(min(PATIENCE * (time.perf_counter() - began), LONGEST_PATIENCE_S))
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
