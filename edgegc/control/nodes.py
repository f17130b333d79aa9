"""Nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import (
        LighthouseSet,
        NodeCreate,
        NodePage,
        NodeQuery,
        NodeToken,
        NodeUpdate,
        NodeView,
        Routes,
    )


async def create(control: Control, caller: Caller, cluster_id: str | None, request: NodeCreate) -> NodeView:
    """Make a node; the view carries its token."""
    raise NotImplementedError


async def list_(control: Control, caller: Caller, cluster_id: str | None, query: NodeQuery) -> NodePage:
    """Return a page of the cluster's nodes."""
    raise NotImplementedError


async def get(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Return a node. NotFound."""
    raise NotImplementedError


async def update(control: Control, caller: Caller, node_id: str, request: NodeUpdate) -> NodeView:
    """Change a node. NotFound, Conflict, Invalid."""
    raise NotImplementedError


async def delete(control: Control, caller: Caller, node_id: str) -> None:
    """Delete a node; revokes its certificates and token."""
    raise NotImplementedError


async def rotate_token(control: Control, caller: Caller, node_id: str) -> NodeToken:
    """Replace a node's token; the old one stops at once."""
    raise NotImplementedError


async def set_lighthouse(control: Control, caller: Caller, node_id: str, request: LighthouseSet) -> NodeView:
    """Make a node a lighthouse, or change its public addresses."""
    raise NotImplementedError


async def unset_lighthouse(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Make a node an ordinary one again."""
    raise NotImplementedError


async def set_relay(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Make a node a relay."""
    raise NotImplementedError


async def unset_relay(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Make a node no relay any more."""
    raise NotImplementedError


async def set_routes(control: Control, caller: Caller, node_id: str, request: Routes) -> NodeView:
    """Set any node's routes, without the allowed_routes limit."""
    raise NotImplementedError
