"""What the kernel says of processes: who they are, whose children, what they use. Reads ``/proc``, and nothing else.

Knows no server and no suite. Every reading is a system call or a few, in the caller's thread: 1 to 3 ms for a server, nearly
all of it the kernel adding up private memory (``smaps_rollup``). What is gone is an error, never a zero.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROC: Final = Path("/proc")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
KIB: Final = 1024

_PARENT, _USER_TICKS, _SYSTEM_TICKS, _START_TICKS, _RSS_PAGES = 1, 11, 12, 19, 21
"""Fields of ``/proc/<pid>/stat`` after the command's name."""


class Gone(Unavailable):
    """There is no such process any more."""


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """One process, from ``/proc/<pid>/stat``. ``start_ticks`` since boot: with the pid, who it is."""

    pid: int
    state: str
    parent: int
    start_ticks: int
    cpu_s: float
    """User and system time, of threads that ended too; to 10 ms."""
    rss_bytes: int

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not, whoever should reap it."""
        return self.state not in "ZX"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What processes use, or have used since each began, together."""

    rss_bytes: int = 0
    """What several of them share counts once for each."""
    pss_bytes: int = 0
    private_bytes: int = 0
    """``Private_Clean`` + ``Private_Dirty``: what would be free without them."""
    cpu_s: float = 0.0
    fds: int = 0
    context_switches: int = 0
    """Of the threads there are now, voluntary or not."""
    written_bytes: int = 0
    """What they caused to be written to a disk (``write_bytes``)."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


def stat(pid: int) -> Stat:
    """Return the kernel's word on a process. Raises Gone."""
    text = _read(pid, "stat")
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        pid=pid,
        state=fields[0],
        parent=int(fields[_PARENT]),
        start_ticks=int(fields[_START_TICKS]),
        cpu_s=(int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / TICKS_PER_S,
        rss_bytes=int(fields[_RSS_PAGES]) * PAGE_BYTES,
    )


def is_alive(pid: int, *, start_ticks: int | None = None) -> bool:
    """Return whether a process runs, and is the one that began at ``start_ticks``."""
    try:
        seen = stat(pid)
    except Gone:
        return False
    return seen.alive and start_ticks in (None, seen.start_ticks)


def every() -> Iterator[Stat]:
    """Iterate over all processes that run and that we may see."""
    for pid in pids():
        try:
            seen = stat(pid)
        except Gone:
            continue
        if seen.alive:
            yield seen


def pids() -> Iterator[int]:
    """Iterate over the pids of all processes that we may see."""
    return (int(name) for name in os.listdir(PROC) if name.isdecimal())


def tree(pid: int) -> tuple[int, ...]:
    """Return a process and all below it that run, itself first. Raises Gone where it does not."""
    if not stat(pid).alive:
        raise Gone(f"the process {pid} has ended")
    found = [pid]
    if _lists_children():
        for known in found:
            found.extend(_children(known))
    else:
        children: dict[int, list[int]] = {}
        for seen in every():
            children.setdefault(seen.parent, []).append(seen.pid)
        for known in found:
            found.extend(children.get(known, ()))
    return tuple(found)


def usage(of: Iterable[int]) -> Usage:
    """Return what processes use together. Raises Gone for one that does not run any more."""
    total = Usage()
    for pid in of:
        total += _usage(pid)
    return total


def private_bytes(of: Iterable[int]) -> int:
    """Return what would be free without these processes, and nothing else of them: for whoever looks often. Raises Gone."""
    return sum(_private(_memory(pid)) for pid in of)


def arguments(pid: int) -> list[str]:
    """Return a process's command line. Raises Gone."""
    return [part for part in _read(pid, "cmdline").split("\0") if part]


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty where it is not for us to see. Raises Gone."""
    try:
        parts = _read(pid, "environ").split("\0")
    except PermissionError:
        return {}
    return {name: value for name, _, value in (part.partition("=") for part in parts if part)}


def mapped_files(pid: int) -> list[Path]:
    """Return the files that a process has mapped: what it runs and its libraries. Raises Gone."""
    # Address, permissions, offset, device, inode, and a path where it is a file.
    rows = [line.split(maxsplit=5) for line in _read(pid, "maps").splitlines()]
    paths = dict.fromkeys(row[5] for row in rows if len(row) == 6 and row[5].startswith("/"))
    return [Path(path) for path in paths if not path.endswith(" (deleted)")]


def io(pid: int, name: str) -> int | None:
    """Return a counter of a process's input and output; None where the kernel does not keep them. Raises Gone."""
    if not _counts_io():
        return None
    for line in _read(pid, "io").splitlines():
        counted, _, value = line.partition(":")
        if counted == name:
            return int(value)
    return None


def _usage(pid: int) -> Usage:
    seen = stat(pid)
    if not seen.alive:
        raise Gone(f"the process {pid} has ended")
    memory = _memory(pid)
    return Usage(
        rss_bytes=memory.get("Rss", seen.rss_bytes),
        pss_bytes=memory.get("Pss", seen.rss_bytes),
        private_bytes=_private(memory),
        cpu_s=seen.cpu_s,
        fds=_fds(pid),
        context_switches=_context_switches(pid),
        written_bytes=io(pid, "write_bytes") or 0,
    )


def _memory(pid: int) -> dict[str, int]:
    """Return the sums of a process's mappings in bytes."""
    found = {}
    for line in _read(pid, "smaps_rollup").splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * KIB
    return found


def _private(memory: dict[str, int]) -> int:
    return memory.get("Private_Clean", 0) + memory.get("Private_Dirty", 0)


def _fds(pid: int) -> int:
    """Count open files. Listing 10,000 takes 7 ms, in which the generator, on the same processor, may be late: since Linux 6.2
    the kernel tells their number as the size of the directory, which is 0 before.
    """
    try:
        told = (PROC / str(pid) / "fd").stat().st_size
    except (FileNotFoundError, ProcessLookupError):
        raise Gone(f"the process {pid} has ended") from None
    return told or len(_list(pid, "fd"))


def _context_switches(pid: int) -> int:
    total = 0
    for thread in _list(pid, "task"):
        try:
            text = _read(pid, f"task/{thread}/status")
        except Gone:  # the thread; the process is asked again by whoever comes next
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)
    return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in _list(pid, "task", gone_is_empty=True):
        try:
            found.extend(int(child) for child in _read(pid, f"task/{thread}/children").split())
        except Gone:
            continue
    return [child for child in found if is_alive(child)]


@cache
def _counts_io() -> bool:
    """Whether the kernel was built to count what each process reads and writes (``CONFIG_TASK_IO_ACCOUNTING``)."""
    return (PROC / "self" / "io").exists()


@cache
def _lists_children() -> bool:
    """Whether the kernel was built to list children (``CONFIG_PROC_CHILDREN``): else all processes are looked through."""
    return (PROC / "self" / "task" / str(os.getpid()) / "children").exists()


def _list(pid: int, what: str, *, gone_is_empty: bool = False) -> list[str]:
    try:
        return os.listdir(PROC / str(pid) / what)
    except (FileNotFoundError, ProcessLookupError):
        if gone_is_empty:
            return []
        raise Gone(f"the process {pid} has ended") from None


def _read(pid: int, what: str) -> str:
    try:
        return (PROC / str(pid) / what).read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        raise Gone(f"the process {pid} has ended") from None
