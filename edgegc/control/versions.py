"""Bumping: the only place where versions are raised. Knows no reasons; they are in ``model/version.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.model.version import Scope
from edgegc.store import certificates, clusters, nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgegc.control.write import Write


def bump(write: Write, scope: Scope, *, cluster_id: str, node_ids: Iterable[str] = ()) -> int | None:
    """Give whomever ``scope`` says a new version; return it, or None when it concerns nobody.

    ``node_ids`` are those of ``Scope.NODE``: they all get the same new version. A node without a bundle must not be
    among them: there is nothing that it could download.
    """
    match scope:
        case Scope.NOBODY:
            return None
        case Scope.NODE:
            version = clusters.next_version(write.connection, cluster_id)
            for node_id in node_ids:
                nodes.set_own_version(write.connection, node_id, version, at=write.now)
                write.changed_node(node_id)
            return version
        case Scope.LIGHTHOUSE:
            write.changed_cluster(cluster_id)
            return clusters.next_lighthouse_version(write.connection, cluster_id)
        case Scope.CLUSTER:
            # Every bundle changes now, so this is the moment at which dropping entries costs no download of its own.
            certificates.unlist_expired(write.connection, cluster_id, now=write.now)
            write.changed_cluster(cluster_id)
            return clusters.next_wide_version(write.connection, cluster_id, at=write.now)
