"""Managed or uploaded: what a cluster can do by its mode. Runs on a row; knows no caller and no request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.errors import Conflict

if TYPE_CHECKING:
    from edgegc.model.cluster import Cluster


def managed_only(cluster: Cluster, what: str) -> None:
    """Raise Conflict in an uploaded cluster; ``what`` there is none of, as in "firewall policy"."""
    if cluster.mode == "uploaded":
        raise Conflict(
            f"{what}: edgegc renders nothing for the cluster {cluster.name!r}, whose mode is 'uploaded';"
            " what its nodes run is in the bundle that an admin uploads"
        )


def uploaded_only(cluster: Cluster) -> None:
    """Raise Conflict in a managed cluster: it has no uploaded bundles."""
    if cluster.mode != "uploaded":
        raise Conflict(
            f"the cluster {cluster.name!r} is managed: edgegc renders its bundles, and takes none;"
            " only a cluster made with mode 'uploaded' does"
        )
