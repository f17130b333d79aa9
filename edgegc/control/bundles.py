"""Bundles for the nodes that ask. Knows not how one is made or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.control.callers import node_only
from edgegc.control.rendering import SignedBundle
from edgegc.errors import NotFound, Unauthorized

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller

__all__ = ["SignedBundle", "node_bundle"]


async def node_bundle(control: Control, caller: Caller) -> SignedBundle:
    """Return the calling node's bundle of its effective version. NotFound while it has none."""
    node_id = node_only(caller)
    if control.roll.entry(node_id) is None:
        raise Unauthorized("the node is gone")
    if control.roll.effective(node_id) == 0:
        raise NotFound("this node has no bundle yet: it must send its public key first")
    return await control.bundles.get(node_id)
