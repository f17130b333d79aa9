"""``load.*``: many clients at once: polls, downloads, a mix, thousands of connections. Also lists those of its neighbours.

Knows no server's inside. What waits for a change, what goes past a limit and what goes on for long are in modules of their
own beside this one.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Unavailable
from edgegc.perf import process, requests
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios import furnish, memory
from edgegc.perf.scenarios.exhaustion import exhaustion
from edgegc.perf.scenarios.paces import bearable, closed, opened, throughput
from edgegc.perf.scenarios.soak import mixture, soak, soak_hour
from edgegc.perf.scenarios.waiting import held_polls, holding, longpoll_fanout, reconnect_herd

if TYPE_CHECKING:
    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground
    from edgegc.perf.meter import Meter
    from edgegc.perf.plan import Load

MIB: Final = 1024 * 1024
NODES: Final = 1000
QUICK_NODES: Final = 200
POLLERS: Final = 100
FEW: Final = 64
"""Connections that many are compared with."""
VERSION_PER_S: Final = 1000.0
DOWNLOADERS: Final = 50
DOWNLOAD_BYTES: Final = 10 * MIB
DOWNLOADING_S: Final = 10.0
MIXED_CONNECTIONS: Final = 64
MIXED_PER_S: Final = 500.0
MANY: Final = 1000
VERY_MANY: Final = 10_000
QUICK_VERY_MANY: Final = 2000
TLS_OPENED_PER_S: Final = 200
"""A handshake costs some milliseconds; on a small board this is already much."""
SPARE_FILES: Final = 256
"""Descriptors that a server needs beside its connections."""
MANY_PER_S: Final = 250.0
"""Of 10,000 connections each asks every 40 s: inside of what one may rest (75 s), and what a quarter of a core bears. They
come at the same rate, so that each asks as soon as it is there: silent ones are closed after 10 s."""
MANY_READ_EVERY_S: Final = 5.0
"""While 10,000 connections are opened, and are held to the end: what they take comes slowly, and goes last. Reading more often
would make the generator late, which has the reader's processor."""
HELD_S: Final = 15.0
HOLD_S: Final = 110.0
"""As long as a poll may be held: none is answered while it is measured."""


async def poll_100(bench: Bench) -> None:
    """Measure 100 nodes, a connection each, that ask for their version."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        asks = [_checks(ground)]
        can = await closed(bench, ground, "closed", asks, connections=POLLERS)
        per_s = bearable(bench, "open", VERSION_PER_S, can)
        await opened(bench, ground, "open", asks, connections=POLLERS, per_s=per_s)


async def download_50(bench: Bench) -> None:
    """Measure 50 nodes that download 10 MiB at the same time, and what memory that costs."""
    async with bench.ground(nodes=DOWNLOADERS) as ground:
        uploaded = await furnish.uploaded_cluster(bench, ground, nodes=DOWNLOADERS)
        size = await furnish.upload(bench, ground, uploaded, DOWNLOAD_BYTES)
        asks = [
            Ask(
                name="bundle",
                requests=tuple(requests.bundle(token) for token in uploaded.tokens),
                order="connection",
            )
        ]
        async with bench.measure(
            "",
            model="closed",
            of=ground.watched,
            parameters={"connections": DOWNLOADERS, "size_bytes": size},
        ) as meter:
            async with memory.watched(ground.watched) as readings:
                load = await bench.load(
                    Plan(
                        target=ground.target,
                        asks=tuple(asks),
                        connections=DOWNLOADERS,
                        duration_s=bench.seconds(DOWNLOADING_S, 2.0),
                        seed=bench.random.getrandbits(32),
                    )
                )
            meter.take(load)
            meter.figure("bytes_per_s", throughput(load) * size, "bytes_per_s", better="higher")
            if readings:
                meter.figure(
                    "extra_bytes",
                    memory.growth(readings),
                    "bytes",
                    note="private memory at the peak, above what it was before the first download",
                )


async def mixed(bench: Bench) -> None:
    """Measure a mix of all that nodes and administrators ask, of which 95 % are reads."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        await furnish.topology(ground)
        asks = mixture(ground.seeded)
        can = await closed(bench, ground, "closed", asks, connections=MIXED_CONNECTIONS)
        per_s = bearable(bench, "open", MIXED_PER_S, can)
        await opened(bench, ground, "open", asks, connections=MIXED_CONNECTIONS, per_s=per_s)


async def connections_1000(bench: Bench) -> None:
    """Measure version checks over 1,000 connections beside those over 64; then hold 1,000 polls over TLS."""
    nodes = bench.count(NODES, QUICK_NODES)
    connections = bench.count(MANY, QUICK_NODES)
    async with bench.ground(nodes=nodes) as ground:
        asks = [_checks(ground)]
        # Else those that are not among the 64 would still be asking for the first time when the 1,000 are measured.
        await furnish.everybody_once(bench, ground.target, ground.seeded)
        few = await closed(bench, ground, "64-closed", asks, connections=FEW)

        def compare(meter: Meter, load: Load) -> None:
            if few:
                ratio = throughput(load) / few
                meter.figure("of_64_connections", ratio, "ratio", better="higher")
            meter.figure("fewest_answers", load.fewest_answers, "count", better="higher")
            meter.figure("most_answers", load.most_answers, "count", better="neither")

        can = await closed(bench, ground, "closed", asks, connections=connections, also=compare)
        per_s = bearable(bench, "open", VERSION_PER_S, can)
        await opened(bench, ground, "open", asks, connections=connections, per_s=per_s)
    if bench.speaks("held-tls", tls=True):
        async with bench.ground(nodes=nodes, tls=True) as ground:
            await _hold(bench, ground, connections)


async def connections_10000(bench: Bench) -> None:
    """Measure version checks, in clear text, over 10,000 connections, and what memory a connection takes."""
    connections = bench.count(VERY_MANY, QUICK_VERY_MANY)
    _check_files(connections)
    async with (
        bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground,
        bench.measure(
            "",
            model="open",
            of=ground.watched,
            parameters={"connections": connections, "rate_per_s": MANY_PER_S},
        ) as meter,
    ):
        async with memory.watched(ground.watched, every_s=MANY_READ_EVERY_S) as readings:
            load = await bench.load(
                Plan(
                    target=ground.target,
                    asks=(_checks(ground),),
                    connections=connections,
                    duration_s=bench.seconds(20.0, 2.0),
                    warmup_s=connections / MANY_PER_S + bench.seconds(2.0, 0.5),
                    rate_per_s=MANY_PER_S,
                    seed=bench.random.getrandbits(32),
                    connect_within_s=connections / MANY_PER_S,
                    eager=True,
                )
            )
        meter.take(load)
        if why := ground.limited(meter.errors):
            meter.invalid(why)
        if readings:
            meter.figure(
                "bytes_per_connection",
                memory.growth(readings) / connections,
                "bytes",
                note="private memory at the peak, above what it was before the first connection",
            )
        meter.figure("connected", load.connected, "count", better="higher")
        meter.figure("reconnects", load.reconnects, "count")


async def _hold(bench: Bench, ground: Ground, connections: int) -> None:
    """Measure what polls cost that are held over TLS while nothing changes."""
    server = ground.process()
    known = await furnish.versions(ground.admin, ground.seeded.cluster_id)
    registered = memory.private_bytes(server)
    plan = Plan(
        target=ground.target,
        asks=(held_polls(ground.seeded, known),),
        connections=connections,
        duration_s=HOLD_S,
        timeout_s=2 * HOLD_S,
        seed=bench.random.getrandbits(32),
        connect_within_s=connections / TLS_OPENED_PER_S,
        eager=True,
    )
    async with (
        holding(bench, plan) as held,
        bench.measure(
            "held-tls", model="none", of=server, parameters={"connections": connections, "tls": True}
        ) as meter,
    ):
        before = process.usage(server.pids())
        began = trio.current_time()
        await trio.sleep(bench.seconds(HELD_S, 2.0))
        after = process.usage(server.pids())
        idle_s = trio.current_time() - began
        meter.figure("registered_private_bytes", registered, "bytes", note="before the first connection")
        meter.figure("held_private_bytes", after.private_bytes, "bytes")
        meter.figure("bytes_per_connection", (after.private_bytes - registered) / connections, "bytes")
        meter.figure("cpu_percent", (after.cpu_s - before.cpu_s) / idle_s * 100, "percent")
        if held.waiting < connections:
            meter.invalid(f"{held.waiting} of {connections} polls were held")


def _checks(ground: Ground) -> Ask:
    """Return version checks of all nodes, each of which stays on its connection."""
    checks = tuple(requests.version(node.token) for node in ground.seeded.nodes)
    return Ask(name="version", requests=checks, order="connection")


def _check_files(connections: int) -> None:
    """Raise Unavailable where a server could not have so many connections."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed not in (resource.RLIM_INFINITY,) and allowed < connections + SPARE_FILES:
        raise Unavailable(
            f"{connections:,} connections need {connections + SPARE_FILES:,} open files, and a process may have"
            f" {allowed:,} here; as root: ulimit -Hn {connections + SPARE_FILES}"
        )


CLOSED_AND_OPEN: Final = ("closed", "open")

SCENARIOS: Final = (
    Scenario(
        name="load.poll_100",
        proves="100 nodes that poll at once",
        run=poll_100,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=24,
        ram_bytes=220 * MIB,
    ),
    Scenario(
        name="load.download_50",
        proves="50 downloads of 10 MiB at once, in flat memory",
        run=download_50,
        quick_s=0,
        full_s=20,
        ram_bytes=320 * MIB,
    ),
    Scenario(
        name="load.mixed",
        proves="all endpoints at once, 95 % reads",
        run=mixed,
        cases=CLOSED_AND_OPEN,
        quick_s=5,
        full_s=24,
        ram_bytes=260 * MIB,
    ),
    Scenario(
        name="load.connections_1000",
        proves="1,000 connections: none starves, all over TLS can wait",
        run=connections_1000,
        cases=("64-closed", "closed", "open", "held-tls"),
        quick_s=0,
        full_s=75,
        ram_bytes=300 * MIB,
    ),
    Scenario(
        name="load.connections_10000",
        proves="10,000 connections, and what each takes",
        run=connections_10000,
        quick_s=0,
        full_s=75,
        ram_bytes=450 * MIB,
    ),
    Scenario(
        name="load.longpoll_fanout",
        proves="one change reaches 1,000 waiting nodes",
        run=longpoll_fanout,
        cases=("clear", "tls"),
        quick_s=8,
        full_s=60,
        ram_bytes=300 * MIB,
    ),
    Scenario(
        name="load.reconnect_herd",
        proves="1,000 nodes come back at once after a restart",
        run=reconnect_herd,
        cases=("clear", "tls"),
        quick_s=0,
        full_s=40,
        ram_bytes=300 * MIB,
        needs_own="it restarts the server",
    ),
    Scenario(
        name="load.exhaustion",
        proves="past a limit clients are told so, and soon served again",
        run=exhaustion,
        cases=("connections", "write-queue", "descriptors"),
        quick_s=0,
        full_s=40,
        ram_bytes=260 * MIB,
        needs_own="it starts servers with limits of its own",
    ),
    Scenario(
        name="load.soak",
        proves="memory does not grow under a steady load",
        run=soak,
        quick_s=0,
        full_s=135,
        ram_bytes=260 * MIB,
    ),
    Scenario(
        name="load.soak_hour",
        proves="memory does not grow in an hour",
        run=soak_hour,
        quick_s=0,
        full_s=3640,
        ram_bytes=260 * MIB,
        asked_for=True,
    ),
)
