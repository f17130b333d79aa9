"""From stored rows to a cluster's topology. Runs inside a read; knows no cache and no caller."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import groupby
from typing import TYPE_CHECKING

from edgegc.control import addresses
from edgegc.model.message import NodeRoutes, Topology, TopologyLighthouse
from edgegc.model.node import in_order
from edgegc.store import columns, nodes, routes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.model.cluster import Cluster

BOX_NAME = "lighthouse"
"""What the box's own lighthouse is called in a topology; its ``node_id`` is None."""


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
