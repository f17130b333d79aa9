"""Rows of ``authorities`` and ``signers``: the keys of a cluster, sealed. Plain functions of a connection.

Private keys pass through as sealed boxes; who opens them is ``control/``'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgegc.model.cluster import Authority, Signer
from edgegc.store.columns import named

if TYPE_CHECKING:
    import sqlite3

_AUTHORITY = "id, cluster_id, fingerprint, certificate_pem, phase, not_after, created_at, phase_version"
_SIGNER = "id, cluster_id, public_key, phase, created_at, since_version"


def insert_authority(connection: sqlite3.Connection, authority: Authority, *, private_key: bytes) -> None:
    """Add an authority with its sealed private key."""
    connection.execute(
        f"INSERT INTO authorities ({_AUTHORITY}, private_key) VALUES ({named(_AUTHORITY)}, :private_key)",
        msgspec.structs.asdict(authority) | {"private_key": private_key},
    )


def insert_signer(connection: sqlite3.Connection, signer: Signer, *, private_key: bytes) -> None:
    """Add a bundle signer with its sealed private key."""
    connection.execute(
        f"INSERT INTO signers ({_SIGNER}, private_key) VALUES ({named(_SIGNER)}, :private_key)",
        msgspec.structs.asdict(signer) | {"private_key": private_key},
    )


def authorities(connection: sqlite3.Connection, cluster_id: str) -> tuple[Authority, ...]:
    """Return every authority that the cluster's nodes trust, oldest first."""
    rows = connection.execute(
        f"SELECT {_AUTHORITY} FROM authorities WHERE cluster_id = ? ORDER BY created_at, id",
        (cluster_id,),
    )
    return tuple(_authority(row) for row in rows)


def all_authorities(connection: sqlite3.Connection) -> dict[str, tuple[Authority, ...]]:
    """Return every authority of every cluster that has one, by cluster id."""
    found: dict[str, tuple[Authority, ...]] = {}
    for row in connection.execute(f"SELECT {_AUTHORITY} FROM authorities ORDER BY created_at, id"):
        found[row[1]] = (*found.get(row[1], ()), _authority(row))
    return found


def active_authority(connection: sqlite3.Connection, cluster_id: str) -> tuple[Authority, bytes] | None:
    """Return the authority that signs, with its sealed private key, or None (uploaded clusters)."""
    row = connection.execute(
        f"SELECT {_AUTHORITY}, private_key FROM authorities WHERE cluster_id = ? AND phase = 'active'",
        (cluster_id,),
    ).fetchone()
    return None if row is None else (_authority(row), row[-1])


def signers(connection: sqlite3.Connection, cluster_id: str) -> tuple[Signer, ...]:
    """Return every bundle signer that the cluster's nodes are to trust, oldest first."""
    rows = connection.execute(
        f"SELECT {_SIGNER} FROM signers WHERE cluster_id = ? ORDER BY created_at, id",
        (cluster_id,),
    )
    return tuple(_signer(row) for row in rows)


def former_signer(connection: sqlite3.Connection, cluster_id: str) -> tuple[Signer, bytes] | None:
    """Return the signer that was replaced and is trusted still, with its sealed private key, or None."""
    row = connection.execute(
        f"SELECT {_SIGNER}, private_key FROM signers WHERE cluster_id = ? AND phase = 'old'", (cluster_id,)
    ).fetchone()
    return None if row is None else (_signer(row), row[-1])


def from_the_future(connection: sqlite3.Connection, *, now: int) -> tuple[str, ...]:
    """Return the names of the clusters with an authority that was made later than ``now``."""
    rows = connection.execute(
        "SELECT DISTINCT cl.name FROM authorities a JOIN clusters cl ON cl.id = a.cluster_id"
        " WHERE a.created_at > ? ORDER BY cl.name",
        (now,),
    )
    return tuple(name for (name,) in rows)


def turn(connection: sqlite3.Connection, cluster_id: str, *, version: int) -> None:
    """Let the next authority and the next signer sign; the ones that did stay trusted."""
    # In this order: there is never more than one that signs.
    for before, after in (("active", "old"), ("next", "active")):
        connection.execute(
            "UPDATE authorities SET phase = ?, phase_version = ? WHERE cluster_id = ? AND phase = ?",
            (after, version, cluster_id, before),
        )
        connection.execute(
            "UPDATE signers SET phase = ? WHERE cluster_id = ? AND phase = ?", (after, cluster_id, before)
        )


def drop_old(connection: sqlite3.Connection, cluster_id: str, *, version: int) -> None:
    """Delete the replaced authority, with all certificates it signed, and the replaced signer: nobody trusts them now."""
    connection.execute("DELETE FROM authorities WHERE cluster_id = ? AND phase = 'old'", (cluster_id,))
    connection.execute("DELETE FROM signers WHERE cluster_id = ? AND phase = 'old'", (cluster_id,))
    connection.execute(
        "UPDATE authorities SET phase_version = ? WHERE cluster_id = ? AND phase = 'active'",
        (version, cluster_id),
    )


def active_signer(connection: sqlite3.Connection, cluster_id: str) -> tuple[Signer, bytes] | None:
    """Return the signer that signs, with its sealed private key, or None."""
    row = connection.execute(
        f"SELECT {_SIGNER}, private_key FROM signers WHERE cluster_id = ? AND phase = 'active'",
        (cluster_id,),
    ).fetchone()
    return None if row is None else (_signer(row), row[-1])


def _authority(row: tuple[Any, ...]) -> Authority:
    return Authority(
        id=row[0],
        cluster_id=row[1],
        fingerprint=row[2],
        certificate_pem=row[3],
        phase=row[4],
        not_after=row[5],
        created_at=row[6],
        phase_version=row[7],
    )


def _signer(row: tuple[Any, ...]) -> Signer:
    return Signer(
        id=row[0],
        cluster_id=row[1],
        public_key=row[2],
        phase=row[3],
        created_at=row[4],
        since_version=row[5],
    )
