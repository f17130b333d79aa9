"""What operations on the store took, by their kind, while they are done: it becomes a load like any other."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from edgegc.perf.histogram import Counts, Histogram
from edgegc.perf.plan import Answered, Load

if TYPE_CHECKING:
    from edgegc.errors import Error

NS_PER_S: Final = 1_000_000_000


class Tally:
    """What operations took, by kind, since it was made."""

    def __init__(self) -> None:
        self.began_at = time.time()
        self.began_ns = time.monotonic_ns()
        self._latency: dict[str, Histogram] = {}
        self._errors: dict[str, Counter[str]] = {}
        self._per_second: Counter[int] = Counter()
        self.lag = Histogram()

    def note(self, kind: str, since_ns: int) -> None:
        """Count an operation that has just ended well."""
        now = time.monotonic_ns()
        self.add(kind, now - since_ns)
        self._per_second[(now - self.began_ns) // NS_PER_S] += 1

    def add(self, kind: str, took_ns: int) -> None:
        """Count an operation that took so long."""
        histogram = self._latency.get(kind)
        if histogram is None:
            histogram = self._latency[kind] = Histogram()
        histogram.record(took_ns)

    def fail(self, kind: str, error: Error) -> None:
        """Count an operation that failed."""
        self._errors.setdefault(kind, Counter())[error.code] += 1

    def of(self, kind: str) -> Histogram:
        """Return what operations of a kind took, which may be none."""
        return self._latency.get(kind, Histogram())

    def load(self) -> Load:
        """Return all of it."""
        duration_s = (time.monotonic_ns() - self.began_ns) / NS_PER_S
        return Load(
            began_at=self.began_at,
            duration_s=duration_s,
            asks=tuple(self._answered(kind) for kind in sorted({*self._latency, *self._errors})),
            errors={},
            # Who asks shares the interpreter with who answers, so how late it is tells nothing of a generator: it is in the
            # latency, and told as a figure.
            lag=Counts(),
            per_second=tuple(self._per_second[second] for second in range(int(duration_s))),
            connect=Counts(),
            cpu_s=0.0,
            dropped=0,
        )

    def _answered(self, kind: str) -> Answered:
        latency = self.of(kind)
        return Answered(
            name=kind,
            requests=latency.count,
            errors=dict(self._errors.get(kind, {})),
            latency=latency.counts(),
            bytes_read=0,
        )
