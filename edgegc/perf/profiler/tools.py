"""Profilers of other people that may be installed: which there are, and how what they write is read.

py-spy looks at a process from outside: it costs it next to nothing, and sees C functions where they have symbols. memray
sees allocations of C libraries, too. Neither is needed, and neither is in the ``.pyz``.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import subprocess
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from edgegc.errors import Unavailable
from edgegc.perf import process
from edgegc.perf.profiler.profile import Profile, named, source
from edgegc.perf.profiler.recording import Frame
from edgegc.perf.profiler.sampler import MEMRAY, OWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from edgegc.perf.profiler.recording import Kind, Stack

Tool = Literal["own", "py-spy", "memray"]

PY_SPY: Final = "py-spy"
PY_SPY_PER_S: Final = 200
PY_SPY_ENDS_S: Final = 60.0
"""It writes its file when it is told to end."""
PY_SPY_STARTS_S: Final = 10.0
POLL_S: Final = 0.02
PY_SPY_AT_MOST_S: Final = 86_400
MEMRAY_SUFFIX: Final = ".memray"

_WAITS: Final = re.compile(r"\.(acquire|get|join|poll|select|wait)\(")
"""py-spy leaves out who waits, where the kernel tells it; where it does not, these calls give it away."""
_FRAME: Final = re.compile(r"(?P<function>.*?) \((?P<file>.*?)(?::(?P<line>[0-9]+))?\)")


def has(tool: Tool) -> bool:
    """Return whether a tool is there."""
    match tool:
        case "own":
            return True
        case "py-spy":
            return shutil.which(PY_SPY) is not None
        case "memray":
            return importlib.util.find_spec(MEMRAY) is not None


def choose(kind: Kind, wanted: Tool | None) -> Tool:
    """Return the tool for a kind of profile: the wanted one, else the best there is. Raises Unavailable, with the remedy."""
    others: dict[Kind, Tool] = {"cpu": PY_SPY, "memory": MEMRAY}
    better = others.get(kind)
    if wanted is None:
        return better if better is not None and has(better) else OWN
    if wanted not in (OWN, better):
        raise Unavailable(f"{wanted} makes no profile of {kind}; take --tool {better or OWN}")
    if not has(wanted):
        raise Unavailable(f"{wanted} is not installed: {remedy(wanted)}, or take --tool {OWN}")
    return wanted


def lacking(kind: Kind, tool: Tool) -> str:
    """Return the sentence about a tool that would see more and is not there; empty where there is none."""
    if tool != OWN:
        return ""
    if kind == "cpu" and not has(PY_SPY):
        return f"py-spy would cost the measured process less, and see the time of C functions by name: {remedy(PY_SPY)}"
    if kind == "memory" and not has(MEMRAY):
        return f"memray would see what C libraries allocate, too: {remedy(MEMRAY)}"
    return ""


def remedy(tool: Tool) -> str:
    """Return how a tool is had."""
    return "pip install py-spy" if tool == PY_SPY else "pip install memray, for the Python that runs edgegc"


@asynccontextmanager
async def py_spy(pids: Sequence[int], into: Path) -> AsyncIterator[list[Path]]:
    """Have py-spy sample processes for as long as the context lasts; afterwards its files are there.

    What is no Python is not sampled. Raises Unavailable with py-spy's own words where it can't look at any.
    """
    files: list[Path] = []
    running: list[tuple[trio.Process, Path]] = []
    try:
        for pid in pids:
            if "python" not in process.arguments(pid)[0]:
                continue
            file = into / f"{pid}-{time.monotonic_ns()}.raw"
            argv = [
                PY_SPY, "record", "--pid", str(pid), "--rate", str(PY_SPY_PER_S), "--format", "raw", "--threads", "--full-filenames",
                "--duration", str(PY_SPY_AT_MOST_S), "--output", str(file),
            ]  # fmt: skip
            with file.with_suffix(".log").open("wb") as log:
                started = await trio.lowlevel.open_process(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            running.append((started, file))
            with trio.move_on_after(PY_SPY_STARTS_S):
                # It says so when it has found the interpreter in the process.
                while started.poll() is None and b"Sampling" not in _said(file):  # noqa: ASYNC110  another program's log
                    await trio.sleep(POLL_S)
        yield files
    finally:
        with trio.CancelScope(shield=True):
            await _end(running)
    failed = [_said(file).decode(errors="replace").strip() for _, file in running if not file.exists()]
    files += [file for _, file in running if file.exists()]
    if failed and not files:
        raise Unavailable(f"py-spy: {failed[0].splitlines()[-1] if failed[0] else 'it wrote nothing'}")


def read_py_spy(file: Path) -> Profile:
    """Return what py-spy wrote: a stack and its number of samples in a line. Raises OSError."""
    found = Profile(unit="s")
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        frames, _, count = line.rpartition(" ")
        stack = tuple(_frame(each) for each in frames.split(";"))
        if not _WAITS.search(source(stack[-1])):
            found.add(stack, int(count) / PY_SPY_PER_S)
    return found


def read_memray(file: Path) -> Profile:
    """Return what memray saw held when it was most. Raises Unavailable where it saw nothing."""
    import memray  # type: ignore[import-not-found,unused-ignore]

    found = Profile(unit="bytes")
    try:
        reader: Any = memray.FileReader(file)
        for record in reader.get_high_watermark_allocation_records(merge_threads=True):
            stack: Stack = tuple(Frame(name, function, line) for function, name, line in record.stack_trace())
            found.add(named(stack[::-1]), record.size)
    except (OSError, RuntimeError) as error:
        raise Unavailable(f"memray: {error}") from error
    return found


async def _end(running: Sequence[tuple[trio.Process, Path]]) -> None:
    for started, _ in running:
        if started.poll() is None:
            started.send_signal(signal.SIGINT)
    with trio.move_on_after(PY_SPY_ENDS_S):
        for started, _ in running:
            await started.wait()
    for started, _ in running:
        if started.poll() is None:
            started.kill()
        await started.wait()


def _frame(text: str) -> Frame:
    found = _FRAME.fullmatch(text)
    if found is None:
        # A thread's name, or a function without a source.
        name = text.partition("tid: ")[2] or text
        return (
            Frame("", f"thread {name.partition(' ')[2] or name}".strip(), 0)
            if "tid: " in text
            else Frame("", text, 0)
        )
    return Frame(found["file"], found["function"], int(found["line"] or 0))


def _said(file: Path) -> bytes:
    try:
        return file.with_suffix(".log").read_bytes()
    except OSError:
        return b""
