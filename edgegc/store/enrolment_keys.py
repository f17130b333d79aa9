"""Rows of ``enrolment_keys``. Plain functions of a connection; knows no rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgegc.model.credential import EnrolmentKey
from edgegc.store.columns import from_text, named, to_text

if TYPE_CHECKING:
    import sqlite3

_COLUMNS = "id, cluster_id, label, uses, used, groups, expires_at, revoked_at, created_at"


def insert(connection: sqlite3.Connection, key: EnrolmentKey, *, digest: bytes) -> None:
    """Add a key."""
    connection.execute(
        f"INSERT INTO enrolment_keys ({_COLUMNS}, digest) VALUES ({named(_COLUMNS)}, :digest)",
        msgspec.structs.asdict(key) | {"groups": to_text(key.groups), "digest": digest},
    )


def get(connection: sqlite3.Connection, key_id: str) -> tuple[EnrolmentKey, bytes] | None:
    """Return a key and the digest of its token, or None."""
    row = connection.execute(
        f"SELECT {_COLUMNS}, digest FROM enrolment_keys WHERE id = ?", (key_id,)
    ).fetchone()
    return None if row is None else (_key(row), row[-1])


def usable(connection: sqlite3.Connection, cluster_id: str) -> tuple[EnrolmentKey, ...]:
    """Return the keys of a cluster that are not revoked, newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM enrolment_keys WHERE cluster_id = ? AND revoked_at IS NULL"
        " ORDER BY created_at DESC, id",
        (cluster_id,),
    )
    return tuple(_key(row) for row in rows)


def count_use(connection: sqlite3.Connection, key_id: str) -> None:
    """Count one use of a key."""
    connection.execute("UPDATE enrolment_keys SET used = used + 1 WHERE id = ?", (key_id,))


def revoke(connection: sqlite3.Connection, key_id: str, *, at: int) -> None:
    """Note that a key was revoked."""
    connection.execute("UPDATE enrolment_keys SET revoked_at = ? WHERE id = ?", (at, key_id))


def forget_expired(connection: sqlite3.Connection, *, before: int, limit: int) -> int:
    """Delete keys that expired before a time, at most ``limit``; return how many. Nodes that came by them stay."""
    return connection.execute(
        "DELETE FROM enrolment_keys WHERE id IN (SELECT id FROM enrolment_keys WHERE expires_at < ? LIMIT ?)",
        (before, limit),
    ).rowcount


def _key(row: tuple[Any, ...]) -> EnrolmentKey:
    return EnrolmentKey(
        id=row[0],
        cluster_id=row[1],
        label=row[2],
        uses=row[3],
        used=row[4],
        groups=from_text(row[5]),
        expires_at=row[6],
        revoked_at=row[7],
        created_at=row[8],
    )
