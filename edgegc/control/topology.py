"""Topology and routes of a cluster, as its nodes see and announce them. Knows neither the rules nor the cache behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.control import announcements
from edgegc.control.callers import node_only
from edgegc.control.permissions import cluster_of
from edgegc.model.message import ClusterRoutes, Routes
from edgegc.model.node import in_order
from edgegc.store import routes

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.topology_cache import TopologyDocument
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.model.message import Topology


async def cluster_topology(control: Control, caller: Caller, cluster_id: str | None) -> Topology:
    """Return the cluster's topology: the same object while nothing of the cluster changes."""
    return (await topology_document(control, caller, cluster_id)).topology


async def topology_document(control: Control, caller: Caller, cluster_id: str | None) -> TopologyDocument:
    """Return the cluster's topology with its JSON bytes."""
    found = cluster_of(control, caller, cluster_id, "member")
    return await control.topologies.get(found)


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
            routes=announcements.set_routes(
                write, node_id, request.routes, servers=control.servers, limited=caller.role != "admin"
            ).routes
        )

    return await control.write(caller, job)
