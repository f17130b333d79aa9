"""Clusters: networks with their authorities, settings and versions. Operator only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import ClusterCreate, ClusterList, ClusterUpdate, ClusterView


async def create(control: Control, caller: Caller, request: ClusterCreate) -> ClusterView:
    """Make a cluster with its authority and signer."""
    raise NotImplementedError


async def list_(control: Control, caller: Caller) -> ClusterList:
    """Return all clusters by name."""
    raise NotImplementedError


async def get(control: Control, caller: Caller, cluster_id: str) -> ClusterView:
    """Return a cluster. NotFound."""
    raise NotImplementedError


async def update(control: Control, caller: Caller, cluster_id: str, request: ClusterUpdate) -> ClusterView:
    """Change settings of a cluster. NotFound, Conflict, Invalid."""
    raise NotImplementedError
