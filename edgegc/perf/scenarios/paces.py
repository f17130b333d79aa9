"""The two ways in which requests are put to a server: closed, how much it can do, and open, how long it lets one wait.

Knows no request: scenarios say which. Each way is a case of its own, and says in its name which it is. A closed one takes
turns with the references that stand beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgegc.perf import company
from edgegc.perf.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground
    from edgegc.perf.meter import Meter
    from edgegc.perf.plan import Ask, Load

CLOSED_S: Final = 5.0
"""Long enough for a few collections of garbage and commits, which come in seconds; the quick suite takes a second."""
OPEN_S: Final = 10.0
"""At 1,000 a second 10,000 samples, from which p99.9 can be told."""
WARMUP_S: Final = 1.0
"""Connections, caches and the first use of each token."""
QUICK_WARMUP_S: Final = 0.3
SHARE: Final = 0.6
"""Of what it can do: the most that an open load asks for. Nearer to 1 one measures the queue, not the server."""
LADDER: Final = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
"""Open rates are one of these times a power of ten: two runs that differ by their noise measure at the same rate."""
CONNECT_S: Final = 0.5
SMALLEST_PER_S: Final = 0.1


def throughput(load: Load) -> float:
    """Return how many requests were answered in a second."""
    answered = sum(ask.requests for ask in load.asks)
    return answered / load.duration_s if load.duration_s else 0.0


def bearable(bench: Bench, case: str, wanted_per_s: float, can_per_s: float) -> float:
    """Return the rate of an open load: what is wanted, or what the server bears easily where that is less.

    A run decides it once for a case, in the first repetition that knows ``can_per_s``, and keeps it: how long one waits at
    several rates is several things, which must not be merged.
    """
    rates, name = bench.laboratory.rates, bench.name_of(case)
    if name not in rates and can_per_s > 0:
        rates[name] = step_below(wanted_per_s, SHARE * can_per_s)
    return rates.get(name, SMALLEST_PER_S)


def step_below(wanted_per_s: float, limit_per_s: float) -> float:
    """Return what is wanted, or where that is too much the highest step of the ladder that is not."""
    if limit_per_s >= wanted_per_s:
        return wanted_per_s
    power, best = SMALLEST_PER_S, SMALLEST_PER_S
    while power <= limit_per_s:
        best = max(round(step * power, 2) for step in LADDER if step * power <= limit_per_s)
        power *= 10
    return best


async def closed(
    bench: Bench,
    ground: Ground,
    case: str,
    asks: Sequence[Ask],
    *,
    connections: int,
    seconds: float = CLOSED_S,
    also: Callable[[Meter, Load], None] | None = None,
    **parameters: str | int | float | bool,
) -> float:
    """Measure how many requests a second it answers to ``connections`` that each ask again when answered; return that.

    Asks whose requests are used up by it are not warmed up. ``also`` may add figures.
    """
    used_up = any(ask.once for ask in asks)
    plan = Plan(
        target=ground.target,
        asks=tuple(asks),
        connections=connections,
        duration_s=seconds if used_up else bench.seconds(seconds),
        warmup_s=0.0 if used_up else bench.seconds(WARMUP_S, QUICK_WARMUP_S),
        seed=bench.random.getrandbits(32),
        connect_within_s=CONNECT_S,
    )
    return await _measured(bench, ground, case, plan, also, parameters)


async def opened(
    bench: Bench,
    ground: Ground,
    case: str,
    asks: Sequence[Ask],
    *,
    connections: int,
    per_s: float,
    seconds: float = OPEN_S,
    also: Callable[[Meter, Load], None] | None = None,
    **parameters: str | int | float | bool,
) -> float:
    """Measure how long requests take that come ``per_s`` times a second by chance; return how many were answered in one."""
    used_up = any(ask.once for ask in asks)
    plan = Plan(
        target=ground.target,
        asks=tuple(asks),
        connections=connections,
        duration_s=bench.seconds(seconds),
        warmup_s=0.0 if used_up else bench.seconds(WARMUP_S, QUICK_WARMUP_S),
        rate_per_s=per_s,
        seed=bench.random.getrandbits(32),
        connect_within_s=CONNECT_S,
    )
    return await _measured(bench, ground, case, plan, also, {**parameters, "rate_per_s": per_s})


async def _measured(
    bench: Bench,
    ground: Ground,
    case: str,
    plan: Plan,
    also: Callable[[Meter, Load], None] | None,
    parameters: dict[str, str | int | float | bool],
) -> float:
    async with (
        company.gathered(bench, case) as beside,
        bench.measure(
            case,
            model="closed" if plan.rate_per_s is None else "open",
            of=ground.watched,
            parameters={"connections": plan.connections, **parameters},
        ) as meter,
    ):
        load = await beside.load(plan, meter)
        meter.take(load)
        if also is not None:
            also(meter, load)
        if why := ground.limited(meter.errors):
            meter.invalid(why)
    return throughput(load)
