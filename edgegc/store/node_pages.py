"""Which nodes a list shows, and in which order. Plain functions of a connection; knows no cursor's form.

A page is two queries whatever its size: the ids in order, then the nodes of those ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_ORDER = {
    "name": ("name",),
    "created_at": ("created_at", "id"),
    "overlay_ip": ("overlay_ip",),
}
"""Columns that a list can be sorted by, together unique; each has an index that begins with the cluster. An uploaded
cluster's nodes have no ``overlay_ip``: its lists must be sorted by something else."""


Row = tuple[str, tuple[str | int | None, ...]]
"""A node's id, and the values it is sorted by."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes of a cluster are wanted. None: any."""

    cluster_id: str
    name_prefix: str | None = None
    group: str | None = None
    role: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether every node of the cluster is wanted."""
        return self.name_prefix is None and self.group is None and self.role is None


def count(connection: sqlite3.Connection, wanted: Filter) -> int:
    """Return how many nodes there are of those wanted."""
    if wanted.is_everything:
        row = connection.execute(
            "SELECT node_count FROM clusters WHERE id = ?", (wanted.cluster_id,)
        ).fetchone()
        return 0 if row is None else int(row[0])
    where, arguments = _where(wanted)
    (found,) = connection.execute(f"SELECT COUNT(*) FROM nodes WHERE {where}", arguments).fetchone()
    return int(found)


def page(
    connection: sqlite3.Connection,
    wanted: Filter,
    *,
    sort: str,
    descending: bool,
    limit: int | None = None,
    offset: int = 0,
    after: Sequence[object] | None = None,
) -> list[Row]:
    """Return id and sort key of at most ``limit`` nodes (None: all), after a sort key or from an offset on."""
    columns = _ORDER[sort]
    where, arguments = _where(wanted)
    if after is not None:
        relation = "<" if descending else ">"
        where += f" AND ({', '.join(columns)}) {relation} ({', '.join('?' * len(columns))})"
        arguments = [*arguments, *after]
    order = ", ".join(f"{column} DESC" if descending else column for column in columns)
    rows = connection.execute(
        f"SELECT id, {', '.join(columns)} FROM nodes WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",
        [*arguments, -1 if limit is None else limit, offset],
    )
    return [(row[0], row[1:]) for row in rows]


def _where(wanted: Filter) -> tuple[str, list[Any]]:
    where = ["cluster_id = ?"]
    arguments: list[Any] = [wanted.cluster_id]
    if wanted.name_prefix:
        # A range of the index; names are ASCII, so nothing that begins with the prefix sorts after this.
        where.append("name >= ? AND name < ?")
        arguments += [wanted.name_prefix, wanted.name_prefix + "\U0010ffff"]
    if wanted.role is not None:
        where.append("role = ?")
        arguments.append(wanted.role)
    if wanted.group is not None:
        where.append("EXISTS (SELECT 1 FROM json_each(groups) WHERE value = ?)")
        arguments.append(wanted.group)
    return " AND ".join(where), arguments
