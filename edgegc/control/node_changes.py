"""What a change of a node entails: its row, its routes, its certificate, and whose version moves. Runs inside a write.

Every change of an existing node goes through :func:`change`, so that the table in ``model/version.py`` is the only place
that says who is affected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import signing
from edgegc.control.versions import bump, bump_nodes
from edgegc.model.version import Scope, needs_new_certificate, scope_of_node_change, takes_away
from edgegc.store import certificates, nodes, routes

if TYPE_CHECKING:
    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster
    from edgegc.model.node import Node


def change(write: Write, cluster: Cluster, before: Node, after: Node) -> Node:
    """Make ``before`` into ``after``; return it with its new certificate and version. A change of nothing is none.

    What may not be is for the caller to check first. Unavailable when a certificate is needed and the clock is wrong.
    """
    if after == before:
        return before
    after = msgspec.structs.replace(after, updated_at=write.now)
    scope = scope_of_node_change(before, after, policy=cluster.policy)
    version = bump(write, scope, cluster_id=cluster.id)
    if version is not None and scope is Scope.NODE:
        # Written with the rest of the row, at once.
        after = msgspec.structs.replace(after, own_version=version)
    write.changed_node(after.id, nodes.update(write.connection, before, after))
    if after.routes != before.routes:
        routes.replace(write.connection, cluster.id, after.id, after.routes)
    if version is not None and needs_new_certificate(before, after, policy=cluster.policy):
        public_key = _public_key(before)
        return replace_certificate(
            write, cluster, after, public_key, version=version, blocklist=takes_away(before, after)
        )
    return after


def replace_certificate(
    write: Write, cluster: Cluster, node: Node, public_key: bytes, *, version: int, blocklist: bool
) -> Node:
    """Sign a node's key, in a version that the caller has bumped already; return the node with its certificate.

    ``blocklist``: the new certificate may less than older ones. All of them go on the blocklist once the node runs the
    version, or after the cluster's grace; without it they are left to expire.
    """
    if node.certificate is not None:
        certificates.supersede(
            write.connection,
            node.certificate,
            superseded_in=version,
            blocklist_at=write.now + cluster.supersede_grace_s if blocklist else None,
        )
    certificate = signing.certify_node(write, cluster, node, public_key)
    write.changed_node(node.id)
    return msgspec.structs.replace(node, certificate=certificate)


def renew(write: Write, cluster: Cluster, node: Node) -> None:
    """Sign a node's certificate again, for a later end only."""
    sign_again(write, cluster, node, version=bump_nodes(write, cluster.id, (node.id,)))


def sign_again(write: Write, cluster: Cluster, node: Node, *, version: int) -> None:
    """Sign a node's certificate again as the node is, in a version that the caller has bumped already."""
    replace_certificate(write, cluster, node, _public_key(node), version=version, blocklist=False)


def sign_name(write: Write, cluster: Cluster, node_id: str, *, version: int) -> None:
    """Sign a node's certificate again for its present name, in a version that the caller has bumped already.

    The old one, for a name that rules may mean somebody else by, goes on the blocklist.
    """
    node = nodes.get(write.connection, node_id)
    if node is None:
        raise AssertionError(f"there is no node {node_id}")
    replace_certificate(write, cluster, node, _public_key(node), version=version, blocklist=True)


def _public_key(node: Node) -> bytes:
    if node.certificate is None:
        raise AssertionError(f"node {node.id} has no certificate")
    return node.certificate.public_key
