"""Rows of ``audit``: who changed what. Plain functions of a connection; every write adds its row in its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3


AUTHENTICATION_FAILED = "authentication.failed"
REQUEST_FORBIDDEN = "request.forbidden"
_REFUSAL = f"action IN ('{AUTHENTICATION_FAILED}', '{REQUEST_FORBIDDEN}')"
"""As in the index over them, or it is not used."""

_NEVER = 2**63 - 1
"""More than the id of any row."""


class Row(NamedTuple):
    """A row. ``at`` in Unix seconds."""

    id: int
    at: int
    actor: str
    action: str
    target: str | None
    request_id: str
    source: str


def insert(
    connection: sqlite3.Connection,
    *targets: str | None,
    at: int,
    actor: str,
    action: str,
    request_id: str,
    source: str,
) -> None:
    """Add a row for each target."""
    connection.executemany(
        "INSERT INTO audit (at, actor, action, target, request_id, source) VALUES (?, ?, ?, ?, ?, ?)",
        [(at, actor, action, target, request_id, source) for target in targets],
    )


def page(connection: sqlite3.Connection, *, before: int | None, limit: int) -> list[Row]:
    """Return at most ``limit`` rows, newest first, that are older than the row ``before`` (None: from the newest on)."""
    rows = connection.execute(
        "SELECT id, at, actor, action, target, request_id, source FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
        (_NEVER if before is None else before, limit),
    )
    return [Row(*row) for row in rows]


def newest_at(connection: sqlite3.Connection, *, above: int = 0, after: int = 0) -> int | None:
    """Return the newest time that any write was made, in Unix seconds: the newest time the store knows.

    Of times later than ``above`` and of the writes after the row ``after`` only; None where there is none.
    """
    row = connection.execute(
        "SELECT at FROM audit WHERE at > ? AND id > ? ORDER BY at DESC LIMIT 1", (above, after)
    ).fetchone()
    return None if row is None else int(row[0])


def newest_id(connection: sqlite3.Connection) -> int:
    """Return the number of the newest row, 0 where there is none."""
    (newest,) = connection.execute("SELECT COALESCE(MAX(id), 0) FROM audit").fetchone()
    return int(newest)


def trim(connection: sqlite3.Connection, *, before: int, keep: int, limit: int) -> int:
    """Delete rows older than ``before``, and those beyond the newest ``keep``, at most ``limit`` of each; return how many."""
    old = connection.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY at LIMIT ?)",
        (before, limit),
    ).rowcount
    many = connection.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id <= (SELECT MAX(id) FROM audit) - ?"
        " ORDER BY id LIMIT ?)",
        (keep, limit),
    ).rowcount
    return old + many


def trim_refusals(connection: sqlite3.Connection, *, keep: int, limit: int) -> int:
    """Delete what was only refused, beyond the newest ``keep`` of those, at most ``limit``; return how many."""
    return connection.execute(
        f"DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE {_REFUSAL}"
        f" AND id <= (SELECT id FROM audit WHERE {_REFUSAL} ORDER BY id DESC LIMIT 1 OFFSET ?) ORDER BY id LIMIT ?)",
        (keep, limit),
    ).rowcount
