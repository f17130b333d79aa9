"""Rows of ``kept_answers``: what was answered to requests that may be repeated. Plain functions; knows no request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3


class Kept(NamedTuple):
    """A kept answer, sealed. ``expires_at`` in Unix seconds."""

    body_digest: bytes
    answer: bytes
    expires_at: int


def get(connection: sqlite3.Connection, digest: bytes) -> Kept | None:
    """Return what was answered to a request, or None."""
    row = connection.execute(
        "SELECT body_digest, answer, expires_at FROM kept_answers WHERE digest = ?", (digest,)
    ).fetchone()
    return None if row is None else Kept(*row)


def put(connection: sqlite3.Connection, digest: bytes, kept: Kept, *, most: int) -> None:
    """Keep an answer, in place of an older one to the same request; of more than ``most`` the oldest goes."""
    connection.execute(
        "INSERT OR REPLACE INTO kept_answers (digest, body_digest, answer, expires_at) VALUES (?, ?, ?, ?)",
        (digest, kept.body_digest, kept.answer, kept.expires_at),
    )
    connection.execute(
        "DELETE FROM kept_answers WHERE number <= (SELECT MAX(number) FROM kept_answers) - ?", (most,)
    )


def trim(connection: sqlite3.Connection, *, now: int, limit: int) -> int:
    """Delete at most ``limit`` expired answers; return how many."""
    return connection.execute(
        "DELETE FROM kept_answers WHERE number IN"
        " (SELECT number FROM kept_answers WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
        (now, limit),
    ).rowcount
