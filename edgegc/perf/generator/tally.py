"""What became of a plan so far: answers and errors by kind of request, durations, answers a second.

Knows neither sockets nor the clock: whoever calls says what time it is, and that it is in the measured time.
"""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING

from edgegc.perf.generator.schedule import NS_PER_S
from edgegc.perf.histogram import Histogram
from edgegc.perf.plan import Answered

if TYPE_CHECKING:
    from edgegc.perf.plan import Ask, Plan


class Kind:
    """The counts of one kind of request."""

    __slots__ = ("ask", "at_ns", "errors", "expected", "latency", "read", "requests")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.expected = frozenset(ask.expected)
        self.requests = 0
        self.errors: Counter[str] = Counter()
        self.latency = Histogram()
        self.read = 0
        self.at_ns: list[int] = []

    def answered(self) -> Answered:
        """Return them as they are told to the suite."""
        return Answered(
            name=self.ask.name,
            requests=self.requests,
            errors=dict(self.errors),
            latency=self.latency.counts(),
            bytes_read=self.read,
            at_ns=tuple(self.at_ns),
        )


class Tally:
    """All counts of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.kinds = [Kind(ask) for ask in plan.asks]
        self.errors: Counter[str] = Counter()
        """Of connections that no request was on."""
        self.lag = Histogram()
        self.connect = Histogram()
        self.per_second = [0] * max(1, ceil(plan.duration_s))
        self.dropped = 0
        self.reconnects = 0

    @property
    def answers(self) -> int:
        """How many were answered as expected."""
        return sum(kind.requests for kind in self.kinds)

    @property
    def failures(self) -> int:
        """How many were not, and how many connections failed without any."""
        return sum(kind.errors.total() for kind in self.kinds) + self.errors.total() + self.dropped

    def answer(
        self, kind: int, status: int, *, read: int, latency_ns: int, now_ns: int, since_ns: int
    ) -> None:
        """Count an answer, ``since_ns`` after the measured time began."""
        counts = self.kinds[kind]
        counts.read += read
        if status not in counts.expected:
            counts.errors[f"status {status}"] += 1
            return
        counts.requests += 1
        counts.latency.record(latency_ns)
        second = since_ns // NS_PER_S
        if second < len(self.per_second):
            self.per_second[second] += 1
        if counts.ask.times:
            counts.at_ns.append(now_ns)
