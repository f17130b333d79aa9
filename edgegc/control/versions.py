"""Bumping: the only place where versions are raised. Knows no reasons; they are in ``model/version.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.model.version import Scope
from edgegc.store import certificates, clusters, nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgegc.control.write import Write


def bump(write: Write, scope: Scope, *, cluster_id: str) -> int | None:
    """Give whomever ``scope`` says a new version; return it, or None when it concerns nobody.

    A node's own is for the caller to write, with the rest of the node's row.
    """
    match scope:
        case Scope.NOBODY:
            return None
        case Scope.NODE:
            return bump_nodes(write, cluster_id, ())
        case Scope.LIGHTHOUSE:
            return bump_lighthouse(write, cluster_id)
        case Scope.CLUSTER:
            return bump_cluster(write, cluster_id)


def bump_nodes(write: Write, cluster_id: str, node_ids: Iterable[str]) -> int:
    """Give some nodes the same new version. Each of them has a bundle, or gets one in this write."""
    version = clusters.next_version(write.connection, cluster_id)
    for node_id in node_ids:
        nodes.set_own_version(write.connection, node_id, version, at=write.now)
        write.changed_node(node_id)
    return version


def bump_lighthouse(write: Write, cluster_id: str) -> int:
    """Give the box's own lighthouse of a cluster a new version."""
    write.changed_cluster(cluster_id)
    return clusters.next_lighthouse_version(write.connection, cluster_id)


def bump_cluster(write: Write, cluster_id: str) -> int:
    """Give every node of a cluster, and the box's own lighthouse, a new version."""
    # Every bundle changes now, so this is the moment at which dropping entries costs no download of its own.
    certificates.unlist_expired(write.connection, cluster_id, now=write.now)
    write.changed_cluster(cluster_id)
    return clusters.next_wide_version(write.connection, cluster_id, at=write.now)
