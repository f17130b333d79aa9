"""Rows of ``clusters``: settings, version counters, the address cursor. Plain functions of a connection.

Knows no rule: what a change bumps is ``control/versions.py``'s business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgegc.model.cluster import Cluster
from edgegc.model.policy import Policy
from edgegc.store.columns import assigned, from_text, named, to_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

_COLUMNS = (
    "id, tenant_id, name, network_cidr, mode, provide_lighthouse, provide_relay, lighthouse_port,"
    " lighthouse_public_addresses, allowed_routes, certificate_lifetime_s, supersede_grace_s, policy,"
    " version, wide_version, lighthouse_version, node_count, created_at, updated_at"
)
_SETTINGS = (
    "name, provide_lighthouse, provide_relay, lighthouse_port, lighthouse_public_addresses, allowed_routes,"
    " certificate_lifetime_s, supersede_grace_s, updated_at"
)
_WIDE_VERSION = (
    "CASE WHEN mode = 'uploaded' AND NOT EXISTS (SELECT 1 FROM bundles WHERE cluster_id = clusters.id)"
    " THEN 0 ELSE wide_version END"
)
_encode_policy = msgspec.json.Encoder().encode
_decode_policy = msgspec.json.Decoder(Policy).decode


def insert(connection: sqlite3.Connection, cluster: Cluster, *, address_cursor: int) -> None:
    """Add a cluster; ``address_cursor`` is the offset in its network after which nodes' addresses begin."""
    connection.execute(
        f"INSERT INTO clusters ({_COLUMNS}, wide_version_at, address_cursor)"
        f" VALUES ({named(_COLUMNS)}, :created_at, :address_cursor)",
        _row(cluster) | {"address_cursor": address_cursor},
    )


def get(connection: sqlite3.Connection, cluster_id: str) -> Cluster | None:
    """Return a cluster, or None."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM clusters WHERE id = ?", (cluster_id,)).fetchone()
    return None if row is None else _cluster(row)


def all_(connection: sqlite3.Connection) -> tuple[Cluster, ...]:
    """Return all clusters by name."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM clusters ORDER BY name, id")
    return tuple(_cluster(row) for row in rows)


def with_lighthouse(connection: sqlite3.Connection) -> tuple[Cluster, ...]:
    """Return the clusters that want a lighthouse on this box, by id."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM clusters WHERE provide_lighthouse = 1")
    return tuple(sorted((_cluster(row) for row in rows), key=lambda cluster: cluster.id))


def of_tenant(connection: sqlite3.Connection, tenant_id: str) -> list[tuple[str, str]]:
    """Return id and name of a tenant's clusters, by name."""
    return connection.execute(
        "SELECT id, name FROM clusters WHERE tenant_id = ? ORDER BY name", (tenant_id,)
    ).fetchall()


def delete(connection: sqlite3.Connection, cluster_id: str) -> None:
    """Delete a cluster with everything in it."""
    connection.execute("DELETE FROM clusters WHERE id = ?", (cluster_id,))


def name_taken(connection: sqlite3.Connection, tenant_id: str, name: str) -> bool:
    """Whether a tenant has a cluster of that name."""
    row = connection.execute(
        "SELECT 1 FROM clusters WHERE tenant_id = ? AND name = ?", (tenant_id, name)
    ).fetchone()
    return row is not None


def lighthouse_on_port(connection: sqlite3.Connection, port: int) -> tuple[str, str] | None:
    """Return id and name of the cluster whose lighthouse on this box has that UDP port, or None."""
    row: tuple[str, str] | None = connection.execute(
        "SELECT id, name FROM clusters WHERE lighthouse_port = ? AND provide_lighthouse = 1", (port,)
    ).fetchone()
    return row


def update_settings(connection: sqlite3.Connection, cluster: Cluster) -> None:
    """Write everything of a cluster that a PATCH can change."""
    connection.execute(f"UPDATE clusters SET {assigned(_SETTINGS)} WHERE id = :id", _row(cluster))


def set_policy(connection: sqlite3.Connection, cluster_id: str, policy: Policy, *, at: int) -> None:
    """Replace the firewall policy of a cluster."""
    connection.execute(
        "UPDATE clusters SET policy = ?, updated_at = ? WHERE id = ?",
        (_encode_policy(policy).decode(), at, cluster_id),
    )


def next_version(connection: sqlite3.Connection, cluster_id: str) -> int:
    """Raise the version counter by one for something that concerns single nodes; return it."""
    return _raised(
        connection.execute(
            "UPDATE clusters SET version = version + 1 WHERE id = ? RETURNING version", (cluster_id,)
        )
    )


def next_wide_version(connection: sqlite3.Connection, cluster_id: str, *, at: int) -> int:
    """Raise the version counter by one for something that concerns every node; return it."""
    return _raised(
        connection.execute(
            "UPDATE clusters SET version = version + 1, wide_version = version + 1, wide_version_at = ?"
            " WHERE id = ? RETURNING version",
            (at, cluster_id),
        )
    )


def next_lighthouse_version(connection: sqlite3.Connection, cluster_id: str) -> int:
    """Raise the version counter by one for something that concerns only the box's own lighthouse; return it."""
    return _raised(
        connection.execute(
            "UPDATE clusters SET version = version + 1, lighthouse_version = version + 1"
            " WHERE id = ? RETURNING version",
            (cluster_id,),
        )
    )


def raise_all_versions(
    connection: sqlite3.Connection, *, above: Mapping[str, int], by: int, at: int
) -> dict[str, int]:
    """Give every cluster a version that concerns every node, ``by`` higher than its own and than ``above`` has for its id.

    Returns them by id. A cluster that has no bundle for anybody yet still has none.
    """
    raised = {
        cluster_id: max(version, above.get(cluster_id, 0)) + by
        for cluster_id, version in connection.execute("SELECT id, version FROM clusters")
    }
    connection.executemany(
        "UPDATE clusters SET version = ?1, wide_version = CASE wide_version WHEN 0 THEN 0 ELSE ?1 END,"
        " wide_version_at = ?2 WHERE id = ?3",
        [(version, at, cluster_id) for cluster_id, version in raised.items()],
    )
    return raised


def wide_version(connection: sqlite3.Connection, cluster_id: str) -> int | None:
    """Return the newest version that concerns every node, or None without such a cluster.

    0 in an uploaded cluster without a bundle: whatever raised its version gave nobody anything to download.
    """
    row = connection.execute(f"SELECT {_WIDE_VERSION} FROM clusters WHERE id = ?", (cluster_id,)).fetchone()
    return None if row is None else int(row[0])


def versions(connection: sqlite3.Connection, cluster_id: str) -> tuple[int, int, int] | None:
    """Return the newest version, the newest wide one and when that was given, or None without such a cluster."""
    row: tuple[int, int, int] | None = connection.execute(
        "SELECT version, wide_version, wide_version_at FROM clusters WHERE id = ?", (cluster_id,)
    ).fetchone()
    return row


def wide_versions(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return id and wide version of every cluster, as :func:`wide_version` does."""
    return connection.execute(f"SELECT id, {_WIDE_VERSION} FROM clusters").fetchall()


def managed_ids(connection: sqlite3.Connection) -> list[str]:
    """Return the ids of the clusters whose bundles are rendered here."""
    return [row[0] for row in connection.execute("SELECT id FROM clusters WHERE mode = 'managed'")]


def address_cursor(connection: sqlite3.Connection, cluster_id: str) -> int:
    """Return the offset in the network of the address given out last."""
    (cursor,) = connection.execute(
        "SELECT address_cursor FROM clusters WHERE id = ?", (cluster_id,)
    ).fetchone()
    return int(cursor)


def add_nodes(
    connection: sqlite3.Connection, cluster_id: str, count: int, *, address_cursor: int | None
) -> None:
    """Count new nodes. ``address_cursor``: the offset in the network of the address given out last, None where none was."""
    connection.execute(
        "UPDATE clusters SET node_count = node_count + ?, address_cursor = COALESCE(?, address_cursor) WHERE id = ?",
        (count, address_cursor, cluster_id),
    )


def set_address_cursor(connection: sqlite3.Connection, cluster_id: str, cursor: int) -> None:
    """Note the offset in the network of the address given out last."""
    connection.execute("UPDATE clusters SET address_cursor = ? WHERE id = ?", (cursor, cluster_id))


def lighthouse_key(connection: sqlite3.Connection, cluster_id: str) -> bytes | None:
    """Return the sealed private key of the box's own lighthouse, or None before one was wanted."""
    row = connection.execute("SELECT lighthouse_key FROM clusters WHERE id = ?", (cluster_id,)).fetchone()
    return None if row is None else row[0]


def set_lighthouse_key(connection: sqlite3.Connection, cluster_id: str, box: bytes) -> None:
    """Keep the sealed private key of the box's own lighthouse."""
    connection.execute("UPDATE clusters SET lighthouse_key = ? WHERE id = ?", (box, cluster_id))


def _raised(cursor: sqlite3.Cursor) -> int:
    (version,) = cursor.fetchone()
    return int(version)


def _row(cluster: Cluster) -> dict[str, Any]:
    """Return a cluster's columns by name; :func:`_cluster` is the inverse."""
    return msgspec.structs.asdict(cluster) | {
        "lighthouse_public_addresses": to_text(cluster.lighthouse_public_addresses),
        "allowed_routes": to_text(cluster.allowed_routes),
        "policy": _encode_policy(cluster.policy).decode(),
    }


def _cluster(row: tuple[Any, ...]) -> Cluster:
    return Cluster(
        id=row[0],
        tenant_id=row[1],
        name=row[2],
        network_cidr=row[3],
        mode=row[4],
        provide_lighthouse=bool(row[5]),
        provide_relay=bool(row[6]),
        lighthouse_port=row[7],
        lighthouse_public_addresses=from_text(row[8]),
        allowed_routes=from_text(row[9]),
        certificate_lifetime_s=row[10],
        supersede_grace_s=row[11],
        policy=_decode_policy(row[12]),
        version=row[13],
        wide_version=row[14],
        lighthouse_version=row[15],
        node_count=row[16],
        created_at=row[17],
        updated_at=row[18],
    )
