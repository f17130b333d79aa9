"""Many nodes that wait, and all get their answer at once: a change seen by 1,000 held polls, a herd after a restart."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error
from edgegc.perf import requests
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenarios import furnish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground
    from edgegc.perf.meter import Meter
    from edgegc.perf.plan import Load, Progress
    from edgegc.perf.seed import Seeded

NODES: Final = 1000
QUICK_NODES: Final = 200
HOLD_S: Final = 110.0
"""As long as a poll may be held; a change comes long before."""
ALL_WAIT_S: Final = 60.0
"""After this not everybody is connected and waits, and never will be."""
WOKEN_S: Final = 30.0
"""Who has heard nothing of a change by now was forgotten."""
OPENED_PER_S: Final = 1000
TLS_OPENED_PER_S: Final = 200
SETTLE_S: Final = 0.5
"""Between the last poll that is held and the change: what is measured is the change alone."""
HERD_S: Final = 60.0
"""The most a herd may take to be served, on a small board with TLS."""
NS_PER_S: Final = 1_000_000_000
SHARES: Final = (50, 95, 100)


@dataclass(kw_only=True)
class Held:
    """Requests that wait for their answer. ``load`` is what became of them, once ``over``."""

    waiting: int = 0
    load: Load | None = None
    over: trio.Event = field(default_factory=trio.Event)
    stop: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def holding(bench: Bench, plan: Plan) -> AsyncIterator[Held]:
    """Have all connections of a plan wait for an answer while the context lasts; leaving it ends the plan.

    Raises Error where they don't all wait within a minute.
    """
    held = Held()
    everybody = trio.Event()

    def progress(said: Progress) -> None:
        held.waiting = said.waiting
        if said.waiting >= plan.connections:
            everybody.set()

    async def load() -> None:
        held.load = await bench.load(plan, on_progress=progress, stop=held.stop)
        held.over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load)
        with trio.move_on_after(ALL_WAIT_S):
            await everybody.wait()
        if not everybody.is_set():
            raise Error(f"{held.waiting} of {plan.connections} polls were held after {ALL_WAIT_S:.0f} s")
        yield held
        held.stop.set()


def held_polls(seeded: Seeded, known: Mapping[str, int], *, once: bool = False) -> Ask:
    """Return polls of all nodes that are held until their version is another than the one they know."""
    return Ask(
        name="held",
        requests=tuple(
            requests.version(node.token, current=known[node.id], wait_s=HOLD_S) for node in seeded.nodes
        ),
        order="connection",
        once=once,
        times=once,
    )


async def longpoll_fanout(bench: Bench) -> None:
    """Measure how long after a change the nodes hear of it that wait for one."""
    nodes = bench.count(NODES, QUICK_NODES)
    for case, tls, rounds in (("clear", False, bench.count(10, 3)), ("tls", True, bench.count(5, 2))):
        if not bench.speaks(case, tls=tls):
            continue
        async with (
            bench.ground(nodes=nodes, tls=tls) as ground,
            bench.measure(
                case, model="none", of=ground.watched, parameters={"nodes": nodes, "changes": rounds}
            ) as meter,
        ):
            found = [await _change(bench, ground, meter, number) for number in range(rounds)]
            _shares(meter, found, nodes)


async def _change(bench: Bench, ground: Ground, meter: Meter, number: int) -> list[int]:
    """Make one change while everybody waits; return how long it took to each node, in nanoseconds, sorted."""
    admin, seeded = ground.admin, ground.seeded
    known = await furnish.versions(admin, seeded.cluster_id)
    opened_per_s = TLS_OPENED_PER_S if ground.target.tls else OPENED_PER_S
    plan = Plan(
        target=ground.target,
        asks=(held_polls(seeded, known, once=True),),
        connections=len(seeded.nodes),
        duration_s=ALL_WAIT_S + WOKEN_S,
        timeout_s=2 * HOLD_S,
        seed=bench.random.getrandbits(32),
        connect_within_s=len(seeded.nodes) / opened_per_s,
        eager=True,
    )
    async with holding(bench, plan) as held:
        await trio.sleep(SETTLE_S)
        meter.mark("change")
        changed_ns = monotonic_ns()
        await furnish.change_everybody(admin, seeded.cluster_id, number)
        with trio.move_on_after(WOKEN_S):
            await held.over.wait()
    assert held.load is not None
    took = sorted(at_ns - changed_ns for at_ns in held.load.asks[0].at_ns)
    for ns in took:
        meter.record(ns)
    _count_missing(meter, held.load, len(seeded.nodes))
    return took


async def reconnect_herd(bench: Bench) -> None:
    """Measure how long it takes until all nodes are answered that come back in the same moment, after a restart."""
    nodes = bench.count(NODES, QUICK_NODES)
    for case, tls in (("clear", False), ("tls", True)):
        async with bench.server(nodes=nodes, tls=tls) as served:
            checks = tuple(requests.version(node.token) for node in served.seeded.nodes)
            ask = Ask(name="version", requests=checks, order="connection", once=True, times=True)
            plan = Plan(
                target=served.server.target,
                asks=(ask,),
                connections=nodes,
                duration_s=HERD_S,
                seed=bench.random.getrandbits(32),
                connect_within_s=0,
                eager=True,
            )
            # A node's first request ever is a write; those that come back have been here before.
            await bench.load(plan)
            await served.server.restart()
            await bench.settle(served.server.pid)
            async with bench.measure(
                case, model="none", of=served.server, parameters={"connections": nodes, "tls": tls}
            ) as meter:
                load = await bench.load(plan)
                took = sorted(at_ns - load.began_ns for at_ns in load.asks[0].at_ns)
                for ns in took:
                    meter.record(ns)
                _count_missing(meter, load, nodes)
                _shares(meter, [took], nodes)
                meter.figure("reconnects", load.reconnects, "count")


def _shares(meter: Meter, rounds: Sequence[Sequence[int]], nodes: int) -> None:
    """Write down how long it took until a share of all nodes was reached: the median of the rounds."""
    for share in SHARES:
        needed = -(-nodes * share // 100)
        times = [took[needed - 1] / NS_PER_S for took in rounds if len(took) >= needed]
        if len(times) == len(rounds):
            meter.figure(f"to_{share}_percent", median(times), "s", note="of the nodes; median of the rounds")


def _count_missing(meter: Meter, load: Load, nodes: int) -> None:
    errors = {**load.errors}
    for kind, count in load.asks[0].errors.items():
        errors[kind] = errors.get(kind, 0) + count
    for kind, count in errors.items():
        for _ in range(count):
            meter.error(kind)
    for _ in range(nodes - load.asks[0].requests - sum(load.asks[0].errors.values())):
        meter.error("never answered")
