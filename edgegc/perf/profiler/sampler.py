"""Samplers that run inside a measured process, around what it does anyway: of its CPU time, its waiting, its memory.

Knows nothing of what it does, and of the suite only a directory: samples are written into it, and a number in it says
which measurement is going on. Imports nothing but the standard library: it is loaded into what is measured.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from edgegc.perf.profiler.recording import SUFFIX, Frame, Recorder
from edgegc.perf.profiler.recording import __file__ as recording_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from edgegc.perf.profiler.recording import Kind

CPU_EVERY_S: Final = 0.005
"""Of CPU time, all threads together; the kernel makes its own tick of it, 4 or 10 ms. A sample costs some 30 µs."""
WAIT_EVERY_S: Final = 0.05
WAIT_SHARE: Final = 20
"""Looking at all tasks may take one part in so many of the time: with 10,000 of them it happens less often."""
DEEPEST: Final = 200
"""Frames of a stack; what is deeper is a recursion."""
EARLY: Final = "since before the measured time"
TRACED_FRAMES: Final = 25
"""Of an allocation: enough to lead from one of our functions out to the request that it served."""
WINDOW_FILE: Final = "window"
LOOK_EVERY_S: Final = 0.02
"""How soon a window's beginning or end is noticed."""
DONE_SUFFIX: Final = ".done"
"""Of a process's file with the number of the window that it looked at its memory for last: whoever set it waits for this."""
SPENT: Final = "spent_ns"
TRACING_BYTES: Final = "tracing_bytes"
OWN: Final = "own"
MEMRAY: Final = "memray"
TRACED: Final = "PYTHONTRACEMALLOC"
"""The interpreter traces allocations from its first one on."""
NUMBERED: Final = "0123456789-_ "

_AWAITED: Final = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def before(kind: Kind, tool: str) -> None:
    """Start this very program again where its interpreter must be told to trace: allocations are then seen from the first."""
    if kind == "memory" and tool == OWN and TRACED not in os.environ:
        os.environ[TRACED] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    # Not for the programs that this one starts.
    os.environ.pop(TRACED, None)


@contextmanager
def sampling(kind: Kind, directory: Path, words: Sequence[str], *, tool: str) -> Iterator[None]:
    """Sample this process for as long as the context lasts. To be entered in the main thread."""
    name = f"{os.getpid()}-{time.monotonic_ns()}"
    if tool == MEMRAY:
        import memray  # type: ignore[import-not-found,unused-ignore]

        with memray.Tracker(directory / f"{name}.memray"):
            yield
        return
    recorder = Recorder(directory / f"{name}{SUFFIX}", kind=kind, words=words)
    match kind:
        case "cpu":
            with _Cpu(recorder).running():
                yield
        case "blocking":
            with _Waiting(recorder).running():
                yield
        case "memory":
            with _Memory(recorder, directory).running():
                yield


class _Cpu:
    """Gives the CPU time that each thread used since the last sample to where it is now.

    A timer that runs with the process's CPU time sends a signal, which the main thread answers between two instructions: at
    the latest when the C function that it is in returns, so that this function's time is its caller's line.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._used: dict[int, int] = {}
        self._spent_ns = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        with _on_signal(signal.SIGPROF, signal.ITIMER_PROF, CPU_EVERY_S, self._sample):
            yield
        self._recorder.flush()

    def _sample(self, interrupted: FrameType | None) -> None:
        began = time.thread_time_ns()
        now = time.monotonic_ns()
        here = threading.get_ident()
        for thread, frame in sys._current_frames().items():
            # Who is listed lives for as long as we hold the interpreter: its clock can be asked.
            used = time.clock_gettime_ns(time.pthread_getcpuclockid(thread))
            weight = used - self._used.get(thread, used)
            self._used[thread] = used
            if weight > 0:
                inner = self._spender(interrupted) if thread == here else frame
                stack = [
                    self._recorder.frame(Frame("", _thread_name(thread), 0)),
                    *_walk(inner, self._recorder),
                ]
                self._recorder.add(now, weight, stack)
        self._recorder.say(SPENT, self._spent_ns)
        self._recorder.flush_if_due()
        self._spent_ns += time.thread_time_ns() - began
        # Our own time is nobody's.
        self._used[here] = time.thread_time_ns()

    def _spender(self, interrupted: FrameType | None) -> FrameType | None:
        """Return the frame that spent the time: signals are answered where a function begins, and so far its caller ran."""
        if interrupted is not None and self._recorder.begins(interrupted.f_code, interrupted.f_lasti):
            return interrupted.f_back or interrupted
        return interrupted


class _Waiting:
    """Gives the time since the last look to where each of trio's tasks, and each other thread, is now."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._last_ns = time.monotonic_ns()
        self._due_ns = 0
        self._spent_ns = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        with _on_signal(signal.SIGALRM, signal.ITIMER_REAL, WAIT_EVERY_S, self._sample):
            yield
        self._recorder.flush()

    def _sample(self, interrupted: FrameType | None) -> None:
        began = time.monotonic_ns()
        if began < self._due_ns:
            return
        weight = began - self._last_ns
        here = threading.get_ident()
        for thread, frame in sys._current_frames().items():
            if thread != here:
                name = self._recorder.frame(Frame("", _thread_name(thread), 0))
                self._recorder.add(began, weight, [name, *_walk(frame, self._recorder)])
        for task in _tasks():
            self._recorder.add(began, weight, self._stack(task, interrupted))
        self._recorder.say(SPENT, self._spent_ns)
        self._recorder.flush_if_due()
        ended = time.monotonic_ns()
        self._spent_ns += ended - began
        self._last_ns = began
        self._due_ns = ended + (ended - began) * WAIT_SHARE

    def _stack(self, task: Any, interrupted: FrameType | None) -> list[int]:
        record = self._recorder
        stack = [record.frame(Frame("", f"task {_last_words(task.name)}", 0))]
        if getattr(task.coro, "cr_running", False):
            stack += _walk(interrupted, record, down_to=task.coro.cr_frame)
            return [*stack, record.frame(Frame("", "(runs)", 0))]
        stack += _awaits(task.coro, record)
        # Private to trio; with one that has none, who waits for the processor looks like who waits for something else.
        if getattr(task, "_abort_func", True) is None:
            stack.append(record.frame(Frame("", "(is ready, and waits for the processor)", 0)))
        return stack


_Trace = tuple[tuple[str, int], ...]
"""Of an allocation: files and lines, the innermost first."""


class _Memory:
    """Looks, at the beginning and the end of each window, at what is held and who allocated it. In a thread of its own.

    What was there before the first window is known by its line alone, and is taken to stay: with whole stacks, a start whose
    imports are a hundred frames deep would take half a minute. From then on each allocation's stack is kept.
    """

    def __init__(self, recorder: Recorder, directory: Path) -> None:
        self._recorder = recorder
        self._window = os.open(directory / WINDOW_FILE, os.O_RDONLY | os.O_CLOEXEC)
        done = directory / f"{os.getpid()}{DONE_SUFFIX}"
        self._done = os.open(done, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._ended = threading.Event()
        self._numbers: dict[tuple[str, int], int] = {}
        self._before: dict[_Trace, int] = {}
        self._early: dict[_Trace, tuple[int, int]] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        import tracemalloc

        if not tracemalloc.is_tracing():
            tracemalloc.start()
        thread = threading.Thread(target=self._watch, name="profiler", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._recorder.flush()

    def _watch(self) -> None:
        seen = window_of(self._window)
        self._say_done(seen)
        while not self._ended.wait(LOOK_EVERY_S):
            now = window_of(self._window)
            if now == seen:
                continue
            seen = now
            self._look(now)
            self._say_done(now)

    def _look(self, window: int) -> None:
        import tracemalloc

        gc.collect()
        record = self._recorder
        record.say(TRACING_BYTES, tracemalloc.get_tracemalloc_memory())
        found = _held(tracemalloc.take_snapshot())
        if self._early is None:
            self._early = found
            tracemalloc.stop()
            tracemalloc.start(TRACED_FRAMES)
            return
        if is_open(window):
            self._before = {frames: size for frames, (size, _) in found.items()}
            return
        early = record.frame(Frame("", EARLY, 0))
        for frames, (size, blocks) in self._early.items():
            record.add_memory(window, size, 0, blocks, [early, *(self._number(at) for at in frames)])
        for frames, (size, blocks) in found.items():
            # Of functions tracemalloc knows only the lines: whoever reads this finds their names in the source.
            stack = [self._number(at) for at in reversed(frames)]
            record.add_memory(window, size, size - self._before.get(frames, 0), blocks, stack)
        self._before = {}

    def _number(self, at: tuple[str, int]) -> int:
        number = self._numbers.get(at)
        if number is None:
            number = self._numbers[at] = self._recorder.frame(Frame(at[0], "", at[1]))
        return number

    def _say_done(self, window: int) -> None:
        self._recorder.flush()
        os.pwrite(self._done, written(window), 0)


def _held(snapshot: Any) -> dict[_Trace, tuple[int, int]]:
    """Return bytes and blocks by stack, without what sampling itself allocated.

    The snapshot's own ``statistics`` and filters take ten times as long: they make an object for each frame.
    """
    found: dict[_Trace, tuple[int, int]] = {}
    for _domain, size, frames, *_ in snapshot.traces._traces:
        held, blocks = found.get(frames, (0, 0))
        found[frames] = (held + size, blocks + 1)
    own = (__file__, recording_file)
    return {frames: held for frames, held in found.items() if not any(file in own for file, _ in frames)}


def is_open(window: int) -> bool:
    """Whether a measurement is going on: windows are counted at their beginning and at their end."""
    return window % 2 == 1


def written(window: int) -> bytes:
    """Return a window's number as it stands in a file: in place of the one before, hence always as long."""
    return f"{window:012}".encode()


def window_of(file: int) -> int:
    """Return the number in a file; 0 for an empty one."""
    return int(os.pread(file, 16, 0) or b"0")


@contextmanager
def _on_signal(number: signal.Signals, timer: int, every_s: float, sample: Any) -> Iterator[None]:
    busy = False

    def handle(_number: int, interrupted: FrameType | None) -> None:
        nonlocal busy
        # The next one may come before this one is done.
        if not busy:
            busy = True
            try:
                sample(interrupted)
            finally:
                busy = False

    before = signal.signal(number, handle)
    # A system call of another thread that it comes in goes on as if nothing had been.
    signal.siginterrupt(number, False)
    signal.setitimer(timer, every_s, every_s)
    try:
        yield
    finally:
        signal.setitimer(timer, 0.0)
        signal.signal(number, before)


def _walk(frame: FrameType | None, record: Recorder, *, down_to: FrameType | None = None) -> list[int]:
    """Return the frames from the outermost (or ``down_to``) to this one."""
    found: list[int] = []
    while frame is not None and len(found) < DEEPEST:
        found.append(record.place(frame.f_code, frame.f_lasti))
        if frame is down_to:
            break
        frame = frame.f_back
    found.reverse()
    return found


def _awaits(coroutine: Any, record: Recorder) -> list[int]:
    """Return the frames of a coroutine that is suspended, and of what it awaits, and so on."""
    found: list[int] = []
    while coroutine is not None and len(found) < DEEPEST:
        for frame_of, awaited_by in _AWAITED:
            if hasattr(coroutine, frame_of):
                frame = getattr(coroutine, frame_of)
                if frame is not None:
                    found.append(record.place(frame.f_code, frame.f_lasti))
                coroutine = getattr(coroutine, awaited_by)
                break
        else:
            # What ``__anext__`` and ``__await__`` of the interpreter's own return does not say what it stands for.
            coroutine = next((each for each in gc.get_referents(coroutine) if _is_suspended(each)), None)
    return found


def _is_suspended(value: object) -> bool:
    return any(hasattr(value, frame_of) for frame_of, _ in _AWAITED)


def _tasks() -> Iterator[Any]:
    """Iterate over all tasks of trio in this thread, the outermost first; over none where it does not run."""
    lowlevel = sys.modules.get("trio.lowlevel")
    try:
        root = lowlevel.current_root_task() if lowlevel is not None else None
    except (RuntimeError, AttributeError):  # it does not run; it is just being imported
        return
    todo = [root] if root is not None else []
    while todo:
        task = todo.pop()
        yield task
        for nursery in task.child_nurseries:
            todo.extend(nursery.child_tasks)


def _thread_name(ident: int) -> str:
    # Not ``enumerate()``: its lock may be held by whom the signal interrupted.
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    # Those of a pool are one another's equals.
    return f"thread {thread.name.rstrip(NUMBERED)}" if thread is not None else "thread"


def _last_words(name: str) -> str:
    return name.rpartition(".<locals>.")[2] or name
