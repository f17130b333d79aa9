"""A cluster or node by its id, where without it there is nothing to do: NotFound. Runs inside a job; knows no caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.errors import NotFound
from edgegc.store import clusters, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.model.cluster import Cluster
    from edgegc.model.node import Node


def cluster(connection: sqlite3.Connection, cluster_id: str) -> Cluster:
    """Return a cluster. NotFound."""
    found = clusters.get(connection, cluster_id)
    if found is None:
        raise NotFound("no such cluster")
    return found


def node(connection: sqlite3.Connection, node_id: str) -> tuple[Node, Cluster]:
    """Return a node with its cluster. NotFound."""
    found = nodes.get(connection, node_id)
    if found is None:
        raise NotFound("no such node")
    return found, cluster(connection, found.cluster_id)
