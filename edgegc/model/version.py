"""The version rules: who is affected by what. Pure.

Every write declares the scope of its effect and bumps in the same transaction. A node's *effective version*
is the newest version that changes *its* bundle; 0 while it can have no bundle.
"""

from __future__ import annotations

import enum


class Scope(enum.Enum):
    """Whose bundle a write changes."""

    NOBODY = "nobody"
    NODE = "node"
    LIGHTHOUSE = "lighthouse"
    CLUSTER = "cluster"


def effective_version(*, own_version: int, wide_version: int, has_bundle: bool) -> int:
    """Return the effective version of a node: the newer of its own and its cluster's last bump; 0 without a bundle."""
    return max(own_version, wide_version) if has_bundle else 0
