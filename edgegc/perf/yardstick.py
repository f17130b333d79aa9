"""How slow the machine was in each repetition, as the references tell that both of two reports have.

Knows no quantity but those that it holds against it.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from edgegc.perf import alike
from edgegc.perf.decision import Series
from edgegc.perf.metrics import valid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.perf.result import Case, Measurement, Report

ENOUGH_CPU_S: Final = 0.5
"""CPU time is counted in ticks of 10 ms: of less, one tick is more than 2 %."""
ENOUGH_REQUESTS: Final = 100
"""With fewer a rate is told by its first and last request."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the references took in one repetition: the machine's slowness, as the geometric mean of all of them."""

    wall: float
    """Seconds per request."""
    cpu: float
    """CPU seconds per request."""


Costs = dict[int, Cost]
Witness = Literal["wall", "cpu"]


class Machine:
    """How slow the machine was in each repetition, as the references tell that both reports have."""

    def __init__(self, pairs: Sequence[tuple[Case, Case]]) -> None:
        self.pairs = pairs

    @classmethod
    def of(cls, base: Report, new: Report) -> Machine:
        """Return what the references tell that were measured in the same way in both reports."""
        before = {case.name: case for case in base.references}
        pairs = [(before[case.name], case) for case in new.references if case.name in before]
        return cls(
            [
                (old, case)
                for old, case in pairs
                if not alike.differing(old, case) and _reference_costs(old) and _reference_costs(case)
            ]
        )

    def beside(self, case: Case) -> tuple[Costs, Costs]:
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


def _reference_costs(case: Case) -> Costs:
    return {
        m.repetition: Cost(
            wall=m.duration_s / m.requests,
            # Without it the wall clock is the next best witness.
            cpu=m.server_cpu_s / m.requests
            if m.server_cpu_s is not None and m.server_cpu_s >= ENOUGH_CPU_S
            else m.duration_s / m.requests,
        )
        for m in valid(case)
        if m.requests >= ENOUGH_REQUESTS and m.model == "closed" and m.duration_s > 0
    }


def _geometric(costs: Sequence[Costs]) -> Costs:
    """Return the geometric mean of references, of the repetitions that all of them have."""
    if not costs:
        return {}
    common = set.intersection(*(set(each) for each in costs))
    return {
        repetition: Cost(
            wall=statistics.geometric_mean(each[repetition].wall for each in costs),
            cpu=statistics.geometric_mean(each[repetition].cpu for each in costs),
        )
        for repetition in sorted(common)
    }


def beside(
    series: Series, measurements: Sequence[Measurement], costs: Costs, time: Witness, *, multiply: bool
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
