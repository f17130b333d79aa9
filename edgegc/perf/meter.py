"""Takes what one case comes to, while it is measured: loads, operations, figures, marks. Knows not who measures, and judges nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from edgegc.perf.histogram import Histogram
from edgegc.perf.result import Figure, Mark

if TYPE_CHECKING:
    from edgegc.perf.monitor import Watched
    from edgegc.perf.plan import Load, Plan
    from edgegc.perf.result import Better, Model, Pace

NS_PER_S: Final = 1_000_000_000


class Meter:
    """Takes what one case came to. Entering :meth:`Bench.measure` makes it, leaving writes it down."""

    def __init__(self, *, model: Model, watched: Watched | None) -> None:
        self.model = model
        self.watched = watched
        self.latency = Histogram()
        self.lag = Histogram()
        self.requests = 0
        self.errors: dict[str, int] = {}
        self.per_second: list[int] = []
        self.figures: dict[str, Figure] = {}
        self.marks: list[Mark] = []
        self.plans: list[Plan] = []
        self.reasons: list[str] = []
        self.dropped = 0
        self.generator_cpu_s = 0.0
        self.server_cpu_s: float | None = None
        """As loads tell it that took turns; otherwise the samples do."""
        self.paces: tuple[Pace, ...] = ()
        self.load_s = 0.0
        self.began_at: float | None = None
        self.entered_at = time.time()
        self.entered_s = time.monotonic()

    def take(self, load: Load) -> None:
        """Take what a load came to. Of several loads the requests and durations add up.

        Where a load has several kinds of requests, each kind's p50, p99 and rate become figures.
        """
        if self.began_at is None:
            self.began_at = load.began_at
        for kind, count in load.errors.items():
            self._count_error(kind, count)
        for ask in load.asks:
            self.requests += ask.requests
            self.latency.merge(ask.latency)
            for kind, count in ask.errors.items():
                self._count_error(kind, count)
            if len(load.asks) > 1:
                self._figures_of(ask.name, Histogram.from_counts(ask.latency), ask.requests / load.duration_s)
        self.lag.merge(load.lag)
        self.per_second += load.per_second
        self.dropped += load.dropped
        self.generator_cpu_s += load.cpu_s
        if load.server_cpu_s is not None:
            self.server_cpu_s = (self.server_cpu_s or 0.0) + load.server_cpu_s
        self.load_s += load.duration_s

    def record(self, ns: int) -> None:
        """Count one operation that took so many nanoseconds."""
        self.requests += 1
        self.latency.record(ns)

    def error(self, kind: str) -> None:
        """Count one operation that failed."""
        self._count_error(kind, 1)

    def figure(self, name: str, value: float, unit: str, *, better: Better = "lower", note: str = "") -> None:
        """Write down one number; the last one of a name counts."""
        self.figures[name] = Figure(value=float(value), unit=unit, better=better, note=note)

    def mark(self, what: str) -> None:
        """Say that something happened now."""
        self.marks.append(Mark(at_s=time.monotonic() - self.entered_s, what=what))

    def invalid(self, why: str) -> None:
        """Say why this can't be trusted: a sentence."""
        if why not in self.reasons:
            self.reasons.append(why)

    def _count_error(self, kind: str, count: int) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + count

    def _figures_of(self, name: str, latency: Histogram, rate: float) -> None:
        for percent in (50, 99):
            ns = latency.percentile_ns(percent)
            if ns is not None:
                self.figure(f"{name} p{percent}", ns / NS_PER_S, "s")
        self.figure(f"{name} rate", rate, "per_s", better="higher")
