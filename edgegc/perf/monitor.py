"""What a server uses, once a second, while something else asks it. Knows how to add up, not what for."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import trio

from edgegc.perf import process
from edgegc.perf.result import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY_S: Final = 1.0


class Watched(Protocol):
    """What can be sampled: a server, or something else that is a few processes."""

    def pids(self) -> Sequence[int]:
        """Return its processes. Raises process.Gone where it has none any more."""

    def database_bytes(self) -> int:
        """Return the size of its database; 0 where it has none."""

    def wal_bytes(self) -> int:
        """Return the size of its database's log."""


class Processes:
    """Processes by their ids, each with its children. They have no database that we know of."""

    def __init__(self, roots: Sequence[int]) -> None:
        self.roots = tuple(roots)

    def pids(self) -> tuple[int, ...]:
        """Return them and all below them. Raises process.Gone where one has ended."""
        return tuple(dict.fromkeys(pid for each in self.roots for pid in process.tree(each)))

    def database_bytes(self) -> int:
        """Return 0."""
        return 0

    def wal_bytes(self) -> int:
        """Return 0."""
        return 0


class Watch:
    """Takes samples of something, from the moment this is made.

    What a process has used counts from its beginning, or from ours where it was there before, and goes on counting when it
    has ended. What it used between its last sample and its end is not seen.
    """

    def __init__(self, of: Watched) -> None:
        self._of = of
        self._began = trio.current_time()
        self._before: dict[tuple[int, int], process.Usage] = {}
        self._last: dict[tuple[int, int], process.Usage] = {}
        for who, used in self._read().items():
            self._before[who] = used

    def sample(self) -> Sample:
        """Take a sample now. Raises Gone where nothing runs any more."""
        now = self._read()
        self._last |= now
        cpu_s, switches, written = 0.0, 0, 0
        for who, used in self._last.items():
            before = self._before.get(who, _NOTHING)
            cpu_s += used.cpu_s - before.cpu_s
            # Threads take their count along when they end.
            switches += max(0, used.context_switches - before.context_switches)
            written += used.written_bytes - before.written_bytes
        return Sample(
            at_s=trio.current_time() - self._began,
            rss_bytes=sum(used.rss_bytes for used in now.values()),
            pss_bytes=sum(used.pss_bytes for used in now.values()),
            private_bytes=sum(used.private_bytes for used in now.values()),
            cpu_s=cpu_s,
            fds=sum(used.fds for used in now.values()),
            context_switches=switches,
            written_bytes=written,
            database_bytes=self._of.database_bytes(),
            wal_bytes=self._of.wal_bytes(),
        )

    def _read(self) -> dict[tuple[int, int], process.Usage]:
        found = {}
        first, *others = self._of.pids()
        found[first, process.stat(first).start_ticks] = process.usage([first])
        for pid in others:
            try:
                found[pid, process.stat(pid).start_ticks] = process.usage([pid])
            except process.Gone:  # a child that has just ended
                continue
        return found


async def sample(
    server: Watched,
    *,
    every_s: float = EVERY_S,
    into: list[Sample],
    task_status: trio.TaskStatus[Watch] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Append a sample every ``every_s`` seconds until cancelled, the first one at once.

    A server that has ended adds none, and is looked for again: it may be started once more. ``task_status`` gives the
    watch, for a last sample at the end.
    """
    watch = Watch(server)
    due = trio.current_time()
    into.append(watch.sample())
    task_status.started(watch)
    while True:
        due += every_s
        await trio.sleep_until(due)
        try:
            into.append(watch.sample())
        except process.Gone:
            continue


def cpu_between(samples: Sequence[Sample], begin_s: float, end_s: float) -> float | None:
    """Return the processor time used between two moments, straight lines drawn between samples; None without two."""
    if len(samples) < 2:
        return None
    return _cpu_at(samples, end_s) - _cpu_at(samples, begin_s)


def _cpu_at(samples: Sequence[Sample], at_s: float) -> float:
    for before, after in pairwise(samples):
        if at_s <= after.at_s:
            share = max(0.0, (at_s - before.at_s) / (after.at_s - before.at_s))
            return before.cpu_s + share * (after.cpu_s - before.cpu_s)
    return samples[-1].cpu_s


_NOTHING: Final = process.Usage()
