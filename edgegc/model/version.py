"""The version rules: who is affected by what. Pure.

Every write declares the scope of its effect and bumps in the same transaction. A node's *effective version*
is the newest version that changes *its* bundle; 0 while it can have no bundle.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.model.cluster import Cluster
    from edgegc.model.node import Node
    from edgegc.model.policy import Policy


class Scope(enum.Enum):
    """Whose bundle a write changes. ``LIGHTHOUSE``: only what the box's own lighthouse runs with."""

    NOBODY = "nobody"
    NODE = "node"
    LIGHTHOUSE = "lighthouse"
    CLUSTER = "cluster"


def effective_version(*, own_version: int, wide_version: int, has_bundle: bool) -> int:
    """Return the effective version of a node: the newer of its own and its cluster's last bump; 0 without a bundle."""
    return max(own_version, wide_version) if has_bundle else 0


def scope_of_node_change(before: Node, after: Node, *, policy: Policy) -> Scope:
    """Return whose bundle a change of a node's settings changes."""
    if _seen_by_all(before) != _seen_by_all(after):
        return Scope.CLUSTER
    if before.certificate is None:
        # It has no bundle: there is nobody else to notice.
        return Scope.NOBODY
    if needs_new_certificate(before, after, policy=policy):
        return Scope.NODE
    if (before.mtu, before.listen_port) != (after.mtu, after.listen_port):
        return Scope.NODE
    return Scope.NOBODY


def needs_new_certificate(before: Node, after: Node, *, policy: Policy) -> bool:
    """Whether a node's certificate has to be signed again: the order of groups is part of it."""
    if before.certificate is None:
        return False
    if (before.overlay_ip, before.groups) != (after.overlay_ip, after.groups):
        return True
    if frozenset(before.routes) != frozenset(after.routes):
        return True
    # A name matters to nebula only where a rule names it; otherwise it waits for the next signing.
    return before.name != after.name and policy.names_hosts


def takes_away(before: Node, after: Node) -> bool:
    """Whether the certificate for ``after`` may less than the one for ``before``, which must then be blocklisted."""
    return (
        before.overlay_ip != after.overlay_ip
        or before.name != after.name
        or not set(before.groups) <= set(after.groups)
        or not set(before.routes) <= set(after.routes)
    )


def scope_of_cluster_change(before: Cluster, after: Cluster) -> Scope:
    """Return whose bundle a change of a cluster's settings changes."""
    if _box_lighthouse(before) != _box_lighthouse(after):
        return Scope.CLUSTER
    if after.provide_lighthouse and before.lighthouse_port != after.lighthouse_port:
        # Nodes know it by its public addresses alone, which name their ports.
        return Scope.LIGHTHOUSE
    return Scope.NOBODY


def _seen_by_all(node: Node) -> tuple[object, ...]:
    """What the bundles of the other nodes say of this one."""
    public = node.is_lighthouse or node.is_relay
    return (
        node.is_lighthouse,
        node.is_relay,
        node.public_addresses if public else (),
        frozenset(node.routes),
        node.overlay_ip if public or node.routes else None,
    )


def _box_lighthouse(cluster: Cluster) -> tuple[object, ...]:
    """What the nodes' bundles say of the box's own lighthouse."""
    if not cluster.provide_lighthouse:
        return ()
    return (cluster.provide_relay, cluster.lighthouse_public_addresses)
