"""A closed case in company: the references that stand beside it are asked in turns with it.

Knows no scenario. Whatever the machine does meanwhile, it does to all of them: see :mod:`edgegc.perf.generator.turns`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Unavailable
from edgegc.perf import beside, references
from edgegc.perf.bench import Bench, Companion
from edgegc.perf.plan import Ask
from edgegc.perf.result import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.perf.beside import Beside
    from edgegc.perf.meter import Meter
    from edgegc.perf.plan import Load, Plan
    from edgegc.perf.references import Running

TURN_S: Final = 0.25
"""Shorter than a machine's moods; longer than the last answers of a turn, which take some 50 ms."""
DEVICE_TURN_S: Final = 2.0
"""With a quarter of a processor the last answers take hundreds of milliseconds."""
WARMUP_S: Final = 0.3
"""Of a reference at least: where a case uses up its requests, it has no warmup itself."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    standard: Beside
    bench: Bench
    """A reference's own: it is measured like a case."""
    running: Running


@asynccontextmanager
async def gathered(bench: Bench, case: str) -> AsyncIterator[Company]:
    """Start what stands beside a case of a scenario, each where a server would run; leaving ends it.

    None does where a profiler looks, which would be told of what nobody asked for; nor beside a server elsewhere, for it
    would tell of this machine. What does not start is missing, and told in :attr:`Bench.companions`.
    """
    alone = bench.laboratory.around is not None or bench.laboratory.elsewhere is not None
    wanted = () if alone else beside.of(bench.name_of(case), quick=bench.suite == "quick")
    async with AsyncExitStack() as stack:
        members = []
        for standard in wanted:
            own = Bench(
                bench.laboratory,
                scenario=standard.reference,
                cases=(standard.case,),
                repetition=bench.repetition,
            )
            missing = ""
            try:
                running = await stack.enter_async_context(
                    own.reference(standard.reference, body_bytes=standard.body_bytes)
                )
                members.append(_Member(standard=standard, bench=own, running=running))
            except Unavailable as error:
                missing = error.message
            bench.companions.append(Companion(standard=standard, found=own.found, missing=missing))
        yield Company(bench, members)


class Company:
    """The references beside a case; perhaps none."""

    def __init__(self, bench: Bench, members: list[_Member]) -> None:
        self._bench = bench
        self._members = members

    async def load(self, plan: Plan, meter: Meter) -> Load:
        """Put a case's plan to its server, in turns with what stands beside it, and return what became of it.

        ``meter`` is the case's, and gets the paces. Raises and is cancelled like :meth:`Bench.load`.
        """
        if not self._members:
            return await self._bench.load(plan)
        async with AsyncExitStack() as stack:
            plans = [_told(plan, meter)]
            meters = []
            for each in self._members:
                own = await stack.enter_async_context(
                    each.bench.measure(
                        each.standard.case,
                        model="closed",
                        of=each.running,
                        parameters={"connections": plan.connections, "beside": each.standard.beside},
                    )
                )
                asked = msgspec.structs.replace(
                    plan,
                    target=each.running.target,
                    asks=(Ask(name=each.standard.reference, requests=(references.REQUEST,)),),
                    warmup_s=max(plan.warmup_s, WARMUP_S),
                )
                plans.append(_told(asked, own))
                meters.append(own)
            turn_s = TURN_S if self._bench.device is None else DEVICE_TURN_S
            load, *others = await self._bench.in_turns(plans, turn_s=turn_s)
            for own, other in zip(meters, others, strict=True):
                own.take(other)
        meter.paces = tuple(filter(None, map(_pace, self._members)))
        return load


def _told(plan: Plan, meter: Meter) -> Plan:
    """Return a plan that has the generator tell the processor time of what is watched."""
    return msgspec.structs.replace(plan, pids=tuple(meter.watched.pids()) if meter.watched else ())


def _pace(member: _Member) -> Pace | None:
    """Return what a reference came to; None where that can't be trusted."""
    measured = member.bench.found[member.standard.case].measurements[-1]
    if measured.invalid or not measured.requests:
        return None
    return Pace(
        reference=member.standard.reference,
        requests=measured.requests,
        duration_s=measured.duration_s,
        server_cpu_s=measured.server_cpu_s,
    )
