"""Signed bundles: rendered from stored rows, one load for many askers, kept in a bounded cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller


class SignedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle as it is sent. ``digest`` is the lower-case hex SHA-256 of ``body``, ``signature`` base64."""

    body: bytes
    version: int
    digest: str
    signature: str


async def node_bundle(control: Control, caller: Caller) -> SignedBundle:
    """Return the calling node's bundle of its effective version. NotFound while it has none."""
    raise NotImplementedError
