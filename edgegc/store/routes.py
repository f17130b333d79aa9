"""Rows of ``routes``: subnets behind nodes. Plain functions of a connection; knows no rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


def replace(connection: sqlite3.Connection, cluster_id: str, node_id: str, cidrs: Sequence[str]) -> None:
    """Set a node's routes."""
    connection.execute("DELETE FROM routes WHERE node_id = ?", (node_id,))
    connection.executemany(
        "INSERT INTO routes (cluster_id, cidr, node_id) VALUES (?, ?, ?)",
        [(cluster_id, cidr, node_id) for cidr in cidrs],
    )


def owner(connection: sqlite3.Connection, cluster_id: str, cidr: str) -> tuple[str, str] | None:
    """Return id and name of the node that announces exactly this route, or None."""
    row: tuple[str, str] | None = connection.execute(
        "SELECT n.id, n.name FROM routes r JOIN nodes n ON n.id = r.node_id WHERE r.cluster_id = ? AND r.cidr = ?",
        (cluster_id, cidr),
    ).fetchone()
    return row


def of_node(connection: sqlite3.Connection, node_id: str) -> tuple[str, ...]:
    """Return a node's routes."""
    return tuple(
        cidr for (cidr,) in connection.execute("SELECT cidr FROM routes WHERE node_id = ?", (node_id,))
    )


def of_cluster(connection: sqlite3.Connection, cluster_id: str) -> list[tuple[str, str, str, int | None]]:
    """Return node id, node name, route and the node's address of every route of a cluster, by node id and route."""
    return connection.execute(
        "SELECT n.id, n.name, r.cidr, n.overlay_ip FROM routes r JOIN nodes n ON n.id = r.node_id"
        " WHERE r.cluster_id = ? ORDER BY n.id, r.cidr",
        (cluster_id,),
    ).fetchall()


def count(connection: sqlite3.Connection, cluster_id: str) -> int:
    """Return how many routes a cluster has."""
    (found,) = connection.execute(
        "SELECT COUNT(*) FROM routes WHERE cluster_id = ?", (cluster_id,)
    ).fetchone()
    return int(found)
