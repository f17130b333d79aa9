"""Bounded in-memory time series: what the resource sampler writes and the API reads. Never stored."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Ring:
    """The newest samples of one series, 16 bytes each: as tuples of floats they would take seven times that."""

    __slots__ = ("_capacity", "_next", "_size", "_times", "_values")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._next = 0
        self._size = 0
        # All of it at once: who watches the daemon's memory would take an hour of filling up for a leak.
        self._times = array("d", bytes(8 * capacity))
        self._values = array("d", bytes(8 * capacity))

    def add(self, at: float, value: float) -> None:
        self._times[self._next] = at
        self._values[self._next] = value
        self._next = (self._next + 1) % self._capacity
        self._size = min(self._size + 1, self._capacity)

    def last(self) -> float:
        return self._values[self._next - 1]

    def since(self, since: float) -> Iterator[tuple[float, float]]:
        """Yield samples, oldest first."""
        for position in range(self._next - self._size, self._next):
            at = self._times[position % self._capacity]
            if at >= since:
                yield at, self._values[position % self._capacity]


class Series:
    """Ring buffers by name, each of the newest ``capacity`` samples ``(Unix seconds, value)``.

    Names are ``daemon.rss_bytes``, ``lighthouse.<cluster id>.cpu_percent``, ``system.load1`` and so on.
    """

    def __init__(self, *, capacity: int) -> None:
        self._capacity = max(1, capacity)
        self._rings: dict[str, _Ring] = {}

    def add(self, name: str, at: float, value: float) -> None:
        """Append a sample; the oldest one leaves when the ring is full."""
        ring = self._rings.get(name)
        if ring is None:
            ring = self._rings[name] = _Ring(self._capacity)
        ring.add(at, value)

    def drop(self, prefix: str) -> None:
        """Forget every series whose name starts with ``prefix`` (a process that is gone)."""
        for name in [name for name in self._rings if name.startswith(prefix)]:
            del self._rings[name]

    def latest(self, name: str) -> float | None:
        """Return the newest value of a series, or None without one."""
        ring = self._rings.get(name)
        return None if ring is None else ring.last()

    def mean(self, name: str, *, since: float) -> float | None:
        """Return the mean of a series since a time, or None without a sample."""
        ring = self._rings.get(name)
        values = [] if ring is None else [value for _, value in ring.since(since)]
        return sum(values) / len(values) if values else None

    def window(self, *, since: float, step_s: float) -> dict[str, tuple[tuple[float, float], ...]]:
        """Return every series since a time, thinned to at most one sample (the last) per ``step_s`` seconds."""
        return {name: _thin(ring, since, step_s) for name, ring in sorted(self._rings.items())}


def _thin(ring: _Ring, since: float, step_s: float) -> tuple[tuple[float, float], ...]:
    by_step: dict[int, tuple[float, float]] = {}
    for at, value in ring.since(since):
        by_step[int(at // step_s)] = (at, value)
    return tuple(by_step.values())
