"""How slow the machine was in each repetition, as the references tell that both of two reports have.

Those that took turns with a case tell it for that case; where none did, those that took turns with other cases of its scenario,
seconds before; else all. Knows no quantity but those that it holds against it.
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
    from collections.abc import Mapping, Sequence

    from edgegc.perf.result import Case, Measurement, Pace, Report

ENOUGH_CPU_S: Final = 0.5
"""CPU time is counted in ticks of 10 ms: of less, one tick is more than 2 %."""
ENOUGH_REQUESTS: Final = 100
"""With fewer a rate is told by its first and last request."""
LIKE_OURS: Final = "plain_quart"
"""Among those that took turns with a case this one tells most: another Python server slows down as ours does, a raw echo, most
of which is the kernel, by less. Six repetitions of ``api.version[hot-closed]`` on a virtual machine had throughputs with a
spread of 12.8 %, 4.6 % beside the raw echo, 2.9 % beside plain Quart."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the references took in one repetition: the machine's slowness, as the geometric mean of all of them."""

    wall: float
    """Seconds per request."""
    cpu: float
    """CPU seconds per request."""


Costs = dict[int, Cost]
Witness = Literal["wall", "cpu"]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What references took in the repetitions of both sides. ``in_turns``: with the very case that is compared."""

    base: Costs = {}
    new: Costs = {}
    in_turns: bool = False


class Machine:
    """How slow the machine was in each repetition, as the references tell that both reports have."""

    def __init__(self, pairs: Sequence[tuple[Case, Case]], paced: Mapping[str, Standing]) -> None:
        self.pairs = pairs
        self.paced = paced
        """What took turns with a case, by its name."""

    @classmethod
    def of(cls, base: Report, new: Report) -> Machine:
        """Return what the references tell that were measured in the same way in both reports."""
        before = {case.name: case for case in base.references}
        pairs = [(before[case.name], case) for case in new.references if case.name in before]
        cases = {case.name: case for case in base.cases}
        paced = {case.name: _paced(cases[case.name], case) for case in new.cases if case.name in cases}
        return cls(
            [
                (old, case)
                for old, case in pairs
                if not alike.differing(old, case) and _reference_costs(old) and _reference_costs(case)
            ],
            {name: found for name, found in paced.items() if found is not None},
        )

    def beside(self, case: Case) -> Standing:
        """Return what the references took that tell most of a case."""
        if case.name in self.paced:
            return self.paced[case.name]
        own = [pair for pair in self.pairs if pair[1].parameters.get("beside") == case.name]
        near = [found for name, found in self.paced.items() if name.partition("[")[0] == case.scenario]
        then = [
            Standing(base=_reference_costs(old), new=_reference_costs(now)) for old, now in own or self.pairs
        ]
        for witnesses in (near, then):
            base = _geometric([each.base for each in witnesses])
            new = _geometric([each.new for each in witnesses])
            if base and new:
                return Standing(base=base, new=new)
        return Standing()

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


def _paced(old: Case, new: Case) -> Standing | None:
    """Return what those references took that took turns with a case on both sides; None without any."""
    sides = [
        {
            m.repetition: {p.reference: p for p in m.paces if p.requests >= ENOUGH_REQUESTS}
            for m in valid(case)
        }
        for case in (old, new)
    ]
    if not all(any(side.values()) for side in sides):
        return None
    told = [paces for side in sides for paces in side.values() if paces]
    names = set.intersection(*map(set, told))
    names &= {LIKE_OURS} if LIKE_OURS in names else names
    counted = all((paces[name].server_cpu_s or 0.0) >= ENOUGH_CPU_S for paces in told for name in names)
    base, now = (
        _geometric(
            [
                {number: _pace_cost(paces[name], counted) for number, paces in side.items() if paces}
                for name in names
            ]
        )
        for side in sides
    )
    return Standing(base=base, new=now, in_turns=True) if names else None


def _pace_cost(pace: Pace, counted: bool) -> Cost:
    wall = pace.duration_s / pace.requests
    return Cost(wall=wall, cpu=(pace.server_cpu_s or 0.0) / pace.requests if counted else wall)


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
