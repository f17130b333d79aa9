"""Topology and routes of a cluster, as its nodes see them; and the rules of what a node may announce.

Knows no version: a change of routes is a change of a node like any other.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Network
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
import trio

from edgegc.control import addresses, node_changes
from edgegc.control.credentials import cluster_of, node_only
from edgegc.errors import Conflict, Forbidden, NotFound
from edgegc.model.message import ClusterRoutes, NodeRoutes, Routes, Topology, TopologyLighthouse
from edgegc.model.node import in_order
from edgegc.store import clusters, columns, nodes, routes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster
    from edgegc.model.credential import Caller
    from edgegc.model.manifest import Server
    from edgegc.model.node import Node

BOX_NAME = "lighthouse"
"""What the box's own lighthouse is called in a topology; its ``node_id`` is None."""

MAX_ROUTES_PER_CLUSTER = 4096
"""Every node's configuration lists them all."""


ETAG_CHARACTERS = 16
"""Of the SHA-256 of a topology's bytes: a rename changes them and no version."""


class TopologyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A topology with its JSON bytes; the same objects while nothing of the cluster changes. ``etag`` names the bytes."""

    topology: Topology
    body: bytes
    etag: str
    revision: int


async def cluster_topology(control: Control, caller: Caller, cluster_id: str | None) -> Topology:
    """Return the cluster's topology: the same object while nothing of the cluster changes."""
    return (await topology_document(control, caller, cluster_id)).topology


async def topology_document(control: Control, caller: Caller, cluster_id: str | None) -> TopologyDocument:
    """Return the cluster's topology with its JSON bytes."""
    found = cluster_of(control, caller, cluster_id, "member")
    return await control.topologies.get(control, found)


async def cluster_routes(control: Control, caller: Caller, cluster_id: str | None) -> ClusterRoutes:
    """Return all routes of the cluster."""
    return ClusterRoutes(routes=(await cluster_topology(control, caller, cluster_id)).routes)


async def own_routes(control: Control, caller: Caller) -> Routes:
    """Return the calling node's routes."""
    node_id = node_only(caller)
    found = await control.database.read(lambda connection: routes.of_node(connection, node_id))
    return Routes(routes=in_order(found))


async def set_own_routes(control: Control, caller: Caller, request: Routes) -> Routes:
    """Set the calling node's routes. Invalid, Forbidden outside of ``allowed_routes`` (members only), Conflict."""
    node_id = node_only(caller)

    def job(write: Write) -> Routes:
        return Routes(
            routes=set_routes(
                write, node_id, request.routes, servers=control.servers, limited=caller.role != "admin"
            ).routes
        )

    return await control.write(caller, job)


def set_routes(
    write: Write, node_id: str, texts: Sequence[str], *, servers: Sequence[Server], limited: bool
) -> Node:
    """Set a node's routes, inside a write; ``limited`` to the cluster's ``allowed_routes`` or not."""
    node = nodes.get(write.connection, node_id)
    cluster = None if node is None else clusters.get(write.connection, node.cluster_id)
    if node is None or cluster is None:
        raise NotFound("no such node")
    overlay = IPv4Network(cluster.network_cidr)
    outside = addresses.server_hosts(servers) | public_hosts(write.connection, cluster)
    wanted = addresses.routes(texts, overlay, outside=outside)
    if limited:
        allowed = [IPv4Network(text) for text in cluster.allowed_routes]
        for route in wanted:
            if not any(route.subnet_of(each) for each in allowed):
                raise Forbidden(
                    f"routes: {route} is not inside the cluster's allowed_routes"
                    f" ({', '.join(cluster.allowed_routes) or 'none: only admins may announce'})"
                )
    for route in wanted:
        owner = routes.owner(write.connection, cluster.id, str(route))
        if owner is not None and owner[0] != node.id:
            raise Conflict(f"routes: {route} is announced by the node {owner[1]!r} already")
    added = len(wanted) - len(node.routes)
    if added > 0 and routes.count(write.connection, cluster.id) + added > MAX_ROUTES_PER_CLUSTER:
        raise Conflict(f"routes: a cluster has at most {MAX_ROUTES_PER_CLUSTER} routes")
    after = msgspec.structs.replace(node, routes=tuple(str(route) for route in wanted))
    if after != node:
        write.audit("node.routes", node.id)
    return node_changes.change(write, cluster, node, after)


def check_public_addresses(
    write: Write, cluster_id: str, public_addresses: Sequence[str], *, field: str
) -> None:
    """Raise Conflict when an announced route of the cluster contains a public address that is about to be set."""
    hosts = [addresses.host_of(text) for text in public_addresses]
    if not hosts:
        return
    for _, name, cidr, _ in routes.of_cluster(write.connection, cluster_id):
        network = IPv4Network(cidr)
        for host in hosts:
            if host in network:
                raise Conflict(f"{field}: {host} is inside the route {cidr} of the node {name!r}")


def public_hosts(connection: sqlite3.Connection, cluster: Cluster) -> dict[addresses.Address, str]:
    """Return the public addresses of a cluster's lighthouses and relays, each with how to call it in a sentence."""
    hosts = {
        addresses.host_of(text): "the box's own lighthouse" for text in cluster.lighthouse_public_addresses
    }
    for node in nodes.topology(connection, cluster.id):
        hosts |= {
            addresses.host_of(text): f"the lighthouse or relay {node.name!r}"
            for text in node.public_addresses
        }
    return hosts


def read(connection: sqlite3.Connection, cluster: Cluster) -> Topology:
    """Return a cluster's topology from its rows, in an order that depends on nothing else."""
    network = IPv4Network(cluster.network_cidr)
    found: list[tuple[bool, TopologyLighthouse]] = []
    if cluster.provide_lighthouse:
        box = TopologyLighthouse(
            node_id=None,
            name=BOX_NAME,
            overlay_ip=f"{network[addresses.LIGHTHOUSE_OFFSET]}/{network.prefixlen}",
            public_addresses=cluster.lighthouse_public_addresses,
            is_relay=cluster.provide_relay,
        )
        found.append((True, box))
    for node in nodes.topology(connection, cluster.id):
        each = TopologyLighthouse(
            node_id=node.id,
            name=node.name,
            overlay_ip=f"{node.overlay_ip}/{network.prefixlen}",
            public_addresses=node.public_addresses,
            is_relay=node.is_relay,
        )
        found.append((node.is_lighthouse, each))
    rows = routes.of_cluster(connection, cluster.id)
    return Topology(
        cluster_id=cluster.id,
        version=cluster.wide_version,
        lighthouses=tuple(each for is_lighthouse, each in found if is_lighthouse),
        relays=tuple(each for _, each in found if each.is_relay),
        routes=tuple(
            NodeRoutes(node_id=node_id, name=name, routes=in_order([row[2] for row in group]))
            for (node_id, name), group in groupby(rows, key=lambda row: (row[0], row[1]))
        ),
    )


def gateways(connection: sqlite3.Connection, cluster_id: str) -> dict[str, str]:
    """Return the overlay address of every node that has routes, by node id."""
    return {
        node_id: columns.dotted(overlay_ip)
        for node_id, _, _, overlay_ip in routes.of_cluster(connection, cluster_id)
        if overlay_ip is not None
    }


class Topologies:
    """The newest topology of each cluster, kept until anything of the cluster changes."""

    def __init__(self) -> None:
        self._documents: dict[str, TopologyDocument] = {}

    async def get(self, control: Control, cluster_id: str) -> TopologyDocument:
        """Return a cluster's topology. NotFound."""
        revision = control.roll.revision(cluster_id)
        document = self._documents.get(cluster_id)
        if document is not None and document.revision == revision:
            await trio.lowlevel.checkpoint()
            return document

        def job(connection: sqlite3.Connection) -> Topology:
            cluster = clusters.get(connection, cluster_id)
            if cluster is None:
                raise NotFound("no such cluster")
            return read(connection, cluster)

        topology = await control.database.read(job)
        body = msgspec.json.encode(topology)
        etag = hashlib.sha256(body).hexdigest()[:ETAG_CHARACTERS]
        document = TopologyDocument(topology=topology, body=body, etag=etag, revision=revision)
        # The revision is from before the reading: at worst it is older than what was read, and is read again.
        self._documents[cluster_id] = document
        return document

    def forget(self, cluster_id: str) -> None:
        """Forget a cluster that is gone."""
        self._documents.pop(cluster_id, None)
