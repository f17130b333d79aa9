"""``lighthouse.*``: the box's own lighthouses, on real nebula: from a change to what runs, what one needs, what is lost.

Seen from outside: the API is asked, files and nebula's log are looked at every two milliseconds, and its UDP port is asked
whether a live nebula is there. Knows nothing of how the box does it.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error
from edgegc.model import message
from edgegc.perf import network, pings, seed
from edgegc.perf.lighthouses import READY, RELOADED, Lighthouse
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios.overlay import free_udp_port, joined, lit, make_cluster
from edgegc.perf.scenarios.upkeep import let_be

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from edgegc.perf.bench import Bench
    from edgegc.perf.lighthouses import Moments
    from edgegc.perf.meter import Meter
    from edgegc.perf.pings import Pinging
    from edgegc.perf.scenarios.overlay import Joined, Lit

MIB: Final = 1024 * 1024
NS_PER_S: Final = 1_000_000_000
CHANGES: Final = 10
QUICK_CHANGES: Final = 2
BURST: Final = 100
BURST_CALM_S: Final = 3.0
"""After a burst: nothing of it comes later than the two seconds for which changes are put off."""
REST_S: Final = 0.5
"""Between two changes: the box looks once more after it has written a lighthouse's files, and would notice the next at once."""
CRASHES: Final = 6
QUICK_CRASHES: Final = 2
"""Each of another lighthouse: one that dies young again and again is started ever later, which is another matter."""
IDLE_S: Final = 20.0
"""Processor time is counted in ticks of 10 ms: over this time, one is 0.05 %."""
CALM_S: Final = 2.0
"""After its start, before what it needs when idle is measured."""
PING_EVERY_S: Final = 0.02
"""Of each of two machines. To a lighthouse that is the packets of 1,000 nodes, each of which says every 10 s where it is."""
LATE_SHARE: Final = 0.01
"""Of our own pings: if more are sent later than when the next is due, a series is no schedule any more."""
GAPS: Final = 5
QUICK_GAPS: Final = 1
APART_S: Final = 3.0
"""Between two changes under pings, for what one does to show before the next."""
FIRST_ANSWER_S: Final = 60.0
"""A first tunnel takes a second or two, and half a minute without luck."""


async def start(bench: Bench) -> None:
    """Measure how long a lighthouse that is turned on takes to run."""
    async with lit(bench) as box, bench.measure(model="none", of=box.served) as meter:
        seen = []
        for _ in range(bench.count(CHANGES, QUICK_CHANGES)):
            await box.update(message.ClusterUpdate(provide_lighthouse=False))
            await box.lighthouse.until_gone()
            turn_on = partial(box.update, message.ClusterUpdate(provide_lighthouse=True))
            seen.append(await box.lighthouse.follow(turn_on, line=READY))
        _tell(meter, seen, [each.running_s for each in seen])


async def detect(bench: Bench) -> None:
    """Measure how long a change takes to be noticed: one by the API, and one of a file on the box."""
    async with lit(bench) as box:
        for case, change in (("api", await _deleted_nodes(bench, box)), ("file", _written_override(box))):
            async with bench.measure(case, model="none", of=box.served) as meter:
                seen = await _several(bench, box, change, line=RELOADED)
                noticed = [each.noticed_s for each in seen if each.noticed_s is not None]
                for _ in range(len(seen) - len(noticed)):
                    meter.error("not seen")
                _tell(meter, seen, noticed)


async def apply_hup(bench: Bench) -> None:
    """Measure how long a change takes to run for which nebula need only read its configuration again."""
    async with lit(bench) as box:
        change = await _deleted_nodes(bench, box)
        async with bench.measure(model="none", of=box.served) as meter:
            seen = await _several(bench, box, change, line=RELOADED)
            _tell(meter, seen, [each.running_s for each in seen])


async def restart(bench: Bench) -> None:
    """Measure how long a restart takes: because of a change that needs one, and because somebody asks for it."""
    async with lit(bench) as box:
        for case, change in (("change", _moved_port(box)), ("asked", _asked_restart(box))):
            async with bench.measure(case, model="none", of=box.served) as meter:
                seen = await _several(bench, box, change, line=READY)
                _tell(meter, seen, [each.running_s for each in seen])


async def burst(bench: Bench) -> None:
    """Measure what a hundred changes in a row come to: a hundred nodes deleted, and the port moved a hundred times."""
    async with lit(bench) as box:
        for case, change in (
            ("reload", await _deleted_nodes(bench, box, count=BURST)),
            ("restart", _moved_port(box)),
        ):
            await box.lighthouse.until_calm(BURST_CALM_S)
            parameters = {"changes": BURST}
            async with bench.measure(case, model="none", of=box.served, parameters=parameters) as meter:
                await _burst(box, meter, change)


async def footprint(bench: Bench) -> None:
    """Measure what the process of a lighthouse needs: with nothing to do, and with as much as 1,000 nodes say to it."""
    async with lit(bench) as box:
        pid = await _pid(box)
        await trio.sleep(CALM_S)
        async with bench.measure("idle", model="none", of=[pid]) as meter:
            await let_be(meter, pid, seconds=bench.seconds(IDLE_S, 2.0))
    if bench.suite == "quick":
        return
    missing = network.missing()
    if missing is not None:
        bench.unavailable("active", missing)
        return
    async with joined(bench, count=2) as there:
        status = await there.lit.lighthouse.until_running()
        async with _pinged_lighthouse(there, status.overlay_ip) as series:
            pid = await _pid(there.lit)
            parameters = {"pings_per_s": len(series) / PING_EVERY_S}
            async with bench.measure("active", model="none", of=[pid], parameters=parameters) as meter:
                for each in series:
                    each.forget()
                await let_be(meter, pid, seconds=bench.seconds(IDLE_S, 2.0))
                answered = sum(each.answered for each in series)
                meter.figure("pings_answered", answered, "count", better="higher")


async def gap(bench: Bench) -> None:
    """Measure how many pings between two nodes are lost while their lighthouse reloads, and while it restarts."""
    async with joined(bench, count=2) as there:
        first, second = there.machines
        address = await there.overlay_ip(second)
        for case, change, line in (
            ("reload", await _deleted_nodes(bench, there.lit), RELOADED),
            ("restart", _asked_restart(there.lit), READY),
        ):
            async with bench.measure(case, model="none", of=there.lit.served) as meter:
                async with pings.pinging(first.host, address, every_s=PING_EVERY_S) as series:
                    await series.until_answered(FIRST_ANSWER_S)
                    series.forget()
                    for _ in range(bench.count(GAPS, QUICK_GAPS)):
                        meter.mark(case)
                        await there.lit.lighthouse.follow(change, line=line)
                        await trio.sleep(APART_S)
                        for machine in there.machines:
                            await machine.until_applied(there.lit.cluster_id)
                _tell_pings(meter, series)


async def crash_recovery(bench: Bench) -> None:
    """Measure how long a lighthouse whose process was killed takes to answer again."""
    async with lit(bench) as box:
        there = [box.lighthouse]
        for number in range(1, bench.count(CRASHES, QUICK_CRASHES)):
            port = free_udp_port()
            cluster = await make_cluster(box.served, number, port=port, address="127.0.0.1", lighthouse=True)
            there.append(Lighthouse(box.served.server, cluster.id))
        for each in there:
            await each.until_running()
        async with bench.measure(model="none", of=box.served) as meter:
            shown = []
            for each in there:
                answered_s, shown_s = await each.crash()
                meter.record(round(answered_s * NS_PER_S))
                shown.append(shown_s)
            meter.figure("shown", median(shown), "s", note="until the API says that it runs; median")


# Changes, each as something that makes one more whenever it is called


async def _deleted_nodes(bench: Bench, box: Lit, *, count: int = CHANGES) -> Callable[[], Awaitable[None]]:
    """Delete a node, one of ``count``: its certificate is refused from then on, for which nebula reads its settings again."""
    admin = box.served.server.admin
    nodes = iter(await seed.add_nodes(admin, box.cluster_id, range(count), keys=True, seed=bench.seed))
    await box.lighthouse.until_calm(CALM_S)

    async def change() -> None:
        await admin.delete_node(next(nodes).id)

    return change


def _moved_port(box: Lit) -> Callable[[], Awaitable[None]]:
    """Where it listens: nebula has to restart for that."""
    ports = cycle((free_udp_port(), free_udp_port(), free_udp_port()))

    async def change() -> None:
        await box.update(message.ClusterUpdate(lighthouse_port=next(ports)))

    return change


def _asked_restart(box: Lit) -> Callable[[], Awaitable[None]]:
    """Nothing changes; somebody wants another process."""

    async def change() -> None:
        await box.served.server.admin.restart_lighthouse(box.cluster_id)

    return change


def _written_override(box: Lit) -> Callable[[], Awaitable[None]]:
    """A file of the operator's own, put in place whole, as an editor does."""
    delays = cycle(("2s", "3s"))

    async def change() -> None:
        aside = box.served.server.directory / "override.yml"
        await trio.Path(aside).write_text(f"punchy:\n  delay: {next(delays)}\n")
        # A system call that waits for nothing.
        os.replace(aside, box.lighthouse.overrides / "perf.yml")

    return change


# Measuring


async def _several(
    bench: Bench, box: Lit, change: Callable[[], Awaitable[None]], *, line: str
) -> list[Moments]:
    seen = []
    for _ in range(bench.count(CHANGES, QUICK_CHANGES)):
        await trio.sleep(REST_S)
        seen.append(await box.lighthouse.follow(change, line=line))
    return seen


def _tell(meter: Meter, seen: Sequence[Moments], durations_s: Iterable[float]) -> None:
    """Write down how long each took, and when what of it was seen, each since the change was sent; medians."""
    for duration_s in durations_s:
        meter.record(round(duration_s * NS_PER_S))
    for name in ("answered", "noticed", "rendered", "said", "running"):
        times = [at for each in seen if (at := getattr(each, f"{name}_s")) is not None]
        if times:
            meter.figure(name, median(times), "s", note="since the change was sent; median")


async def _burst(box: Lit, meter: Meter, change: Callable[[], Awaitable[None]]) -> None:
    log_bytes = box.lighthouse.log_bytes()
    began = trio.current_time()
    for _ in range(BURST):
        await change()
    sent = trio.current_time()
    calm_since = await box.lighthouse.until_calm(BURST_CALM_S)
    meter.record(round((calm_since - sent) * NS_PER_S))
    meter.figure("sent", sent - began, "s", note="all changes, one after the other")
    meter.figure("reloads", box.lighthouse.count(RELOADED, since=log_bytes), "count")
    meter.figure("restarts", box.lighthouse.count(READY, since=log_bytes), "count")


async def _pid(box: Lit) -> int:
    status = await box.lighthouse.until_running()
    if status.pid is None:
        raise Error("the lighthouse runs, and the API does not know its process")
    return status.pid


@asynccontextmanager
async def _pinged_lighthouse(there: Joined, address: str) -> AsyncIterator[list[Pinging]]:
    """Have every machine ping the lighthouse's overlay address, which it answers by itself."""
    async with AsyncExitStack() as stack:
        series = [
            await stack.enter_async_context(pings.pinging(machine.host, address, every_s=PING_EVERY_S))
            for machine in there.machines
        ]
        for each in series:
            await each.until_answered(FIRST_ANSWER_S)
        yield series


def _tell_pings(meter: Meter, series: Pinging) -> None:
    for ns in series.round_trips_ns():
        meter.record(ns)
    for _ in range(series.lost):
        meter.error("lost ping")
    meter.figure("sent", series.sent, "count", better="neither")
    meter.figure("lost", series.lost, "count")
    meter.figure("longest_gap", series.longest_gap_s, "s", note=f"pings go out every {PING_EVERY_S:g} s")
    late = sum(ns > PING_EVERY_S * NS_PER_S for ns in series.lag_ns)
    if late > LATE_SHARE * len(series.lag_ns):
        meter.invalid(f"{late} of {len(series.lag_ns)} pings were sent later than when the next was due")


NEEDS_OWN: Final = "it changes a box of its own"

SCENARIOS: Final = (
    Scenario(
        name="lighthouse.start",
        proves=(
            "turning a cluster's lighthouse on: from sending that until the API shows the wanted version running; "
            "before it nebula has said that it is active"
        ),
        run=start,
        quick_s=0,
        full_s=22,
        ram_bytes=200 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"nebula"}),
    ),
    Scenario(
        name="lighthouse.detect",
        proves=(
            "a change until it is noticed: from sending it to the API, or putting an override in place, until the box's first "
            "trace of it on disk, the twin that nebula tests; it waits 200 ms for more changes first"
        ),
        run=detect,
        cases=("api", "file"),
        quick_s=0,
        full_s=22,
        ram_bytes=200 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"nebula"}),
    ),
    Scenario(
        name="lighthouse.apply_hup",
        proves=(
            "a change that nebula takes by SIGHUP: from sending it until the API shows it running, after nebula has logged "
            "the reload and the box has heard it"
        ),
        run=apply_hup,
        quick_s=5,
        full_s=15,
        ram_bytes=200 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"nebula"}),
    ),
    Scenario(
        name="lighthouse.restart",
        proves=(
            "a change of the port, which nebula takes by a restart only, and a restart that somebody asks for: from sending "
            "it until the API shows it running, after nebula has said that it is active"
        ),
        run=restart,
        cases=("change", "asked"),
        quick_s=0,
        full_s=32,
        ram_bytes=200 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"nebula"}),
    ),
    Scenario(
        name="lighthouse.burst",
        proves=(
            "a hundred changes one after the other come to a few reloads or restarts; the latency is from the last "
            "change's answer until it runs"
        ),
        run=burst,
        cases=("reload", "restart"),
        quick_s=0,
        full_s=20,
        ram_bytes=200 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"nebula"}),
    ),
    Scenario(
        name="lighthouse.footprint",
        proves=(
            "what the lighthouse's process needs alone: idle, and with 100 pings a second to its overlay address from two "
            "nodes, as many packets as 1,000 nodes tell it where they are"
        ),
        run=footprint,
        cases=("idle", "active"),
        quick_s=0,
        full_s=55,
        ram_bytes=400 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"nebula"}),
    ),
    Scenario(
        name="lighthouse.gap",
        proves=(
            "pings lost between two nodes, one every 20 ms by our own ICMP prober, while the lighthouse reloads and restarts "
            "ten times each; latency is their round trip"
        ),
        run=gap,
        cases=("reload", "restart"),
        quick_s=0,
        full_s=55,
        ram_bytes=400 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"root", "nebula", "namespaces"}),
    ),
    Scenario(
        name="lighthouse.crash_recovery",
        proves="a lighthouse killed with SIGKILL: from the kill until a live nebula answers on its UDP port again",
        run=crash_recovery,
        quick_s=0,
        full_s=20,
        ram_bytes=350 * MIB,
        needs_own=NEEDS_OWN,
        needs=frozenset({"nebula"}),
    ),
)
