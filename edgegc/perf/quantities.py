"""What is compared of a case: which quantities, each as a series with a value for every repetition. Decides nothing.

- closed load: throughput. Its latencies say the same once more (Little's law), and are left out;
- open load: p50 and p99, where every repetition has the samples for it. No load: p50, or the mean of few operations;
- CPU time of the server per request, by far the steadiest of all where the server was busy;
- private memory at its peak; the figures for which it is said whether more or less is better.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.perf import yardstick
from edgegc.perf.decision import Kind, Pair, Series
from edgegc.perf.histogram import SUPPORT, highest_of
from edgegc.perf.metrics import valid
from edgegc.perf.yardstick import ENOUGH_CPU_S, ENOUGH_REQUESTS, Standing, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgegc.perf.result import Case, Measurement

_TAIL: Final = re.compile(r"p9\d|longest|slowest|max")
"""Figures that are told by few samples of many, and vary as those do."""
_PERCENTS: Final[tuple[tuple[str, Kind, float], ...]] = (("p50", "p50", 50.0), ("p99", "p99", 99.0))


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity of one case, on both sides."""

    case: str
    quantity: str
    unit: str
    pair: Pair


def of_case(old: Case, new: Case, standing: Standing, *, only_beside: bool) -> Iterator[Compared]:
    """Yield what is compared of a case that both reports have, beside what the references cost on each side.

    ``only_beside``: of what is time, only that which has references beside it.
    """
    sides = (valid(old), valid(new))
    model = sides[1][0].model

    def compared(
        quantity: str,
        unit: str,
        kind: Kind,
        series: Callable[[Sequence[Measurement]], Series],
        *,
        higher_is_better: bool = False,
        time: Witness | None = "wall",
    ) -> Iterator[Compared]:
        base, now = (series(side) for side in sides)
        if min(base.values) <= 0 or min(now.values) <= 0:
            return
        base_beside = new_beside = None
        if time is not None and standing.base and standing.new:
            base_beside = yardstick.beside(base, sides[0], standing.base, time, multiply=higher_is_better)
            new_beside = yardstick.beside(now, sides[1], standing.new, time, multiply=higher_is_better)
        if only_beside and base_beside is None and time is not None:
            return
        yield Compared(
            case=new.name,
            quantity=quantity,
            unit=unit,
            pair=Pair(
                kind=kind,
                higher_is_better=higher_is_better,
                timed=time is not None,
                base=base,
                new=now,
                base_beside=base_beside,
                new_beside=new_beside,
                in_turns=standing.in_turns,
                only_beside=only_beside and base_beside is not None,
            ),
        )

    every = [m for side in sides for m in side]
    if model == "closed" and all(m.requests >= ENOUGH_REQUESTS for m in every):
        yield from compared("throughput", "per_s", "throughput", _throughput, higher_is_better=True)
    elif model != "closed":
        fewest = min(sum(m.latency.counts) for m in every)
        for name, kind, percent in _PERCENTS:
            if fewest * (100 - percent) >= SUPPORT * 100:
                yield from compared(name, "s", kind, _percentile(percent))
        if 0 < fewest < 2 * SUPPORT:
            yield from compared("mean", "s", "mean", _mean)
    if all(
        m.server_cpu_s is not None and m.server_cpu_s >= ENOUGH_CPU_S and m.requests >= ENOUGH_REQUESTS
        for m in every
    ):
        yield from compared("CPU per request", "s", "cpu", _cpu_per_request, time="cpu")
    if all(m.samples and max(s.private_bytes for s in m.samples) for m in every):
        yield from compared("memory", "bytes", "memory", _memory, time=None)
    names = [name for name in sides[1][0].figures if all(name in m.figures for m in every)]
    for name in names:
        figure = sides[1][0].figures[name]
        if figure.better != "neither":
            rate = figure.unit == "per_s" or figure.unit.endswith("_per_s")
            yield from compared(
                name,
                figure.unit,
                "p99" if _TAIL.search(name) else "figure",
                _figure(name),
                higher_is_better=figure.better == "higher",
                time="wall" if figure.unit == "s" or rate else None,
            )


def _throughput(measurements: Sequence[Measurement]) -> Series:
    return Series(
        values=tuple(m.throughput for m in measurements),
        together=lambda chosen: (
            sum(measurements[n].requests for n in chosen) / sum(measurements[n].duration_s for n in chosen)
        ),
    )


def _cpu_per_request(measurements: Sequence[Measurement]) -> Series:
    cpu = [m.server_cpu_s or 0.0 for m in measurements]
    return Series(
        values=tuple(spent / m.requests for spent, m in zip(cpu, measurements, strict=True)),
        together=lambda chosen: sum(cpu[n] for n in chosen) / sum(measurements[n].requests for n in chosen),
    )


def _memory(measurements: Sequence[Measurement]) -> Series:
    return _median([float(max(s.private_bytes for s in m.samples)) for m in measurements])


def _figure(name: str) -> Callable[[Sequence[Measurement]], Series]:
    return lambda measurements: _median([m.figures[name].value for m in measurements])


def _mean(measurements: Sequence[Measurement]) -> Series:
    counts = [sum(m.latency.counts) for m in measurements]
    sums = [m.latency.sum_ns / 1e9 for m in measurements]
    return Series(
        values=tuple(total / count for total, count in zip(sums, counts, strict=True)),
        together=lambda chosen: sum(sums[n] for n in chosen) / sum(counts[n] for n in chosen),
    )


def _percentile(percent: float) -> Callable[[Sequence[Measurement]], Series]:
    def series(measurements: Sequence[Measurement]) -> Series:
        # As cumulative counts: a percentile of several is then found by bisection over the slots, without merging them.
        slots = [m.latency.slots for m in measurements]
        below = [(0, *accumulate(m.latency.counts)) for m in measurements]

        def together(chosen: tuple[int, ...]) -> float:
            wanted = max(1, math.ceil(sum(below[n][-1] for n in chosen) * percent / 100 - 1e-9))
            low, high = 0, max(slots[n][-1] for n in chosen)
            while low < high:
                middle = (low + high) // 2
                if sum(below[n][bisect_right(slots[n], middle)] for n in chosen) >= wanted:
                    high = middle
                else:
                    low = middle + 1
            # A latency of nothing has no logarithm.
            return max(highest_of(low), 1) / 1e9

        return Series(values=tuple(together((n,)) for n in range(len(measurements))), together=together)

    return series


def _median(values: Sequence[float]) -> Series:
    return Series(values=tuple(values), together=lambda chosen: statistics.median(values[n] for n in chosen))
