"""Rows of ``bundles`` and ``bundle_bodies``: what was uploaded, verbatim. Plain functions of a connection.

Bodies are written and read a piece at a time (incremental BLOB I/O), so that neither memory nor the writer's queue
notices how large one is. Knows no archive and no rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.model.bundle import UploadedBundle
from edgegc.store.columns import named

if TYPE_CHECKING:
    import sqlite3
    from typing import Any

_COLUMNS = "cluster_id, version, body_id, digest, size, uploaded_at"


def reserve_body(connection: sqlite3.Connection, cluster_id: str, *, digest: str, size: int) -> int:
    """Make room for a body and return its id; it counts for nothing before :func:`finish_body`."""
    cursor = connection.execute(
        "INSERT INTO bundle_bodies (cluster_id, digest, complete, body) VALUES (?, ?, 0, zeroblob(?))",
        (cluster_id, digest, size),
    )
    assert cursor.lastrowid is not None  # an INSERT has one
    return cursor.lastrowid


def write_piece(connection: sqlite3.Connection, body_id: int, *, offset: int, piece: bytes) -> None:
    """Write a part of a reserved body."""
    with connection.blobopen("bundle_bodies", "body", body_id) as blob:
        blob.seek(offset)
        blob.write(piece)


def finish_body(connection: sqlite3.Connection, body_id: int) -> None:
    """Say that a body is complete."""
    connection.execute("UPDATE bundle_bodies SET complete = 1 WHERE id = ?", (body_id,))


def find_body(connection: sqlite3.Connection, cluster_id: str, digest: str) -> int | None:
    """Return the id of a cluster's complete body with that digest, or None."""
    row = connection.execute(
        "SELECT id FROM bundle_bodies WHERE cluster_id = ? AND digest = ? AND complete = 1",
        (cluster_id, digest),
    ).fetchone()
    return None if row is None else int(row[0])


def read_piece(
    connection: sqlite3.Connection, body_id: int, *, digest: str, offset: int, size: int
) -> bytes | None:
    """Return a part of a body, or None when the body is gone (its id may be another's by now)."""
    row = connection.execute(
        "SELECT 1 FROM bundle_bodies WHERE id = ? AND digest = ? AND complete = 1", (body_id, digest)
    ).fetchone()
    if row is None:
        return None
    with connection.blobopen("bundle_bodies", "body", body_id, readonly=True) as blob:
        blob.seek(offset)
        return blob.read(size)


def drop_body(connection: sqlite3.Connection, body_id: int) -> None:
    """Remove a body that no bundle has."""
    connection.execute(
        "DELETE FROM bundle_bodies WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM bundles WHERE body_id = ?1)",
        (body_id,),
    )


def drop_incomplete(connection: sqlite3.Connection) -> int:
    """Remove what uploads left that a crash or power cut ended; return how many. Only while none is under way."""
    return connection.execute("DELETE FROM bundle_bodies WHERE complete = 0").rowcount


def insert(connection: sqlite3.Connection, bundle: UploadedBundle) -> None:
    """Add a bundle to its cluster's history."""
    connection.execute(
        f"INSERT INTO bundles ({_COLUMNS}) VALUES ({named(_COLUMNS)})",
        {field: getattr(bundle, field) for field in bundle.__struct_fields__},
    )


def active(connection: sqlite3.Connection, cluster_id: str) -> UploadedBundle | None:
    """Return the bundle that a cluster's nodes get, or None before the first upload."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM bundles WHERE cluster_id = ? ORDER BY version DESC LIMIT 1", (cluster_id,)
    ).fetchone()
    return None if row is None else _bundle(row)


def get(connection: sqlite3.Connection, cluster_id: str, version: int) -> UploadedBundle | None:
    """Return a bundle of the history, or None."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM bundles WHERE cluster_id = ? AND version = ?", (cluster_id, version)
    ).fetchone()
    return None if row is None else _bundle(row)


def history(connection: sqlite3.Connection, cluster_id: str) -> tuple[UploadedBundle, ...]:
    """Return a cluster's bundles, the newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM bundles WHERE cluster_id = ? ORDER BY version DESC", (cluster_id,)
    )
    return tuple(_bundle(row) for row in rows)


def renumber_active(connection: sqlite3.Connection, cluster_id: str, version: int) -> None:
    """Give a cluster's active bundle, if there is one, a higher version."""
    connection.execute(
        "UPDATE bundles SET version = ?2 WHERE cluster_id = ?1"
        " AND version = (SELECT MAX(version) FROM bundles WHERE cluster_id = ?1)",
        (cluster_id, version),
    )


def delete(connection: sqlite3.Connection, bundle: UploadedBundle) -> None:
    """Remove a bundle, and its body where no other bundle has the same."""
    connection.execute(
        "DELETE FROM bundles WHERE cluster_id = ? AND version = ?", (bundle.cluster_id, bundle.version)
    )
    drop_body(connection, bundle.body_id)


def _bundle(row: tuple[Any, ...]) -> UploadedBundle:
    return UploadedBundle(
        cluster_id=row[0], version=row[1], body_id=row[2], digest=row[3], size=row[4], uploaded_at=row[5]
    )
