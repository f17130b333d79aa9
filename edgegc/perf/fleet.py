"""A simulated fleet: nodes that poll as agents do, changes, and the downloads that follow them.

Knows nothing of where the server is. Version checks at an interval come by chance (open model) and are timed from when they
were due. Held ones are answered when something changes: there, what is timed is the change's way to each node.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import median
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.errors import Error
from edgegc.perf import requests
from edgegc.perf.histogram import Histogram
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios import furnish

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground
    from edgegc.perf.meter import Meter
    from edgegc.perf.plan import Load

HOLD_S: Final = 50.0
"""As agents do: below the minute after which home routers forget a silent connection."""
TIMEOUT_S: Final = 30.0
OPENED_PER_S: Final = 300.0
TLS_OPENED_PER_S: Final = 75.0
"""What a quarter of a core still takes: nodes do not come all at once, but for a herd, which is a scenario of its own."""
SETTLE_S: Final = 2.0
"""After the last node has connected, before anything counts."""
DOWNLOADS_PER_S: Final = 100.0
"""What the server asks nodes for, by ``Edgegc-Spread``, when many were woken by one change."""
SPARE_CONNECTIONS: Final = 1024
"""For downloads and administrators, beside a connection of each node."""
DOWNLOADERS: Final = 64
"""Connections of downloads: they are short, and few at a time."""
NS_PER_S: Final = 1_000_000_000
NEVER_NS: Final = 1 << 62
SHARES: Final = (50, 95, 100)
STARTING_S: Final = 5.0
"""Of a server, with its nodes made."""
NODE_BYTES: Final = 64 * 1024
"""What server and generator hold for a node that is connected, TLS included."""
FIRST_CHANGE: Final = 0.2
"""Of the distance between two: the first one comes soon, so that a short run has one."""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes, and what they do. ``interval_s`` None: each has a version check held all the time."""

    nodes: int
    interval_s: float | None
    duration_s: float
    change_every_s: float | None = None
    """How often something changes for all; each node then downloads its bundle. None: nothing does."""

    @property
    def parameters(self) -> dict[str, str | int | float | bool]:
        """Return it as a report has it."""
        return {
            "nodes": self.nodes,
            "polling": "held" if self.interval_s is None else f"every {self.interval_s:g} s",
            "change_every_s": self.change_every_s or 0,
        }

    def coming_s(self, *, tls: bool) -> float:
        """Return how long the nodes take to come: with an interval each within one, in the order in which they ask."""
        return max(self.interval_s or 0.0, opening_s(self.nodes, tls=tls))


def opening_s(nodes: int, *, tls: bool) -> float:
    """Return how long the nodes take to connect."""
    return nodes / (TLS_OPENED_PER_S if tls else OPENED_PER_S)


async def measure(bench: Bench, ground: Ground, fleet: Fleet, *, case: str) -> None:
    """Have the fleet poll for its time, and write down what came of it as a measurement of ``case``.

    Its nodes are the first ones of the ground's. Raises Unavailable where the server can't be reached.
    """
    run = _Run(bench, ground, fleet)
    async with bench.measure(
        case,
        model="none" if fleet.interval_s is None else "open",
        of=ground.watched,
        parameters={**fleet.parameters, "tls": ground.target.tls},
    ) as meter:
        run.meter = meter
        await run.go()


def place(bench: Bench, *, nodes: int, tls: bool) -> AbstractAsyncContextManager[Ground]:
    """Have a server for so many nodes that are connected at once. Raises as :meth:`Bench.ground`.

    The limit of connections of one of our own is a setting, and no property of this box: it is set so that it is not in
    the way. That of requests by one node stays, where a real fleet has it.
    """
    environ = {
        "EDGEGC_LIMITS_CONNECTIONS": str(nodes + SPARE_CONNECTIONS),
        "EDGEGC_LIMITS_HELD_POLLS": str(2 * nodes),
    }
    return bench.ground(nodes=nodes, tls=tls, limits=True, environ=environ)


def scenario(fleet: Fleet, *, tls: bool) -> Scenario:
    """Return a fleet as a scenario; ``tls`` is for a server of our own."""

    async def run(bench: Bench) -> None:
        async with place(bench, nodes=fleet.nodes, tls=tls) as ground:
            await measure(bench, ground, fleet, case="")

    return Scenario(
        name="fleet",
        proves="a simulated fleet",
        run=run,
        quick_s=0,
        full_s=STARTING_S + fleet.coming_s(tls=tls) + SETTLE_S + fleet.duration_s,
        ram_bytes=fleet.nodes * NODE_BYTES,
    )


async def most_polls(bench: Bench, ground: Ground, *, connections: int, seconds: float) -> float:
    """Return how many version checks a second the server answers at most; nothing is written down."""
    checks = tuple(requests.version(node.token) for node in ground.seeded.nodes)
    load = await bench.load(
        Plan(
            target=ground.target,
            asks=(Ask(name="poll", requests=checks),),
            connections=connections,
            duration_s=seconds,
            warmup_s=SETTLE_S,
            connect_within_s=opening_s(connections, tls=ground.target.tls),
        )
    )
    if not load.asks[0].requests:
        raise Error(f"no version check was answered: {load.asks[0].errors or load.errors}")
    return load.asks[0].requests / load.duration_s


class _Run:
    def __init__(self, bench: Bench, ground: Ground, fleet: Fleet) -> None:
        self.bench = bench
        self.ground = ground
        self.fleet = fleet
        self.meter: Meter
        self.changed_ns: list[int] = []
        self.downloads: list[Load] = []
        self.over = trio.Event()

    async def go(self) -> None:
        plan = self._polls()
        async with trio.open_nursery() as nursery:
            changing = trio.CancelScope()
            if self.fleet.change_every_s is not None:
                nursery.start_soon(self._changes, plan.connect_within_s or 0.0, nursery, changing)
            load = await self.bench.load(plan)
            changing.cancel()
            self.over.set()
        if self.fleet.interval_s is None:
            self._held(load)
        else:
            self.meter.take(load)
        self._downloaded()
        self.meter.figure("connected", load.connected, "count", better="higher")
        self.meter.figure("reconnects", load.reconnects, "count")

    def _polls(self) -> Plan:
        fleet = self.fleet
        held = fleet.interval_s is None
        nodes = self.ground.seeded.nodes[: fleet.nodes]
        ask = Ask(
            name="poll",
            requests=tuple(requests.version(node.token, wait_s=HOLD_S if held else None) for node in nodes),
            order="connection",
            conditional=True,
            expected=(200, 304),
            times=held,
        )
        return Plan(
            target=self.ground.target,
            asks=(ask,),
            connections=fleet.nodes,
            duration_s=fleet.duration_s,
            warmup_s=fleet.coming_s(tls=self.ground.target.tls) + SETTLE_S,
            rate_per_s=None if fleet.interval_s is None else fleet.nodes / fleet.interval_s,
            seed=self.bench.random.getrandbits(32),
            timeout_s=TIMEOUT_S + (HOLD_S if held else 0.0),
            connect_within_s=fleet.coming_s(tls=self.ground.target.tls),
            # As agents do, who connect in order to ask: the server soon closes what connects and is silent.
            eager=True,
        )

    async def _changes(
        self, connecting_s: float, downloads: trio.Nursery, changing: trio.CancelScope
    ) -> None:
        """Change something for all, again and again, and have all download what they get then."""
        every_s = self.fleet.change_every_s
        assert every_s is not None
        number = 0
        with changing:
            await trio.sleep(connecting_s + SETTLE_S + FIRST_CHANGE * every_s)
            while True:
                self.meter.mark("change")
                self.changed_ns.append(monotonic_ns())
                await furnish.change_everybody(self.ground.admin, self.ground.seeded.cluster_id, number)
                downloads.start_soon(self._download)
                number += 1
                await trio.sleep(every_s)

    async def _download(self) -> None:
        """Have every node download once, within the time in which they come to do so; what the end cuts off counts."""
        fleet = self.fleet
        wanted_s = fleet.interval_s or fleet.nodes / DOWNLOADS_PER_S
        nodes = self.ground.seeded.nodes[: fleet.nodes]
        ask = Ask(name="bundle", requests=tuple(requests.bundle(node.token) for node in nodes), once=True)
        plan = Plan(
            target=self.ground.target,
            asks=(ask,),
            connections=min(DOWNLOADERS, fleet.nodes),
            duration_s=2 * wanted_s,
            rate_per_s=fleet.nodes / wanted_s,
            seed=self.bench.random.getrandbits(32),
        )
        self.downloads.append(await self.bench.load(plan, stop=self.over))

    def _held(self, load: Load) -> None:
        """Write down how long each change took to each node: of what was answered after it, the first ``nodes``."""
        nodes = self.fleet.nodes
        answer = load.asks[0]
        came = sorted(answer.at_ns)
        rounds = []
        for changed_ns, before_ns in pairwise([*self.changed_ns, NEVER_NS]):
            took = [at_ns - changed_ns for at_ns in came if changed_ns <= at_ns < before_ns][:nodes]
            if len(took) == nodes:
                rounds.append(took)
            for ns in took:
                self.meter.record(ns)
        for share in SHARES:
            needed = -(-nodes * share // 100)
            if rounds:
                reached_s = median(took[needed - 1] / NS_PER_S for took in rounds)
                self.meter.figure(
                    f"to_{share}_percent", reached_s, "s", note="of the nodes, from a change on"
                )
        self.meter.figure("answers_per_s", answer.requests / load.duration_s, "per_s", better="neither")
        for errors in (load.errors, answer.errors):
            self._count(errors)

    def _downloaded(self) -> None:
        """Write down what became of downloads."""
        if not self.downloads:
            return

        latency = Histogram()
        for load in self.downloads:
            latency.merge(load.asks[0].latency)
            self._count(load.errors)
            self._count(load.asks[0].errors)
        self.meter.figure("downloads", latency.count, "count", better="higher")
        for percent in (50, 99):
            ns = latency.percentile_ns(percent)
            if ns is not None:
                self.meter.figure(f"download_p{percent}", ns / NS_PER_S, "s")

    def _count(self, errors: dict[str, int]) -> None:
        for kind in Counter(errors).elements():
            self.meter.error(kind)
