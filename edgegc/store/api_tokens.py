"""Rows of ``api_tokens``. Plain functions of a connection; knows no rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.model.credential import ApiToken
from edgegc.model.event import TokenChanged
from edgegc.store.columns import from_text, named, to_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

_COLUMNS = "id, label, scopes, expires_at, last_used_at, created_at"


def insert(connection: sqlite3.Connection, token: ApiToken, *, digest: bytes) -> None:
    """Add a token."""
    connection.execute(
        f"INSERT INTO api_tokens ({_COLUMNS}, digest) VALUES ({named(_COLUMNS)}, :digest)",
        msgspec.structs.asdict(token) | {"scopes": to_text(token.scopes), "digest": digest},
    )


def all_(connection: sqlite3.Connection) -> tuple[ApiToken, ...]:
    """Return all tokens, newest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM api_tokens ORDER BY created_at DESC, id")
    return tuple(
        ApiToken(
            id=row[0],
            label=row[1],
            scopes=from_text(row[2]),
            expires_at=row[3],
            last_used_at=row[4],
            created_at=row[5],
        )
        for row in rows
    )


def roll_entries(connection: sqlite3.Connection) -> list[TokenChanged]:
    """Return what the roll needs of every token."""
    return _entries(connection.execute("SELECT id, digest, scopes, expires_at FROM api_tokens"))


def for_cluster(connection: sqlite3.Connection, cluster_id: str) -> list[TokenChanged]:
    """Return the tokens with a scope in a cluster. Reads all: there are few, and few clusters are deleted."""
    return _entries(
        connection.execute(
            "SELECT id, digest, scopes, expires_at FROM api_tokens"
            " WHERE EXISTS (SELECT 1 FROM json_each(scopes) WHERE value IN (?, ?))",
            (f"cluster:{cluster_id}:admin", f"cluster:{cluster_id}:read"),
        )
    )


def set_scopes(connection: sqlite3.Connection, token_id: str, scopes: tuple[str, ...]) -> None:
    """Replace what a token may do."""
    connection.execute("UPDATE api_tokens SET scopes = ? WHERE id = ?", (to_text(scopes), token_id))


def set_last_used(connection: sqlite3.Connection, used: Iterable[tuple[str, int]]) -> None:
    """Flush when tokens were last used: pairs of token id and Unix seconds."""
    connection.executemany(
        "UPDATE api_tokens SET last_used_at = ?2 WHERE id = ?1",
        list(used),
    )


def delete(connection: sqlite3.Connection, token_id: str) -> bool:
    """Delete a token; False when there is none."""
    return connection.execute("DELETE FROM api_tokens WHERE id = ?", (token_id,)).rowcount == 1


def _entries(rows: Iterable[tuple[str, bytes, str, int | None]]) -> list[TokenChanged]:
    return [
        TokenChanged(token_id=id_, digest=digest, scopes=from_text(scopes), expires_at=expires_at)
        for id_, digest, scopes, expires_at in rows
    ]
