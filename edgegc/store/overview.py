"""Reads across all clusters at once, for metrics. Knows no tokens and writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3


class ClusterRow(NamedTuple):
    """A cluster, as metrics name it."""

    id: str
    name: str
    version: int


class NodeRow(NamedTuple):
    """A node, as metrics name it; ``not_after`` of its current certificate, in Unix seconds."""

    cluster_id: str
    id: str
    name: str
    not_after: int | None


def clusters(connection: sqlite3.Connection) -> list[ClusterRow]:
    """Return every cluster, by name."""
    return [
        ClusterRow._make(row)
        for row in connection.execute("SELECT id, name, version FROM clusters ORDER BY name, id")
    ]


def nodes(connection: sqlite3.Connection) -> list[NodeRow]:
    """Return every node, by cluster and name."""
    return [
        NodeRow._make(row)
        for row in connection.execute(
            "SELECT n.cluster_id, n.id, n.name, c.not_after FROM nodes n"
            " LEFT JOIN certificates c ON c.node_id = n.id AND c.state = 'current'"
            " ORDER BY n.cluster_id, n.name"
        )
    ]
