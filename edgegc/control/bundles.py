"""Bundles for the nodes that ask. Knows not how one is made or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.control.bundle_cache import NO_BUNDLE
from edgegc.control.callers import node_only
from edgegc.control.rendering import SignedBundle, SignedUpload
from edgegc.errors import NotFound, Unauthorized

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller

__all__ = ["SignedBundle", "SignedUpload", "node_bundle"]


async def node_bundle(control: Control, caller: Caller) -> SignedBundle | SignedUpload:
    """Return the calling node's bundle of its effective version. NotFound while it has none."""
    node_id = node_only(caller)
    if control.roll.entry(node_id) is None:
        raise Unauthorized("the node is gone")
    if control.roll.effective(node_id) == 0:
        raise NotFound(NO_BUNDLE)
    return await control.bundles.get(node_id)
