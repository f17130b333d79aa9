"""Bounded in-memory time series: what the resource sampler writes and the API reads. Never stored."""

from __future__ import annotations

from collections import deque


class Series:
    """Ring buffers by name, each of the newest ``capacity`` samples ``(Unix seconds, value)``.

    Names are ``daemon.rss_bytes``, ``lighthouse.<cluster id>.cpu_percent``, ``system.load1`` and so on.
    """

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._rings: dict[str, deque[tuple[float, float]]] = {}

    def add(self, name: str, at: float, value: float) -> None:
        """Append a sample; the oldest one leaves when the ring is full."""
        ring = self._rings.get(name)
        if ring is None:
            ring = self._rings[name] = deque(maxlen=self._capacity)
        ring.append((at, value))

    def drop(self, prefix: str) -> None:
        """Forget every series whose name starts with ``prefix`` (a process that is gone)."""
        for name in [name for name in self._rings if name.startswith(prefix)]:
            del self._rings[name]

    def latest(self, name: str) -> float | None:
        """Return the newest value of a series, or None without one."""
        ring = self._rings.get(name)
        return ring[-1][1] if ring else None

    def window(self, *, since: float, step_s: float) -> dict[str, tuple[tuple[float, float], ...]]:
        """Return every series since a time, thinned to at most one sample (the last) per ``step_s`` seconds."""
        return {name: _thin(ring, since, step_s) for name, ring in sorted(self._rings.items())}


def _thin(ring: deque[tuple[float, float]], since: float, step_s: float) -> tuple[tuple[float, float], ...]:
    by_step: dict[int, tuple[float, float]] = {}
    for at, value in ring:
        if at >= since:
            by_step[int(at // step_s)] = (at, value)
    return tuple(by_step.values())
