"""Topology and routes of a cluster, as nodes see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import ClusterRoutes, Routes, Topology


async def cluster_topology(control: Control, caller: Caller, cluster_id: str | None) -> Topology:
    """Return the cluster's topology: the same object while nothing of the cluster changes."""
    raise NotImplementedError


async def cluster_routes(control: Control, caller: Caller, cluster_id: str | None) -> ClusterRoutes:
    """Return all routes of the cluster."""
    raise NotImplementedError


async def own_routes(control: Control, caller: Caller) -> Routes:
    """Return the calling node's routes."""
    raise NotImplementedError


async def set_own_routes(control: Control, caller: Caller, request: Routes) -> Routes:
    """Set the calling node's routes."""
    raise NotImplementedError
