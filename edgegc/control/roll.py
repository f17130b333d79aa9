"""The roll: who may ask, and what is the version, in memory. Trio thread only; knows no SQL.

It is loaded at start and follows every commit, entry by entry, before the writer is answered. So a version check
needs neither a query nor a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.model.event import (
    ClusterChanged,
    ClusterDeleted,
    Event,
    NodeChanged,
    NodeDeleted,
    TokenChanged,
    TokenDeleted,
)
from edgegc.model.version import effective_version

if TYPE_CHECKING:
    from collections.abc import Iterable

RollEntry = NodeChanged
"""What the roll knows of a node is what the last change of it said."""


class RollCluster:
    """What the roll knows of a cluster.

    ``revision`` is raised by every commit that anything of the cluster shows in a GET: the key of caches. It means
    nothing beyond this process.
    """

    __slots__ = ("cluster_id", "nodes", "revision", "wide_version")

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.wide_version = 0
        self.revision = 0
        self.nodes: set[str] = set()


class Roll:
    """All nodes, clusters and API tokens, as of the last commit."""

    def __init__(self) -> None:
        self._nodes: dict[str, RollEntry] = {}
        self._clusters: dict[str, RollCluster] = {}
        self._tokens: dict[str, TokenChanged] = {}
        self._revisions = 0

    def entry(self, node_id: str) -> RollEntry | None:
        """Return what is known of a node, or None when there is none."""
        return self._nodes.get(node_id)

    def cluster(self, cluster_id: str) -> RollCluster | None:
        """Return what is known of a cluster, or None when there is none."""
        return self._clusters.get(cluster_id)

    def members(self, cluster_id: str) -> tuple[str, ...]:
        """Return the ids of a cluster's nodes."""
        cluster = self._clusters.get(cluster_id)
        return () if cluster is None else tuple(cluster.nodes)

    def clusters(self) -> Iterable[RollCluster]:
        """Return all clusters."""
        return self._clusters.values()

    def token(self, token_id: str) -> TokenChanged | None:
        """Return an API token, or None when there is none."""
        return self._tokens.get(token_id)

    def effective(self, node_id: str) -> int:
        """Return the effective version of a node; 0 when it can have no bundle, or does not exist."""
        entry = self._nodes.get(node_id)
        return 0 if entry is None else self.effective_of(entry)

    def effective_of(self, entry: RollEntry) -> int:
        """Return the effective version of an entry."""
        return effective_version(
            own_version=entry.own_version,
            wide_version=self._clusters[entry.cluster_id].wide_version,
            has_bundle=entry.has_bundle,
        )

    def revision(self, cluster_id: str) -> int:
        """Return the cluster's revision; 0 when there is no such cluster."""
        cluster = self._clusters.get(cluster_id)
        return 0 if cluster is None else cluster.revision

    def apply(self, event: Event) -> None:
        """Follow a commit."""
        match event:
            case NodeChanged():
                self._nodes[event.node_id] = event
                self._touch(event.cluster_id).nodes.add(event.node_id)
            case NodeDeleted():
                self._nodes.pop(event.node_id, None)
                self._touch(event.cluster_id).nodes.discard(event.node_id)
            case ClusterChanged():
                self._touch(event.cluster_id).wide_version = event.wide_version
            case ClusterDeleted():
                cluster = self._clusters.pop(event.cluster_id, None)
                for node_id in cluster.nodes if cluster is not None else ():
                    del self._nodes[node_id]
            case TokenChanged():
                self._tokens[event.token_id] = event
            case TokenDeleted():
                self._tokens.pop(event.token_id, None)
            case _:
                pass

    def _touch(self, cluster_id: str) -> RollCluster:
        cluster = self._clusters.get(cluster_id)
        if cluster is None:
            cluster = self._clusters[cluster_id] = RollCluster(cluster_id)
        # One counter for all clusters: a cluster's revisions never repeat, not even across its deletion.
        self._revisions += 1
        cluster.revision = self._revisions
        return cluster
