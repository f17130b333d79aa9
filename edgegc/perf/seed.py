"""The fleet that a measured server knows: a tenant, a cluster, nodes with their tokens, made as any operator makes them.

The same seed gives the same names and keys; ids and tokens are the server's own.
"""

from __future__ import annotations

import base64
import random
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.perf.server import Server

BATCH: Final = 500
"""Nodes in a request: half of what it may hold; with keys, some 110 KB."""
TENANT: Final = "perf"
CLUSTER: Final = "fleet"
NETWORK: Final = "10.42.0.0/16"
WIDE_NETWORK: Final = "10.0.0.0/8"
ROOM: Final = 60_000
"""Nodes that the usual network has room for, with some to be made later."""
KEY_BYTES: Final = 32
BATCH_S: Final = 120.0
"""A batch of nodes with keys takes as many signatures: half a second here, some seconds on an emulated device."""


class SeededNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node, with the token that shows who asks. ``overlay_ip`` without its prefix length."""

    id: str
    name: str
    token: str
    overlay_ip: str


class Seeded(msgspec.Struct, frozen=True, kw_only=True):
    """All that was made. ``admin_token`` may do everything in the cluster."""

    tenant_id: str
    cluster_id: str
    admin_token: str
    nodes: tuple[SeededNode, ...]


async def seed(server: Server, *, nodes: int, keys: bool = True, seed: int) -> Seeded:
    """Make a tenant and a cluster with so many nodes on a server, over its admin socket.

    ``keys``: with a public key each, hence with a certificate and a bundle. Raises errors.Error as the server says it.
    """
    tenant = await server.admin.create_tenant(message.TenantCreate(name=TENANT))
    return await populate(server.admin, tenant.id, nodes=nodes, keys=keys, seed=seed)


async def populate(admin: Client, tenant_id: str, *, nodes: int, keys: bool, seed: int) -> Seeded:
    """Make the same in a tenant that there is; ``admin`` asks as an operator."""
    network = NETWORK if nodes <= ROOM else WIDE_NETWORK
    cluster = await admin.create_cluster(
        message.ClusterCreate(tenant_id=tenant_id, name=CLUSTER, network_cidr=network)
    )
    scope = message.ApiTokenCreate(scopes=(f"cluster:{cluster.id}:admin",), label=TENANT)
    token = (await admin.create_api_token(scope)).token
    if not isinstance(token, str):
        raise TypeError("the server made a token and did not show it")
    made = await add_nodes(admin, cluster.id, range(nodes), keys=keys, seed=seed)
    return Seeded(tenant_id=tenant_id, cluster_id=cluster.id, admin_token=token, nodes=made)


async def add_nodes(
    admin: Client, cluster_id: str, numbers: range, *, keys: bool, seed: int
) -> tuple[SeededNode, ...]:
    """Make the nodes with these numbers, in batches. Raises errors.Error as the server says it."""
    made: list[SeededNode] = []
    for begin in range(numbers.start, numbers.stop, BATCH):
        part = range(begin, min(begin + BATCH, numbers.stop))
        batch = message.NodeBatch(nodes=tuple(node(number, keys=keys, seed=seed) for number in part))
        answer = await admin.call(
            message.NodesCreated,
            "POST",
            "/api/v1/nodes/batch",
            body=batch,
            query={"cluster_id": cluster_id},
            timeout_s=BATCH_S,
        )
        made.extend(_seeded(view) for view in answer.nodes)
    return tuple(made)


def node(number: int, *, keys: bool, seed: int) -> message.NodeCreate:
    """Return what makes node ``number``."""
    return message.NodeCreate(
        name=f"node-{number:05}", public_key=public_key(number, seed=seed) if keys else None
    )


def public_key(number: int, *, seed: int) -> str:
    """Return a node's public key, PEM. Nobody has the private one: any 32 bytes are a point of the curve or its twist."""
    key = random.Random(f"{seed} {number}").randbytes(KEY_BYTES)
    text = base64.b64encode(key).decode("ascii")
    return f"-----BEGIN NEBULA X25519 PUBLIC KEY-----\n{text}\n-----END NEBULA X25519 PUBLIC KEY-----\n"


def _seeded(view: message.NodeView) -> SeededNode:
    if not isinstance(view.node_token, str) or view.overlay_ip is None:
        raise TypeError("the server made a node and did not show its token and address")
    return SeededNode(
        id=view.id, name=view.name, token=view.node_token, overlay_ip=view.overlay_ip.partition("/")[0]
    )
