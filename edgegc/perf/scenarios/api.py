"""``api.*``: each endpoint by itself, over loopback, on a server with 1,000 nodes.

Knows no server's inside. Of most there are two cases: ``closed`` says how much it can do, ``open`` how long one waits at
the rate that the product promises, or at what this machine bears easily where that is less.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.model import message
from edgegc.perf import requests
from edgegc.perf.plan import Ask
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios import furnish
from edgegc.perf.scenarios.paces import OPEN_S, bearable, closed, opened, throughput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground
    from edgegc.perf.meter import Meter
    from edgegc.perf.plan import Load
    from edgegc.perf.seed import Seeded, SeededNode

NODES: Final = 1000
QUICK_NODES: Final = 200
POLLERS: Final = 64
"""Connections of version checks: what the targets and the usual tools of comparison are stated for."""
ADMINS: Final = 16
"""Connections of everything else: administrators and their scripts are few."""
VERSION_PER_S: Final = 1000.0
OPERATIONS_PER_S: Final = 500.0
DOWNLOADS_PER_S: Final = 100.0
"""The floors: what the product promises on the smallest device."""
ENROLMENTS_PER_S: Final = 100.0
BATCHES_PER_S: Final = 5.0
DELETING_S: Final = 6.0
"""Of open load: all that is deleted has to be made before."""
LONGEST_S: Final = 40.0
"""For a fixed amount of work: after this it ends unfinished, on a device that is too slow."""

MIB: Final = 1024 * 1024
BUNDLES: Final = {"100KiB": 100 * 1024, "1MiB": MIB, "5MiB": 5 * MIB, "10MiB": 10 * MIB}
QUICK_BUNDLES: Final = ("100KiB", "1MiB")
DOWNLOADERS: Final = 16
DOWNLOADING_NODES: Final = 64
OPEN_BYTES_PER_S: Final = 100 * MIB
"""No download case asks for more: larger bundles come at a lower rate."""


async def version(bench: Bench) -> None:
    """Measure version checks: of nodes never seen before, of nodes seen just now, and the first ones after a start."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        checks = tuple(requests.version(node.token) for node in ground.seeded.nodes)
        each_once = [Ask(name="version", requests=checks, once=True)]
        await closed(bench, ground, "first-contact", each_once, connections=POLLERS, seconds=LONGEST_S)
        asks = [Ask(name="version", requests=checks)]
        can = await closed(bench, ground, "hot-closed", asks, connections=POLLERS)
        per_s = bearable(bench, "hot-open", VERSION_PER_S, can)
        await opened(bench, ground, "hot-open", asks, connections=POLLERS, per_s=per_s)
        await ground.restart()
        await closed(bench, ground, "cold", each_once, connections=POLLERS, seconds=LONGEST_S)


async def version_304(bench: Bench) -> None:
    """Measure version checks of nodes that name, in ``If-None-Match``, the version they have."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        known = await furnish.versions(ground.admin, ground.seeded.cluster_id)
        asks = [
            Ask(
                name="version_304",
                requests=tuple(
                    requests.version(node.token, known=known[node.id]) for node in ground.seeded.nodes
                ),
                expected=(304,),
            )
        ]
        can = await closed(bench, ground, "closed", asks, connections=POLLERS)
        per_s = bearable(bench, "open", VERSION_PER_S, can)
        await opened(bench, ground, "open", asks, connections=POLLERS, per_s=per_s)


async def bundle_download(bench: Bench) -> None:
    """Measure downloads of an uploaded cluster's bundle, in each size."""
    async with bench.ground(nodes=DOWNLOADING_NODES) as ground:
        uploaded = await furnish.uploaded_cluster(bench, ground, nodes=DOWNLOADING_NODES)
        wanted = BUNDLES if bench.suite == "full" else QUICK_BUNDLES
        for name in wanted:
            size = await furnish.upload(bench, ground, uploaded, BUNDLES[name])
            asks = [Ask(name="bundle", requests=tuple(requests.bundle(token) for token in uploaded.tokens))]
            also = partial(_bytes_per_s, size)
            can = await closed(
                bench, ground, f"{name}-closed", asks, connections=DOWNLOADERS, also=also, size_bytes=size
            )
            per_s = bearable(bench, f"{name}-open", min(DOWNLOADS_PER_S, OPEN_BYTES_PER_S / size), can)
            await opened(
                bench,
                ground,
                f"{name}-open",
                asks,
                connections=DOWNLOADERS,
                per_s=per_s,
                also=also,
                size_bytes=size,
            )


async def node_create(bench: Bench) -> None:
    """Measure the creation of nodes one by one: without a key, and with one, whose certificate is signed at once."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        count = bench.count(2000, 300)
        asks = _creating(bench, ground.seeded, "new", count, keys=False)
        can = await closed(bench, ground, "closed", asks, connections=ADMINS, seconds=LONGEST_S)
        asks = _creating(bench, ground.seeded, "keyed", count, keys=True)
        await closed(bench, ground, "keyed-closed", asks, connections=ADMINS, seconds=LONGEST_S)
        per_s = bearable(bench, "open", OPERATIONS_PER_S, can)
        count = round(per_s * bench.seconds(OPEN_S, 1.5))
        asks = _creating(bench, ground.seeded, "open", count, keys=False)
        await opened(bench, ground, "open", asks, connections=ADMINS, per_s=per_s)


async def node_batch(bench: Bench) -> None:
    """Measure the creation of nodes in batches of 100, and of as many as one may have."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        per_s = BATCHES_PER_S
        for size, batches, connections in (
            (100, bench.count(100, 10), 4),
            (1000, bench.count(10, 2), 1),
        ):
            asks = _creating_batches(bench, ground.seeded, f"batch-{size}", batches, size)
            also = partial(_nodes_per_s, size)
            can = await closed(
                bench,
                ground,
                f"{size}-closed",
                asks,
                connections=connections,
                seconds=LONGEST_S,
                also=also,
                nodes_per_batch=size,
            )
            if size == 100:
                per_s = bearable(bench, "100-open", BATCHES_PER_S, can)
        count = round(per_s * bench.seconds(OPEN_S, 1.5)) + 1
        asks = _creating_batches(bench, ground.seeded, "batch-open", count, 100)
        await opened(bench, ground, "100-open", asks, connections=4, per_s=per_s, nodes_per_batch=100)


async def node_get(bench: Bench) -> None:
    """Measure reading single nodes."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        token = ground.seeded.admin_token
        asks = [
            Ask(
                name="node_get",
                requests=tuple(requests.node_get(token, node.id) for node in ground.seeded.nodes),
            )
        ]
        await _both(bench, ground, asks)


async def node_list(bench: Bench) -> None:
    """Measure pages of the list of nodes: each page of 50 in turn, and the largest that one may ask for."""
    nodes = bench.count(NODES, QUICK_NODES)
    async with bench.ground(nodes=nodes) as ground:
        token, cluster_id = ground.seeded.admin_token, ground.seeded.cluster_id

        def pages(size: int) -> list[Ask]:
            asked = tuple(
                requests.node_list(token, cluster_id, page=page, page_size=size)
                for page in range(1, -(-nodes // size) + 1)
            )
            return [Ask(name="node_list", requests=asked)]

        can = await closed(bench, ground, "50-closed", pages(50), connections=ADMINS, page_size=50)
        per_s = bearable(bench, "50-open", OPERATIONS_PER_S, can)
        await opened(bench, ground, "50-open", pages(50), connections=ADMINS, per_s=per_s, page_size=50)
        await closed(bench, ground, "500-closed", pages(500), connections=ADMINS, page_size=500)


async def node_update(bench: Bench) -> None:
    """Measure changes of single nodes, each of which changes something: a version, a certificate's bundle."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        # A write that changes no value costs nothing and bumps nothing: two rounds, forth and back, for as long as it takes.
        asks = [
            Ask(
                name="node_update",
                requests=tuple(
                    requests.node_update(ground.seeded.admin_token, node.id, message.NodeUpdate(mtu=mtu))
                    for mtu in (1400, 1350)
                    for node in ground.seeded.nodes
                ),
            )
        ]
        await _both(bench, ground, asks)


async def node_delete(bench: Bench) -> None:
    """Measure the deletion of nodes with certificates, which are blocked from then on."""
    closed_count = bench.count(1500, 100)
    open_s = bench.seconds(DELETING_S, 1.0)
    open_count = round(OPERATIONS_PER_S * open_s)
    left = bench.count(NODES, QUICK_NODES)
    async with bench.ground(nodes=left + closed_count + open_count) as ground:
        token = ground.seeded.admin_token
        nodes = ground.seeded.nodes[left:]
        asks = _deleting(token, nodes[:closed_count])
        can = await closed(bench, ground, "closed", asks, connections=ADMINS, seconds=LONGEST_S)
        per_s = bearable(bench, "open", OPERATIONS_PER_S, can)
        asks = _deleting(token, nodes[closed_count:])
        await opened(bench, ground, "open", asks, connections=ADMINS, per_s=per_s, seconds=DELETING_S)


async def topology(bench: Bench) -> None:
    """Measure nodes' questions for the topology of a cluster with lighthouses, relays and routes behind nodes."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        await furnish.topology(ground)
        asks = [
            Ask(
                name="topology",
                requests=tuple(requests.topology(node.token) for node in ground.seeded.nodes),
            )
        ]
        await _both(bench, ground, asks)


async def enroll(bench: Bench) -> None:
    """Measure enrolments with one key: a node, its token and its certificate each."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        made = await ground.admin.create_enrolment_key(
            message.EnrolmentKeyCreate(uses=None), cluster_id=ground.seeded.cluster_id
        )
        key = str(made.key)

        def asks(prefix: str, count: int) -> list[Ask]:
            enrolments = tuple(
                requests.enroll(key, name=f"{prefix}-{i:05}", public_key=requests.public_key(bench.random))
                for i in range(count)
            )
            return [Ask(name="enroll", requests=enrolments, once=True, expected=(201,))]

        count = bench.count(1500, 150)
        can = await closed(
            bench, ground, "closed", asks("closed", count), connections=ADMINS, seconds=LONGEST_S
        )
        per_s = bearable(bench, "open", ENROLMENTS_PER_S, can)
        count = round(per_s * bench.seconds(OPEN_S, 1.5))
        await opened(bench, ground, "open", asks("open", count), connections=ADMINS, per_s=per_s)


async def auth_reject(bench: Bench) -> None:
    """Measure the refusal of tokens that are none: a wrong secret, a node that nobody knows, a text of no form."""
    async with bench.ground(nodes=bench.count(NODES, QUICK_NODES)) as ground:
        chance = bench.random
        nodes = ground.seeded.nodes
        kinds = {
            "wrong_secret": [requests.wrong_secret(node.token, chance) for node in nodes],
            "unknown_node": [requests.unknown_token(chance) for _ in nodes],
            "malformed": [f"egn_{chance.getrandbits(64):x}" for _ in nodes],
        }
        asks = [
            Ask(name=name, requests=tuple(map(requests.version, tokens)), expected=(401,))
            for name, tokens in kinds.items()
        ]
        can = await closed(bench, ground, "closed", asks, connections=POLLERS)
        per_s = bearable(bench, "open", VERSION_PER_S, can)
        await opened(bench, ground, "open", asks, connections=POLLERS, per_s=per_s)


async def _both(bench: Bench, ground: Ground, asks: Sequence[Ask]) -> None:
    """Measure what administrators do to nodes, closed and open."""
    can = await closed(bench, ground, "closed", asks, connections=ADMINS)
    per_s = bearable(bench, "open", OPERATIONS_PER_S, can)
    await opened(bench, ground, "open", asks, connections=ADMINS, per_s=per_s)


def _creating(bench: Bench, seeded: Seeded, prefix: str, count: int, *, keys: bool) -> list[Ask]:
    nodes = requests.new_nodes(bench.random, count, prefix=prefix, keys=keys)
    asked = tuple(requests.node_create(seeded.admin_token, seeded.cluster_id, node) for node in nodes)
    return [Ask(name="node_create", requests=asked, once=True, expected=(201,))]


def _creating_batches(bench: Bench, seeded: Seeded, prefix: str, batches: int, size: int) -> list[Ask]:
    nodes = requests.new_nodes(bench.random, batches * size, prefix=prefix, keys=False)
    asked = tuple(
        requests.node_batch(seeded.admin_token, seeded.cluster_id, nodes[begin : begin + size])
        for begin in range(0, len(nodes), size)
    )
    return [Ask(name="node_batch", requests=asked, once=True, expected=(201,))]


def _deleting(token: str, nodes: Sequence[SeededNode]) -> list[Ask]:
    asked = tuple(requests.node_delete(token, node.id) for node in nodes)
    return [Ask(name="node_delete", requests=asked, once=True, expected=(204,))]


def _bytes_per_s(size: int, meter: Meter, load: Load) -> None:
    meter.figure("bytes_per_s", throughput(load) * size, "bytes_per_s", better="higher")


def _nodes_per_s(size: int, meter: Meter, load: Load) -> None:
    meter.figure("nodes_per_s", throughput(load) * size, "per_s", better="higher")


CLOSED_AND_OPEN: Final = ("closed", "open")
SMALL_BYTES: Final = 220 * MIB
"""Of a server with 1,000 nodes and the generator beside it."""

SCENARIOS: Final = (
    Scenario(
        name="api.version",
        proves="how many version checks a second, and how soon: hot, first ever, first after a start",
        run=version,
        cases=("first-contact", "hot-closed", "hot-open", "cold"),
        quick_s=8,
        full_s=43,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.version_304",
        proves="version checks of nodes that know the answer",
        run=version_304,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=30,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.bundle_download",
        proves="bundle downloads of 100 KiB to 10 MiB",
        run=bundle_download,
        cases=tuple(f"{name}-{model}" for name in BUNDLES for model in CLOSED_AND_OPEN),
        quick_s=8,
        full_s=105,
        ram_bytes=300 * MIB,
    ),
    Scenario(
        name="api.node_create",
        proves="durable creation of nodes, one by one",
        run=node_create,
        cases=("closed", "keyed-closed", "open"),
        quick_s=6,
        full_s=37,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.node_batch",
        proves="durable creation of nodes, 100 and 1,000 at a time",
        run=node_batch,
        cases=("100-closed", "1000-closed", "100-open"),
        quick_s=0,
        full_s=32,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.node_get",
        proves="reading single nodes",
        run=node_get,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=30,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.node_list",
        proves="pages of 50 and of 500 out of 1,000 nodes",
        run=node_list,
        cases=("50-closed", "50-open", "500-closed"),
        quick_s=0,
        full_s=43,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.node_update",
        proves="durable changes of single nodes",
        run=node_update,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=30,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.node_delete",
        proves="durable deletion of nodes, and revocation of their certificates",
        run=node_delete,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=31,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.topology",
        proves="the topology, of 1,000 nodes",
        run=topology,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=30,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.enroll",
        proves="enrolments: a token and a certificate each",
        run=enroll,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=32,
        ram_bytes=SMALL_BYTES,
    ),
    Scenario(
        name="api.auth_reject",
        proves="what it costs to refuse tokens that are none",
        run=auth_reject,
        cases=CLOSED_AND_OPEN,
        quick_s=0,
        full_s=30,
        ram_bytes=SMALL_BYTES,
        needs_own="it shows wrong tokens by the thousand, after which a server keeps whoever does that away",
    ),
)
