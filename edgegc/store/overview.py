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


class KeyRow(NamedTuple):
    """An authority with its phase, or the certificate of the box's own lighthouse; ``not_after`` in Unix seconds."""

    cluster_id: str
    cluster: str
    phase: str | None
    not_after: int


def authorities(connection: sqlite3.Connection) -> list[KeyRow]:
    """Return every authority, by cluster."""
    rows = connection.execute(
        "SELECT cl.id, cl.name, a.phase, a.not_after FROM authorities a JOIN clusters cl ON cl.id = a.cluster_id"
        " ORDER BY cl.name, cl.id, a.phase"
    )
    return [KeyRow._make(row) for row in rows]


def lighthouses(connection: sqlite3.Connection) -> list[KeyRow]:
    """Return the certificates of the box's own lighthouses, by cluster."""
    rows = connection.execute(
        "SELECT cl.id, cl.name, NULL, c.not_after FROM clusters cl JOIN certificates c ON c.cluster_id = cl.id"
        " WHERE cl.provide_lighthouse = 1 AND c.node_id IS NULL AND c.state = 'current' ORDER BY cl.name, cl.id"
    )
    return [KeyRow._make(row) for row in rows]


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
