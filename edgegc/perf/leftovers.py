"""What a suite that was killed leaves behind, and how the next one finds it: processes, directories, control groups.

All that a suite makes carries its mark, a directory or group in its name, a process in its environment. A mark says which
process it was; where that runs no more, what carries the mark is nobody's. Knows nothing of servers and devices.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgegc.perf import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME: Final = "edgegc-perf"
VARIABLE: Final = "PERF_EDGEGC_SUITE"
"""In the environment of processes. It begins otherwise than ``EDGEGC_``: a server refuses settings that it does not know."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
HASH_DIGITS: Final = 6
"""Names are short, for a Unix socket's path has 107 bytes. With the pid, six digits tell one start from another."""
KILL_S: Final = 5.0
"""How long what was killed may take to be gone: a process in the midst of writing ends when the disk lets it."""
POLL_S: Final = 0.01

_NAMED: Final = re.compile(rf"{NAME}-([0-9]+-[0-9a-f]{{{HASH_DIGITS}}})(?:-.*)?")


def mark() -> str:
    """Return the mark of this process."""
    return _mark_of(os.getpid()) or str(os.getpid())


def name(detail: str) -> str:
    """Return a name for a directory or a group of this process."""
    return f"{NAME}-{mark()}-{detail}"


def is_named(path: Path) -> bool:
    """Return whether a suite named a directory or group, this one or another."""
    return _NAMED.fullmatch(path.name) is not None


def is_abandoned(path: Path) -> bool:
    """Return whether the suite that named a directory or group runs no more."""
    found = _NAMED.fullmatch(path.name)
    return found is not None and not lives(found[1])


def lives(marked: str) -> bool:
    """Return whether the suite with this mark runs."""
    pid = marked.partition("-")[0]
    return pid.isdecimal() and _mark_of(int(pid)) == marked


def sweep(parent: Path) -> list[str]:
    """End the processes of suites that are gone and remove their directories in ``parent``. Blocking, milliseconds.

    Returns a sentence for each, for people. What can't be removed is left, and the sentence says so.
    """
    found = []
    for pid in _abandoned_processes():
        kill([pid])
        found.append(f"ended the process {pid} of a run that was killed")
    try:
        entries = list(parent.iterdir())
    except OSError:
        return found
    for path in entries:
        if is_abandoned(path) and path.is_dir() and not path.is_symlink():
            end_nebulas(path)
            shutil.rmtree(path, ignore_errors=True)
            left = "; it can't be removed" if path.exists() else ""
            found.append(f"found {path.name} of a run that was killed{left or ', and removed it'}")
    return found


def end_nebulas(directory: Path) -> None:
    """Kill every nebula whose configuration lies in ``directory``: it outlives the server that started it. Blocking."""
    inside = f"{directory}{os.sep}"

    def is_one(pid: int) -> bool:
        words = process.arguments(pid)
        return any(a == "-config" and b.startswith(inside) for a, b in pairwise(words))

    kill(_having(is_one))


def kill(pids: Iterable[int]) -> None:
    """Kill processes and wait until they are gone, or a few seconds. Blocking. Those of others are left alone."""
    waiting = []
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
        waiting.append(pid)
    until = time.monotonic() + KILL_S
    while time.monotonic() < until and any(process.is_alive(pid) for pid in waiting):
        time.sleep(POLL_S)


def _abandoned_processes() -> list[int]:
    def is_one(pid: int) -> bool:
        marked = process.environment(pid).get(VARIABLE)
        return marked is not None and not lives(marked)

    return _having(is_one)


def _having(condition: Callable[[int], bool]) -> list[int]:
    found = []
    for pid in process.pids():
        try:
            if pid != os.getpid() and condition(pid) and process.is_alive(pid):
                found.append(pid)
        except process.Gone:
            continue
    return found


def _mark_of(pid: int) -> str | None:
    """Return the mark of a process that runs."""
    try:
        seen = process.stat(pid)
    except process.Gone:
        return None
    if not seen.alive:
        return None
    start = f"{_boot()} {seen.start_ticks}"
    return f"{pid}-{hashlib.sha256(start.encode()).hexdigest()[:HASH_DIGITS]}"


@cache
def _boot() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()
