"""The rules of what a node may announce. Inside a write; knows no version: a change of routes is one of a node like any other."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import msgspec

from edgegc.control import addresses, existing, modes, node_changes
from edgegc.errors import Conflict, Forbidden
from edgegc.store import nodes, routes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster
    from edgegc.model.manifest import Server
    from edgegc.model.node import Node

MAX_ROUTES_PER_CLUSTER = 4096
"""Every node's configuration lists them all."""


def set_routes(
    write: Write, node_id: str, texts: Sequence[str], *, servers: Sequence[Server], limited: bool
) -> Node:
    """Set a node's routes, inside a write; ``limited`` to the cluster's ``allowed_routes`` or not."""
    node, cluster = existing.node(write.connection, node_id)
    modes.managed_only(cluster, "routes")
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
