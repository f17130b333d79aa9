"""What scenarios make in a seeded server before they measure, as an operator makes it. Measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgegc.model import message
from edgegc.perf import requests
from edgegc.perf.plan import Ask, Plan

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground
    from edgegc.perf.plan import Target
    from edgegc.perf.seed import Seeded

PAGE: Final = 500
"""Nodes in a page: as many as one may ask for."""
UPLOADED_NETWORK: Final = "10.99.0.0/16"
"""Beside the network of the seeded cluster."""
LIGHTHOUSES: Final = 2
RELAYS: Final = 2
ROUTERS: Final = 50
"""Nodes with a subnet behind them."""
FIRST_PORT: Final = 20_000
"""Policies differ in a port from here on."""
HEARD_CONNECTIONS: Final = 64
"""For the first question of each node."""
HEARD_S: Final = 40.0
"""By then a small board has answered a thousand of them, over TLS."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A cluster whose bundles are uploaded, with nodes that download them."""

    cluster_id: str
    tokens: tuple[str, ...]
    authorities: bytes
    """The ``ca.crt`` that goes into its bundles."""


async def versions(admin: Client, cluster_id: str) -> dict[str, int]:
    """Return each node's effective version, by its id."""
    found: dict[str, int] = {}
    cursor: str | None = None
    while True:
        query = message.NodeQuery(page_size=PAGE, cursor=cursor)
        page = await admin.nodes(query, cluster_id=cluster_id)
        found |= {node.id: node.version for node in page.nodes}
        cursor = page.next_cursor
        if cursor is None:
            return found


async def everybody_once(bench: Bench, target: Target, seeded: Seeded) -> None:
    """Let each node ask once: the first use of a token is written down, and nothing that a node does twice."""
    checks = tuple(requests.version(node.token) for node in seeded.nodes)
    await bench.load(
        Plan(
            target=target,
            asks=(Ask(name="version", requests=checks, once=True),),
            connections=HEARD_CONNECTIONS,
            duration_s=HEARD_S,
        )
    )


async def uploaded_cluster(bench: Bench, ground: Ground, *, nodes: int) -> Uploaded:
    """Make a cluster in uploaded mode with so many nodes, beside the seeded one; it has no bundle yet."""
    admin, seeded = ground.admin, ground.seeded
    rendered = await admin.request(
        "GET",
        "/api/v1/config/bundle",
        headers={"Authorization": f"Bearer {seeded.nodes[0].token}", "Accept": "application/gzip"},
    )
    cluster = await admin.create_cluster(
        message.ClusterCreate(
            tenant_id=seeded.tenant_id, name="uploaded", network_cidr=UPLOADED_NETWORK, mode="uploaded"
        )
    )
    made = await admin.create_nodes(
        message.NodeBatch(nodes=requests.new_nodes(bench.random, nodes, prefix="download", keys=False)),
        cluster_id=cluster.id,
    )
    return Uploaded(
        cluster_id=cluster.id,
        tokens=tuple(str(node.node_token) for node in made.nodes),
        authorities=requests.authorities_of(rendered.body),
    )


async def upload(bench: Bench, ground: Ground, uploaded: Uploaded, size: int) -> int:
    """Upload a bundle of about ``size`` bytes, never more; return how many it has."""
    body = requests.uploaded_bundle(uploaded.authorities, size=size, chance=bench.random)
    await ground.admin.upload_bundle(body, cluster_id=uploaded.cluster_id)
    return len(body)


async def topology(ground: Ground) -> None:
    """Give the seeded cluster lighthouses, relays and routes, on its first nodes, as far as it has so many."""
    admin, nodes = ground.admin, ground.seeded.nodes
    relays = nodes[LIGHTHOUSES:][:RELAYS]
    routers = nodes[LIGHTHOUSES + RELAYS :][:ROUTERS]
    for i, node in enumerate(nodes[:LIGHTHOUSES]):
        addresses = message.LighthouseSet(public_addresses=(f"203.0.113.{i + 1}:4242",))
        await admin.set_node_lighthouse(node.id, addresses)
    for node in relays:
        await admin.set_node_relay(node.id)
    for i, node in enumerate(routers):
        await admin.set_node_routes(node.id, message.Routes(routes=(f"192.168.{i}.0/24",)))


async def change_everybody(admin: Client, cluster_id: str, number: int) -> None:
    """Change what every node of a cluster gets; a different ``number`` is a different change."""
    rule = message.PolicyRule(port=FIRST_PORT + number, proto="tcp", cidr="0.0.0.0/0")
    anything = message.PolicyRule(port="any", proto="any", cidr="0.0.0.0/0")
    await admin.set_policy(message.Policy(inbound=(rule,), outbound=(anything,)), cluster_id=cluster_id)
