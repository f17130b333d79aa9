"""Rows of ``last_seen``: when each node was last heard of, as flushed from memory. Plain functions; knows no presence.

A table of its own, because all of it is written again and again: touching the wide rows of ``nodes`` for one number each
would write as many pages as the nodes fill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable


def all_(connection: sqlite3.Connection) -> dict[str, int]:
    """Return when each node was last heard of, in Unix seconds, by id; without those that never were."""
    return dict(connection.execute("SELECT node_id, at FROM last_seen"))


def write(connection: sqlite3.Connection, seen: Iterable[tuple[str, int]]) -> None:
    """Flush when nodes were last heard of, as id and Unix seconds; nodes that are gone are passed over."""
    connection.executemany(
        "INSERT INTO last_seen (node_id, at) SELECT id, ?2 FROM nodes WHERE id = ?1"
        " ON CONFLICT (node_id) DO UPDATE SET at = excluded.at",
        seen,
    )
