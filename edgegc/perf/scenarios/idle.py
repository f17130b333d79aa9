"""What a server costs that has nothing to do: nobody connected, nodes that poll, nodes whose questions are held."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.perf import process, requests
from edgegc.perf.histogram import Counts
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenarios import caged, furnish
from edgegc.perf.store_plan import Growth, Prepare

if TYPE_CHECKING:
    from edgegc.perf.bench import Bench, Served
    from edgegc.perf.meter import Meter
    from edgegc.perf.plan import Load

NODES: Final = 1000
QUICK_NODES: Final = 100
HOUR_S: Final = 3600
WINDOW_S: Final = 40.0
QUICK_WINDOW_S: Final = 5.0
"""For how long an idle server is watched; what it does seldomer than this is not seen, and the figures say so."""
LOOK_EVERY_S: Final = 2.0
"""Each look holds the server up for some milliseconds: the kernel adds its pages up."""
POLL_S: Final = 5.0
"""How often a node asks that can't be held."""
HOLD_S: Final = 50.0
"""For how long a node lets its question be held."""
FLUSHES_PER_HOUR: Final = 4
"""How often a server writes down when it has heard of its nodes; too seldom to be seen in the window."""
CONNECT_S: Final = 20.0
QUICK_CONNECT_S: Final = 0.5
"""Over which 1,000 connections are opened with TLS: a small board takes 10 ms of its core for each handshake."""


async def idle_cost(bench: Bench) -> None:
    """Measure what a server with 1,000 nodes uses while nothing changes: none connected, all polling, all held."""
    flushed = await _flush_bytes(bench)
    nodes = bench.count(NODES, QUICK_NODES)
    window_s = bench.seconds(WINDOW_S, QUICK_WINDOW_S)
    async with bench.server(nodes=nodes) as served:
        seeded = process.usage(served.server.pids()).private_bytes
        # A box was started once and is idle then; it is seldom that it has just made all its nodes.
        await served.server.restart()
        await bench.settle(served.server.pid)
        async with bench.measure("registered", model="none", of=served, parameters={"nodes": nodes}) as meter:
            before, used = _Written.look(served), process.usage(served.server.pids())
            await trio.sleep(window_s)
            spent_s = process.usage(served.server.pids()).cpu_s - used.cpu_s
            _figure_cpu(meter, spent_s, trio.current_time() - before.at_s)
            before.tell(meter, served, flushed=0.0)
            meter.figure(
                "private_after_seeding",
                seeded,
                "bytes",
                note="before the restart: just after all nodes were made",
            )
        versions = await furnish.versions(served.server.admin, served.seeded.cluster_id)
        await _everybody_once(bench, served)
        checks = tuple(
            requests.version(node.token, current=versions[node.id]) for node in served.seeded.nodes
        )
        plan = Plan(
            target=served.server.target,
            asks=(Ask(name="version", requests=checks, order="connection"),),
            connections=nodes,
            duration_s=window_s,
            rate_per_s=nodes / POLL_S,
            seed=bench.random.getrandbits(32),
            # Soon enough that nobody who has connected waits for longer than a server lets him.
            connect_within_s=bench.seconds(POLL_S, QUICK_CONNECT_S),
            warmup_s=bench.seconds(POLL_S, QUICK_CONNECT_S),
        )
        parameters = {"nodes": nodes, "interval_s": POLL_S}
        async with bench.measure("polling", model="open", of=served, parameters=parameters) as meter:
            await _under_load(bench, served, meter, plan, flushed)
    async with bench.server(nodes=nodes, tls=True) as served:
        await _everybody_once(bench, served)
        await served.server.restart()
        await bench.settle(served.server.pid)
        versions = await furnish.versions(served.server.admin, served.seeded.cluster_id)
        # For as long as they are held: in which each asks once more, however they are spread.
        held_s = bench.seconds(HOLD_S, QUICK_WINDOW_S)
        held = tuple(
            requests.version(node.token, current=versions[node.id], wait_s=held_s)
            for node in served.seeded.nodes
        )
        plan = Plan(
            target=served.server.target,
            asks=(Ask(name="version", requests=held, order="connection"),),
            connections=nodes,
            duration_s=held_s,
            # Each asks when it has connected, and all questions are held before the measured time.
            eager=True,
            warmup_s=bench.seconds(CONNECT_S + POLL_S, 2 * QUICK_CONNECT_S),
            timeout_s=held_s + HOLD_S,
            seed=bench.random.getrandbits(32),
            connect_within_s=bench.seconds(CONNECT_S, QUICK_CONNECT_S),
        )
        parameters = {"nodes": nodes, "held_s": held_s, "tls": True}
        async with bench.measure("longpoll", model="closed", of=served, parameters=parameters) as meter:
            await _under_load(bench, served, meter, plan, flushed, held=True)


async def _everybody_once(bench: Bench, served: Served) -> None:
    await furnish.everybody_once(bench, served.server.target, served.seeded)
    await bench.settle(served.server.pid)


async def _under_load(
    bench: Bench, served: Served, meter: Meter, plan: Plan, flushed: float, *, held: bool = False
) -> None:
    before = _Written.look(served)
    seen: list[tuple[float, process.Usage]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, served, seen)
        load = await bench.load(plan)
        nursery.cancel_scope.cancel()
    meter.take(_without_latency(load) if held else load)
    # Not while all of them connect at once, which no fleet does for long.
    calm = [each for each in seen if load.began_at <= each[0] <= load.began_at + load.duration_s]
    if len(calm) > 1:
        (began, first), (ended, last) = calm[0], calm[-1]
        _figure_cpu(meter, last.cpu_s - first.cpu_s, ended - began)
    private = median(used.private_bytes for _, used in calm or seen)
    meter.figure("private_meanwhile", private, "bytes", note="the median after all had connected")
    before.tell(meter, served, flushed=flushed)


async def _watch(served: Served, into: list[tuple[float, process.Usage]]) -> None:
    while True:
        into.append((time.time(), process.usage(served.server.pids())))
        await trio.sleep(LOOK_EVERY_S)


def _figure_cpu(meter: Meter, used_s: float, watched_s: float) -> None:
    meter.figure("cpu_percent", 100 * used_s / watched_s, "percent", note="of one core")


def _without_latency(load: Load) -> Load:
    """How long a held question was held says nothing: it is what was asked for."""
    asks = tuple(msgspec.structs.replace(ask, latency=Counts()) for ask in load.asks)
    return msgspec.structs.replace(load, asks=asks)


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What a server has written up to a moment: in all, and into its log."""

    at_s: float
    written_bytes: int
    log_bytes: int

    @classmethod
    def look(cls, served: Served) -> _Written:
        return cls(
            at_s=trio.current_time(),
            written_bytes=process.usage(served.server.pids()).written_bytes,
            log_bytes=served.server.log_path.stat().st_size,
        )

    def tell(self, meter: Meter, served: Served, *, flushed: float) -> None:
        """Say what is written in an hour: what was since then, as often as it fits, and what is seldomer."""
        now = _Written.look(served)
        watched_s = now.at_s - self.at_s
        seen = now.written_bytes - self.written_bytes
        per_hour = seen * HOUR_S / watched_s
        note = f"{seen} bytes in {watched_s:.0f} s, and so on for an hour"
        if flushed:
            rarely = FLUSHES_PER_HOUR * flushed
            note += f"; with {FLUSHES_PER_HOUR} flushes of when nodes were heard of, {flushed:.0f} bytes each in the store alone"
            meter.figure("flushed_per_hour", rarely, "bytes", note="of it, when nodes were heard of")
            per_hour += rarely
        logged = (now.log_bytes - self.log_bytes) * HOUR_S / watched_s
        meter.figure(
            "logged_per_hour", logged, "bytes", note="of it, the log: here a file, else the journal's"
        )
        meter.figure("written_per_hour", per_hour, "bytes", note=note)


async def _flush_bytes(bench: Bench) -> float:
    """Return what writing down when all nodes were heard of writes to the disk: it happens too seldom to be waited for."""
    async with caged.store(bench) as store:
        await store.do(Prepare(nodes=bench.count(NODES, QUICK_NODES)))
        done = await store.do(Growth(what="reports", count=4))
    figure = done.figures.get("written_bytes_each")
    return 0.0 if figure is None else figure.value
