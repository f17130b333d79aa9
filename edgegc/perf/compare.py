"""Two reports against each other: which quantities of which cases are compared, and what is said of each.

Knows the words of a report; the rule that decides is :mod:`edgegc.perf.decision`, and how it looks is
:mod:`edgegc.perf.report`'s business.

Of each case that both have, with equal parameters and valid repetitions:

- closed load: throughput. Its latencies say the same once more (Little's law), and are left out;
- open load, at the same rate: p50 and p99, where every repetition has the samples for it. No load: p50, or the mean of few operations;
- CPU time of the server per request, by far the steadiest of all where the server was busy;
- private memory at its peak; the figures for which it is said whether more or less is better;
- errors, without any statistics: where every repetition had half as many again as any before, and a hundredth of all requests.

Everything that is time is also compared beside the references of the same repetition (see condition 4 of the rule).
Between different machines only that is compared, and memory.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from edgegc.errors import Conflict
from edgegc.perf import alike
from edgegc.perf.decision import Kind, Pair, Series, judge, usual_spreads
from edgegc.perf.histogram import SUPPORT, highest_of
from edgegc.perf.metrics import valid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgegc.perf.result import Case, Measurement, Report

FACTOR: Final = 1.10
"""What is less than this is not worth an alarm, and hardly to be told from the machine's moods."""
ENOUGH_CPU_S: Final = 0.5
"""CPU time is counted in ticks of 10 ms: of less, one tick is more than 2 %."""
ENOUGH_REQUESTS: Final = 100
MORE_ERRORS: Final = 0.01
ERRORS_FACTOR: Final = 1.5
"""Where errors are part of the case (what is beyond the limits is refused), their share varies, and by more than a hundredth."""
ERROR_RUNS: Final = 3
"""Repetitions on each side before errors alone are a regression: a single one may have had an accident."""

Decision = Literal["regression", "unsure", "ok", "better"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity of one case. Ratios are so turned that more than 1 is worse."""

    case: str
    quantity: str
    """``throughput``, ``p50``, ``p99``, ``mean``, ``CPU per request``, ``memory``, ``errors`` or a figure's name."""
    unit: str
    base: float
    new: float
    base_runs: int
    new_runs: int
    ratio: float | None
    low: float | None
    high: float | None
    """The 95 % interval of the ratio."""
    absolute: float | None
    """The ratio of the two numbers as they stand; what is judged is the one beside the references, where there are any."""
    decision: Decision
    suspicious: bool
    """Unsure, and worse by more than the factor: unsure whether it is so, not only whether it can be excluded."""
    needs: int | None
    """Unsure: about so many more repetitions on each side would decide; None where more of them would not help."""
    why: str


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A case that was not compared, and why."""

    case: str
    why: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a release against another."""

    base: str
    """Its version."""
    new: str
    factor: float
    same_host: bool
    machine: float | None
    """How much slower the references were on the new side; None where none is in both."""
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]

    @property
    def regressions(self) -> tuple[Row, ...]:
        """What got worse."""
        return tuple(row for row in self.rows if row.decision == "regression")


def compare(
    base: Report, new: Report, *, factor: float = FACTOR, cross_host: bool = False, seed: int = 0
) -> Comparison:
    """Compare two reports; several runs of a release are merged before (:mod:`edgegc.perf.merging`).

    Raises Conflict where they are of different machines, or one of them of an emulated device, without ``cross_host``.
    The same reports always give the same answer: the bootstrap's draws are seeded.
    """
    same_host = base.host.fingerprint == new.host.fingerprint and base.device == new.device
    if not same_host and not cross_host:
        what = "on different machines" if base.device == new.device else "under different devices"
        raise Conflict(
            f"the reports were made {what}, whose absolute figures don't compare; "
            "--cross-host compares what travels: ratios to the references, and memory"
        )
    machine = _Machine.of(base, new)
    compared: list[_Compared] = []
    rows: list[Row] = []
    skipped: list[Skipped] = []
    before = {case.name: case for case in base.cases}
    for case in new.cases:
        old = before.pop(case.name, None)
        why = _not_comparable(old, case)
        if old is not None and old.status == "ok" and case.status == "failed":
            rows.append(_broken(case))
        elif old is None or why:
            skipped.append(Skipped(case=case.name, why=why))
        else:
            rows.extend(_errors(old, case))
            rows.extend(_zeros(old, case))
            costs_base, costs_new = machine.beside(case)
            compared.extend(_quantities(old, case, costs_base, costs_new, only_beside=not same_host))
    skipped.extend(
        Skipped(case=name, why="is not in the new report" + (", which is partial" if new.partial else ""))
        for name in before
    )
    pairs = [each.pair for each in compared]
    usual = usual_spreads(pairs)
    for each in compared:
        found = judge(each.pair, factor=factor, among=len(pairs), usual=usual, seed=seed)
        shown = found.beside or found.absolute
        rows.append(
            Row(
                case=each.case,
                quantity=each.quantity,
                unit=each.unit,
                base=each.pair.base.all_together,
                new=each.pair.new.all_together,
                base_runs=len(each.pair.base.values),
                new_runs=len(each.pair.new.values),
                ratio=shown.ratio,
                low=shown.low,
                high=shown.high,
                absolute=found.absolute.ratio,
                decision=found.decision,
                suspicious=found.suspicious,
                needs=found.needs,
                why=found.why,
            )
        )
    order = {case.name: number for number, case in enumerate(new.cases)}
    rows.sort(key=lambda row: order[row.case])
    return Comparison(
        base=base.versions.get("edgegc", "?"),
        new=new.versions.get("edgegc", "?"),
        factor=factor,
        same_host=same_host,
        machine=machine.slower,
        rows=tuple(rows),
        skipped=tuple(skipped),
    )


class _Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the references took in one repetition: the machine's slowness, as the geometric mean of all of them."""

    wall: float
    """Seconds per request."""
    cpu: float
    """CPU seconds per request."""


_Costs = dict[int, _Cost]
_Measure = Literal["wall", "cpu"]


class _Compared(msgspec.Struct, frozen=True, kw_only=True):
    case: str
    quantity: str
    unit: str
    pair: Pair


def _not_comparable(old: Case | None, new: Case) -> str:
    """Return why two cases can't be compared, or nothing."""
    if old is None:
        return "is not in the base report"
    for which, case in (("base", old), ("new", new)):
        if case.status != "ok" or not valid(case):
            distinct = list(dict.fromkeys(case.reasons or (w for m in case.measurements for w in m.invalid)))
            reasons = (
                distinct[0] + (f"; and {len(distinct) - 1} more" if distinct[1:] else "") if distinct else ""
            )
            return f"is {case.status if case.status != 'ok' else 'invalid'} in the {which} report" + (
                f": {reasons}" if reasons else ""
            )
    names = alike.differing(old, new)
    if names:
        remedy = "; measure it again with --rates FILE, the other report" if alike.RATE in names else ""
        return f"was measured with other parameters: {alike.told(old, new, names)}{remedy}"
    if valid(old)[0].model != valid(new)[0].model:
        return "was measured with another model of load"
    return ""


def _broken(case: Case) -> Row:
    why = "; ".join(case.reasons) or "it failed"
    return _row_without_ratio(case.name, "result", "", (), (), "regression", why)


def _row_without_ratio(
    case: str,
    quantity: str,
    unit: str,
    base: Sequence[float],
    new: Sequence[float],
    decision: Decision,
    why: str,
) -> Row:
    return Row(
        case=case,
        quantity=quantity,
        unit=unit,
        base=statistics.median(base) if base else 0.0,
        new=statistics.median(new) if new else 0.0,
        base_runs=len(base),
        new_runs=len(new),
        ratio=None,
        low=None,
        high=None,
        absolute=None,
        decision=decision,
        suspicious=decision == "unsure",
        needs=None,
        why=why,
    )


def _errors(old: Case, new: Case) -> Iterator[Row]:
    """Compare how many requests went wrong; nothing is said of a case that has no errors."""

    def shares(case: Case) -> list[float]:
        found = []
        for each in valid(case):
            wrong = sum(each.errors.values())
            # Whether a request that was answered wrongly counts as answered is the scenario's business.
            found.append(min(1.0, wrong / max(each.requests, wrong, 1)))
        return found

    before, now = shares(old), shares(new)
    if not any(before) and not any(now):
        return
    decision: Decision = "ok"
    why = ""
    if min(now) > max(before) * ERRORS_FACTOR + MORE_ERRORS:
        kinds = sorted({kind for each in valid(new) for kind in each.errors})
        decision = "regression" if min(len(before), len(now)) >= ERROR_RUNS else "unsure"
        why = f"more errors in every repetition: {', '.join(kinds)}"
    yield _row_without_ratio(
        new.name, "errors", "percent", [s * 100 for s in before], [s * 100 for s in now], decision, why
    )


def _zeros(old: Case, new: Case) -> Iterator[Row]:
    """Compare figures that were 0 somewhere, pings lost for instance: they have no ratio."""
    for name, figure in valid(new)[0].figures.items():
        sides = [[m.figures[name].value for m in valid(c) if name in m.figures] for c in (old, new)]
        before, now = sides
        if (
            not before
            or not now
            or figure.better == "neither"
            or min(before + now) != 0
            or not any(before + now)
        ):
            continue
        decision: Decision = "ok"
        why = ""
        worse = min(now) > max(before) if figure.better == "lower" else max(now) < min(before)
        if worse:
            decision = "regression" if min(len(before), len(now)) >= ERROR_RUNS else "unsure"
            why = "worse in every repetition than in any before"
        yield _row_without_ratio(new.name, name, figure.unit, before, now, decision, why)


class _Machine:
    """How slow the machine was in each repetition, as the references tell that both reports have."""

    def __init__(self, pairs: Sequence[tuple[Case, Case]]) -> None:
        self.pairs = pairs

    @classmethod
    def of(cls, base: Report, new: Report) -> _Machine:
        before = {case.name: case for case in base.references}
        pairs = [(before[case.name], case) for case in new.references if case.name in before]
        return cls(
            [
                (old, case)
                for old, case in pairs
                if not alike.differing(old, case) and _reference_costs(old) and _reference_costs(case)
            ]
        )

    def beside(self, case: Case) -> tuple[_Costs, _Costs]:
        """Return what the references took that were measured right after a case; where there is none, all of them."""
        own = [pair for pair in self.pairs if pair[1].parameters.get("beside") == case.name]
        chosen = own or self.pairs
        base = _geometric([_reference_costs(old) for old, _ in chosen])
        new = _geometric([_reference_costs(now) for _, now in chosen])
        return (base, new) if base and new else ({}, {})

    @property
    def slower(self) -> float | None:
        """How many times as long the references took on the new side."""
        if not self.pairs:
            return None
        return math.exp(statistics.fmean(_mean_log(now) - _mean_log(old) for old, now in self.pairs))


def _mean_log(reference: Case) -> float:
    return statistics.fmean(math.log(cost.wall) for cost in _reference_costs(reference).values())


def _reference_costs(case: Case) -> _Costs:
    return {
        m.repetition: _Cost(
            wall=m.duration_s / m.requests,
            # Without it the wall clock is the next best witness.
            cpu=m.server_cpu_s / m.requests
            if m.server_cpu_s is not None and m.server_cpu_s >= ENOUGH_CPU_S
            else m.duration_s / m.requests,
        )
        for m in valid(case)
        if m.requests >= ENOUGH_REQUESTS and m.model == "closed" and m.duration_s > 0
    }


def _geometric(costs: Sequence[_Costs]) -> _Costs:
    """Return the geometric mean of references, of the repetitions that all of them have."""
    if not costs:
        return {}
    common = set.intersection(*(set(each) for each in costs))
    return {
        repetition: _Cost(
            wall=statistics.geometric_mean(each[repetition].wall for each in costs),
            cpu=statistics.geometric_mean(each[repetition].cpu for each in costs),
        )
        for repetition in sorted(common)
    }


def _quantities(
    old: Case, new: Case, costs_base: _Costs, costs_new: _Costs, *, only_beside: bool
) -> Iterator[_Compared]:
    sides = (valid(old), valid(new))
    model = sides[1][0].model

    def compared(
        quantity: str,
        unit: str,
        kind: Kind,
        series: Callable[[Sequence[Measurement]], Series],
        *,
        higher_is_better: bool = False,
        time: _Measure | None = "wall",
    ) -> Iterator[_Compared]:
        base, now = (series(side) for side in sides)
        if min(base.values) <= 0 or min(now.values) <= 0:
            return
        base_beside = new_beside = None
        if time is not None and costs_base and costs_new:
            base_beside = _beside(base, sides[0], costs_base, time, multiply=higher_is_better)
            new_beside = _beside(now, sides[1], costs_new, time, multiply=higher_is_better)
        if only_beside and base_beside is None and time is not None:
            return
        yield _Compared(
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


_TAIL: Final = re.compile(r"p9\d|longest|slowest|max")
"""Figures that are told by few samples of many, and vary as those do."""
_PERCENTS: Final[tuple[tuple[str, Kind, float], ...]] = (("p50", "p50", 50.0), ("p99", "p99", 99.0))


def _beside(
    series: Series, measurements: Sequence[Measurement], costs: _Costs, time: _Measure, *, multiply: bool
) -> Series:
    """Return a series divided by what the references took in the same repetitions (a rate: multiplied by it).

    A repetition without a valid reference stands beside the mean of the others.
    """
    usual = statistics.geometric_mean(getattr(cost, time) for cost in costs.values())
    scales = []
    for each in measurements:
        cost = costs.get(each.repetition)
        took = usual if cost is None else getattr(cost, time)
        scales.append(took if multiply else 1 / took)
    logs = [math.log(scale) for scale in scales]
    return Series(
        values=tuple(value * scale for value, scale in zip(series.values, scales, strict=True)),
        together=lambda chosen: (
            series.together(chosen) * math.exp(statistics.fmean(logs[number] for number in chosen))
        ),
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
