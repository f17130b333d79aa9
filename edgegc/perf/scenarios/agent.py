"""``agent.*``: what the agent of a node needs, nebula apart, and how soon it sees a change. Real agents, real nebula.

Box and machines are in network namespaces. Seen from outside: ``/proc``, the machine's wire, and the file in which an agent
remembers which versions it has fetched and proven, looked at every five milliseconds.
"""

from __future__ import annotations

from statistics import mean, median
from typing import TYPE_CHECKING, Final

import trio

from edgegc.model import message
from edgegc.perf import machines, process
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios.overlay import LIGHTHOUSE_PORT, joined, make_cluster
from edgegc.perf.scenarios.upkeep import let_be
from edgegc.perf.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.perf.bench import Bench
    from edgegc.perf.machines import Machine
    from edgegc.perf.meter import Meter
    from edgegc.perf.process import Usage
    from edgegc.perf.scenario import Need
    from edgegc.perf.scenarios.overlay import Joined

MIB: Final = 1024 * 1024
NS_PER_S: Final = 1_000_000_000
S_PER_H: Final = 3600.0
SETTLE_S: Final = 16.0
"""An agent gives back what its start has used after 15 s."""
HELD_S: Final = 60.0
"""A question that is held for 50 s, and some; processor time is counted in ticks of 10 ms, 0.02 % of this."""
POLLED_S: Final = 30.0
"""Half a dozen questions."""
MACHINES: Final = 3
CHANGES: Final = 6
QUICK_CHANGES: Final = 2
SPREAD_S: Final = 5.0
"""Between two changes a random part of a polling interval passes: they must not fall into step with it."""
CLUSTERS: Final = 5
QUICK_CLUSTERS: Final = 3
LOOKS: Final = 5
LOOK_EVERY_S: Final = 1.0
NEEDS: Final[frozenset[Need]] = frozenset({"root", "nebula", "namespaces"})
RULE_PORTS: Final = range(20_000, 30_000)
WAYS: Final = {"held": False, "every_5s": True}
"""The cases: whether there is something in the way that makes agents poll."""


async def poll_idle(bench: Bench) -> None:
    """Measure what an agent needs while nothing changes: its questions held, and asking every five seconds."""
    for case, cut in WAYS.items():
        async with joined(bench, count=1, through_middlebox=cut) as there:
            (machine,) = there.machines
            await trio.sleep(bench.seconds(SETTLE_S, 2.0))
            await _until_polled(there)
            async with bench.measure(case, model="none", of=machine.agent) as meter:
                await _listen(meter, machine, seconds=bench.seconds(POLLED_S if cut else HELD_S, 5.0))


async def update_latency(bench: Bench) -> None:
    """Measure how soon nodes have a change: with their questions held, and asking every five seconds."""
    for case, cut in WAYS.items():
        async with joined(bench, count=bench.count(MACHINES, 1), through_middlebox=cut) as there:
            await _until_polled(there)
            parameters = {"machines": len(there.machines)}
            async with bench.measure(case, model="none", of=there.lit.served, parameters=parameters) as meter:
                await _change_often(bench, meter, there)


async def many_clusters(bench: Bench) -> None:
    """Measure what an agent needs for its first cluster, and for each more."""
    async with joined(bench, count=1) as there:
        (machine,) = there.machines
        wanted = [there.lit.cluster_id]
        await trio.sleep(bench.seconds(SETTLE_S, 2.0))
        alone = await _look_often(bench, machine)
        await machine.stop()
        count = bench.count(CLUSTERS, QUICK_CLUSTERS)
        server = there.lit.served.server
        for number in range(1, count):
            port = LIGHTHOUSE_PORT + number
            cluster = await make_cluster(
                there.lit.served, number, port=port, address=there.network.box.address, lighthouse=True
            )
            await machine.join(await machines.how_to_join(server, cluster.id))
            wanted.append(cluster.id)
        # Started with all of them, as after a boot: what joining one by one leaves in memory is another matter.
        await machine.start()
        for cluster_id in wanted:
            await machine.until_applied(cluster_id)
        await trio.sleep(bench.seconds(SETTLE_S, 2.0))
        async with bench.measure(model="none", of=machine.agent, parameters={"clusters": count}) as meter:
            together = await _look_often(bench, machine)
            for name, of in (("rss", _rss), ("private", _private)):
                meter.figure(f"first_{name}", of(alone), "bytes", note="the agent alone, with one cluster")
                meter.figure(f"each_more_{name}", (of(together) - of(alone)) / (count - 1), "bytes")
            meter.figure(
                "per_cluster_rss", _rss(together) / count, "bytes", note=f"of all with {count} clusters"
            )


async def _until_polled(there: Joined) -> None:
    """Wait until every agent polls, where something is in the way of holding."""
    if there.middlebox is None:
        return
    async with trio.open_nursery() as nursery:
        for machine in there.machines:
            nursery.start_soon(there.middlebox.until_polled, machine.host.address)


async def _listen(meter: Meter, machine: Machine, *, seconds: float) -> None:
    tap = Tap()
    before = machine.nebulas()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(tap.listen, machine.host)
        await let_be(meter, machine.agent.pid, seconds=seconds)
        nursery.cancel_scope.cancel()
    hours = (trio.current_time() - began) / S_PER_H
    after = machine.nebulas()
    meter.figure("agent_bytes_per_h", tap.tcp_bytes / hours, "bytes", note="TCP both ways, headers included")
    meter.figure("nebula_bytes_per_h", tap.udp_bytes / hours, "bytes", note="UDP both ways, headers included")
    meter.figure("nebula_rss", after.rss_bytes, "bytes", note="not the agent's")
    meter.figure(
        "nebula_cpu_percent",
        100 * (after.cpu_s - before.cpu_s) / (hours * S_PER_H),
        "percent",
        note="not the agent's",
    )


async def _change_often(bench: Bench, meter: Meter, there: Joined) -> None:
    applied: list[float] = []
    for port in bench.random.sample(RULE_PORTS, bench.count(CHANGES, QUICK_CHANGES)):
        await trio.sleep(bench.random.random() * SPREAD_S)
        for seen_s, applied_s in await _change(there, port):
            meter.record(round(seen_s * NS_PER_S))
            applied.append(applied_s)
    meter.figure("applied", median(applied), "s", note="until nebula has proven it; median")
    meter.figure("applied_at_most", max(applied), "s")


async def _change(there: Joined, port: int) -> list[tuple[float, float]]:
    """Change the policy, and return of each machine after how many seconds it had the change, and had proven it."""
    admin = there.lit.served.server.admin
    cluster_id = there.lit.cluster_id
    anything = message.PolicyRule(port="any", proto="any", host="any")
    rule = message.PolicyRule(port=port, proto="tcp", host="any")
    before = {machine.host.name: machine.versions(cluster_id).highest for machine in there.machines}
    found: list[tuple[float, float]] = []

    async def follow(machine: Machine, began: float) -> None:
        had = before[machine.host.name]
        await machine.until(cluster_id, lambda seen: seen.highest > had)
        seen_s = trio.current_time() - began
        await machine.until_applied(cluster_id)
        found.append((seen_s, trio.current_time() - began))

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        for machine in there.machines:
            nursery.start_soon(follow, machine, began)
        await admin.set_policy(
            message.Policy(inbound=(anything, rule), outbound=(anything,)), cluster_id=cluster_id
        )
    return found


async def _look_often(bench: Bench, machine: Machine) -> list[Usage]:
    looks = []
    for _ in range(bench.count(LOOKS, 2)):
        looks.append(process.usage([machine.agent.pid]))
        await trio.sleep(LOOK_EVERY_S)
    return looks


def _rss(looks: Sequence[Usage]) -> float:
    return mean(each.rss_bytes for each in looks)


def _private(looks: Sequence[Usage]) -> float:
    return mean(each.private_bytes for each in looks)


NEEDS_OWN: Final = "it has a box of its own, in a namespace"

SCENARIOS: Final = (
    Scenario(
        name="agent.poll_idle",
        proves=(
            "what the agent's process needs while nothing changes, its nebula apart, and what goes over its machine's wire: "
            "with its questions held (long polls), and asking every 5 s, as it does by itself where something in between "
            "cuts what is silent"
        ),
        run=poll_idle,
        cases=tuple(WAYS),
        quick_s=0,
        full_s=135,
        ram_bytes=350 * MIB,
        needs_own=NEEDS_OWN,
        needs=NEEDS,
    ),
    Scenario(
        name="agent.update_latency",
        proves=(
            "a change of the policy until a node has it: from sending it until the agent has fetched and verified it and "
            "written that down; by long poll, and asking every 5 s, at moments that have nothing to do with the polls"
        ),
        run=update_latency,
        cases=tuple(WAYS),
        quick_s=0,
        full_s=60,
        ram_bytes=500 * MIB,
        needs_own=NEEDS_OWN,
        needs=NEEDS,
    ),
    Scenario(
        name="agent.many_clusters",
        proves="what the agent's process needs for its first cluster and for each more, its nebulas apart",
        run=many_clusters,
        quick_s=0,
        full_s=60,
        ram_bytes=600 * MIB,
        needs_own=NEEDS_OWN,
        needs=NEEDS,
    ),
)
