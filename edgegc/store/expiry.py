"""Reads of what is about to expire, across all clusters. Plain functions of a connection; knows no words for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

LONGEST_NOTICE_S = 305 * 86_400
"""A sixth of the longest life that a certificate can have, five years."""


class Ending(NamedTuple):
    """Something that ends at ``not_after``, in Unix seconds. ``node`` is None for what belongs to no node."""

    cluster: str
    node: str | None
    not_after: int


def authorities(connection: sqlite3.Connection, *, before: int) -> list[Ending]:
    """Return the authorities that sign and end before a time, soonest first."""
    rows = connection.execute(
        "SELECT cl.name, NULL, a.not_after FROM authorities a JOIN clusters cl ON cl.id = a.cluster_id"
        " WHERE a.phase = 'active' AND a.not_after < ? ORDER BY a.not_after",
        (before,),
    )
    return [Ending._make(row) for row in rows]


def overdue(connection: sqlite3.Connection, now: int) -> list[Ending]:
    """Return the certificates that should have been renewed, and have used up half of what was left then."""
    rows = connection.execute(
        "SELECT cl.name, n.name, c.not_after FROM certificates c JOIN clusters cl ON cl.id = c.cluster_id"
        " LEFT JOIN nodes n ON n.id = c.node_id"
        " WHERE c.state = 'current' AND c.renew_at IS NOT NULL AND c.renew_at < ?1"
        " AND ?1 - c.renew_at > c.not_after - ?1 ORDER BY c.not_after",
        (now,),
    )
    return [Ending._make(row) for row in rows]


def unfetched(connection: sqlite3.Connection, now: int) -> list[Ending]:
    """Return the nodes that run a certificate that was renewed, and has less than a sixth of its life left."""
    rows = connection.execute(
        "SELECT cl.name, n.name, c.not_after FROM certificates c JOIN clusters cl ON cl.id = c.cluster_id"
        " JOIN nodes n ON n.id = c.node_id"
        " WHERE c.state != 'current' AND c.state = 'superseded' AND c.not_after BETWEEN ?1 AND ?1 + ?2"
        " AND (c.not_after - ?1) * 6 < c.not_after - c.issued_at"
        # Which certificate a node runs is known by the version that it runs.
        " AND c.superseded_in > COALESCE(n.applied_version, 0)"
        " AND NOT EXISTS (SELECT 1 FROM certificates o WHERE o.node_id = c.node_id AND o.state = 'superseded'"
        "  AND o.superseded_in > COALESCE(n.applied_version, 0) AND o.superseded_in < c.superseded_in)"
        " ORDER BY c.not_after",
        (now, LONGEST_NOTICE_S),
    )
    return [Ending._make(row) for row in rows]
