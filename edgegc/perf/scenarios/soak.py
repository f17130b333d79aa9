"""All endpoints in a mix, and the same for long: whether the server's memory grows, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.model import message
from edgegc.perf import requests
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenarios import furnish, memory
from edgegc.perf.slope import slope

if TYPE_CHECKING:
    from random import Random

    from edgegc.perf.bench import Bench
    from edgegc.perf.seed import Seeded

NODES: Final = 1000
PARTS: Final = 8
"""Each with connections of its own: what leaks per connection shows as well as what leaks per request."""
PART_S: Final = 15.0
HOUR_PARTS: Final = 60
HOUR_PART_S: Final = 60.0
CONNECTIONS: Final = 100
PER_S: Final = 150.0
"""A small board carries this for hours."""
LONGEST_FILL_S: Final = 60.0
"""In which 1,000 bundles are rendered also on a small board."""
FILLS: Final = 8
"""Rounds of changes, two for each node, that leave more pages than the writer keeps."""
READ_EVERY_S: Final = 1.0
SKIPPED: Final = 0.4
"""Of the readings: at first caches fill and the allocator finds its size."""
S_PER_HOUR: Final = 3600
PAGE_SIZE: Final = 50
MTUS: Final = (1400, 1350)


def mixture(seeded: Seeded) -> tuple[Ask, ...]:
    """Return what nodes and administrators ask, by weight: 95 % are reads, of which most are version checks."""
    nodes, admin, cluster_id = seeded.nodes, seeded.admin_token, seeded.cluster_id
    pages = range(1, -(-len(nodes) // PAGE_SIZE) + 1)
    return (
        Ask(name="version", weight=70, requests=tuple(requests.version(node.token) for node in nodes)),
        Ask(name="bundle", weight=5, requests=tuple(requests.bundle(node.token) for node in nodes)),
        Ask(name="topology", weight=5, requests=tuple(requests.topology(node.token) for node in nodes)),
        Ask(name="node_get", weight=10, requests=tuple(requests.node_get(admin, node.id) for node in nodes)),
        Ask(
            name="node_list",
            weight=5,
            requests=tuple(
                requests.node_list(admin, cluster_id, page=page, page_size=PAGE_SIZE) for page in pages
            ),
        ),
        Ask(
            name="node_update",
            weight=4,
            requests=tuple(
                requests.node_update(admin, node.id, message.NodeUpdate(mtu=mtu))
                for mtu in MTUS
                for node in nodes
            ),
        ),
        Ask(
            name="report",
            weight=1,
            requests=tuple(requests.report(node.token, applied=1) for node in nodes),
            expected=(204,),
        ),
    )


async def soak(bench: Bench) -> None:
    """Measure the server's memory for two minutes."""
    await steady(bench, parts=PARTS, part_s=bench.seconds(PART_S, 1.0))


async def soak_hour(bench: Bench) -> None:
    """Measure the server's memory for an hour."""
    parts = bench.count(HOUR_PARTS, PARTS)
    await steady(bench, parts=parts, part_s=bench.seconds(HOUR_PART_S, 1.0))


async def steady(bench: Bench, *, parts: int, part_s: float) -> None:
    """Measure the server's memory under a steady mix of requests, ``parts`` times with new connections."""
    async with bench.ground(nodes=bench.count(NODES, NODES // 5)) as ground:
        server = ground.process()
        await furnish.topology(ground)
        asks = mixture(ground.seeded)
        # What is kept of an answer or per node would else look like growth until each has been asked for, and the database's
        # pages until the writer's cache is full of what was audited.
        for ask in (*asks, *[ask for ask in asks if ask.name == "node_update"] * FILLS):
            await bench.load(
                Plan(
                    target=ground.target,
                    asks=(msgspec.structs.replace(ask, once=True),),
                    connections=CONNECTIONS,
                    duration_s=LONGEST_FILL_S,
                )
            )
        async with bench.measure(
            "",
            model="open",
            of=server,
            parameters={"connections": CONNECTIONS, "rate_per_s": PER_S, "parts": parts},
        ) as meter:
            async with memory.watched(server, every_s=READ_EVERY_S) as readings:
                for _ in range(parts):
                    plan = Plan(
                        target=ground.target,
                        # A generator begins with the first: else each part asks the same nodes, and only one changes them.
                        asks=tuple(_shuffled(ask, bench.random) for ask in asks),
                        connections=CONNECTIONS,
                        duration_s=part_s,
                        rate_per_s=PER_S,
                        seed=bench.random.getrandbits(32),
                    )
                    meter.take(await bench.load(plan))
                    meter.mark("new connections")
            kept = readings[int(len(readings) * SKIPPED) :]
            found = slope(kept)
            if found is None:
                return
            meter.figure(
                "growth_per_hour",
                found.per_s * S_PER_HOUR,
                "bytes",
                note=f"private memory over {kept[-1][0] - kept[0][0]:.0f} s; the interval holds it in 95 of 100 runs",
            )
            meter.figure("growth_per_hour_low", found.low_per_s * S_PER_HOUR, "bytes")
            meter.figure("growth_per_hour_high", found.high_per_s * S_PER_HOUR, "bytes")


def _shuffled(ask: Ask, order: Random) -> Ask:
    return msgspec.structs.replace(ask, requests=tuple(order.sample(ask.requests, len(ask.requests))))
