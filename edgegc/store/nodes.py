"""Rows of ``nodes``, read with their routes and current certificate in one query. Plain functions of a connection.

Knows no rule: who may have which name or address, and what a change bumps, is decided in ``control/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgegc.model.event import NodeChanged
from edgegc.model.node import Node, ReportedState, in_order
from edgegc.store import certificates
from edgegc.store.columns import from_number, from_text, marks, to_number, to_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

_OWN = (
    "id, cluster_id, name, role, overlay_ip, mtu, groups, listen_port, is_lighthouse, is_relay, public_addresses,"
    " own_version, enrolment_key_id, enrolled_at, token_used_at, applied_version, reported_state, error,"
    " nebula_version, created_at, updated_at"
)
_OWN_COUNT = _OWN.count(",") + 1
_CHANGEABLE = (
    "name",
    "role",
    "overlay_ip",
    "mtu",
    "groups",
    "listen_port",
    "is_lighthouse",
    "is_relay",
    "public_addresses",
    "own_version",
)
_INSERT = f"INSERT INTO nodes ({_OWN}, own_version_at, token_digest) VALUES ({marks(_OWN)}, ?, ?)"
_SELECT = (
    f"SELECT {', '.join('n.' + name for name in _OWN.split(', '))},"
    " (SELECT json_group_array(cidr) FROM routes WHERE node_id = n.id),"
    f" {', '.join('c.' + name for name in certificates.COLUMNS.split(', '))}"
    " FROM nodes n LEFT JOIN certificates c ON c.node_id = n.id AND c.state = 'current'"
)
_ENTRY = (
    "SELECT n.id, n.cluster_id, n.role, n.token_digest, n.own_version,"
    # Nodes of an uploaded cluster have no address; whether there is a bundle its wide version says.
    " c.fingerprint IS NOT NULL OR n.overlay_ip IS NULL, n.token_used_at IS NOT NULL"
    " FROM nodes n LEFT JOIN certificates c ON c.node_id = n.id AND c.state = 'current'"
)


class SelfReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself, as flushed from memory."""

    node_id: str
    applied_version: int | None
    reported_state: ReportedState | None
    error: str | None
    nebula_version: str | None


class Membership(NamedTuple):
    """What decides which rules of a policy concern a node, and the certificate that it is known by."""

    id: str
    name: str
    groups: tuple[str, ...]
    certificate_pem: str


def insert(connection: sqlite3.Connection, added: Iterable[tuple[Node, bytes]]) -> None:
    """Add nodes, each with its token's digest, without routes and certificates. A version of its own is as old as the node.

    They are counted by :func:`edgegc.store.clusters.add_nodes`.
    """
    connection.executemany(
        _INSERT,
        [
            (*_row(node), node.created_at if node.own_version else None, token_digest)
            for node, token_digest in added
        ],
    )


def get(connection: sqlite3.Connection, node_id: str) -> Node | None:
    """Return a node, or None."""
    row = connection.execute(f"{_SELECT} WHERE n.id = ?", (node_id,)).fetchone()
    return None if row is None else _node(row)


def find(connection: sqlite3.Connection, cluster_id: str, name: str) -> Node | None:
    """Return the node of a name, or None."""
    row = connection.execute(
        f"{_SELECT} WHERE n.cluster_id = ? AND n.name = ?", (cluster_id, name)
    ).fetchone()
    return None if row is None else _node(row)


def get_many(connection: sqlite3.Connection, node_ids: Iterable[str]) -> dict[str, Node]:
    """Return those of some nodes that exist, by id."""
    wanted = msgspec.json.encode(list(node_ids)).decode()
    rows = connection.execute(f"{_SELECT} WHERE n.id IN (SELECT value FROM json_each(?))", (wanted,))
    return {row[0]: _node(row) for row in rows}


def name_taken(connection: sqlite3.Connection, cluster_id: str, name: str) -> bool:
    """Whether the cluster has a node of that name."""
    row = connection.execute(
        "SELECT 1 FROM nodes WHERE cluster_id = ? AND name = ?", (cluster_id, name)
    ).fetchone()
    return row is not None


def taken_names(connection: sqlite3.Connection, cluster_id: str, names: Sequence[str]) -> set[str]:
    """Return those of some names that nodes of the cluster have."""
    if len(names) == 1:
        return {*names} if name_taken(connection, cluster_id, names[0]) else set()
    rows = connection.execute(
        "SELECT name FROM nodes WHERE cluster_id = ? AND name IN (SELECT value FROM json_each(?))",
        (cluster_id, msgspec.json.encode(names).decode()),
    )
    return {name for (name,) in rows}


def owner_of_address(connection: sqlite3.Connection, cluster_id: str, overlay_ip: int) -> str | None:
    """Return the name of the node with an overlay address, or None."""
    row = connection.execute(
        "SELECT name FROM nodes WHERE cluster_id = ? AND overlay_ip = ?", (cluster_id, overlay_ip)
    ).fetchone()
    return None if row is None else str(row[0])


def occupied_addresses(connection: sqlite3.Connection, cluster_id: str, *, first: int, last: int) -> set[int]:
    """Return the addresses from ``first`` to ``last`` that a node has, or that a certificate speaks for which is about to
    be revoked: two nodes would speak for one address.
    """
    rows = connection.execute(
        "SELECT overlay_ip FROM nodes WHERE cluster_id = ?1 AND overlay_ip BETWEEN ?2 AND ?3"
        " UNION ALL SELECT overlay_ip FROM certificates WHERE cluster_id = ?1 AND overlay_ip BETWEEN ?2 AND ?3"
        " AND state = 'superseded' AND blocklist_at IS NOT NULL",
        (cluster_id, first, last),
    )
    return {address for (address,) in rows}


def first_free_address(
    connection: sqlite3.Connection, cluster_id: str, *, first: int, last: int
) -> int | None:
    """Return the lowest address from ``first`` to ``last`` that no node has, or None.

    Walks the index from ``first`` only as far as addresses follow each other without a gap.
    """
    if first > last:
        return None
    taken = connection.execute(
        "SELECT 1 FROM nodes WHERE cluster_id = ? AND overlay_ip = ?", (cluster_id, first)
    ).fetchone()
    if taken is None:
        return first
    row = connection.execute(
        "SELECT n.overlay_ip + 1 FROM nodes n WHERE n.cluster_id = ?1 AND n.overlay_ip >= ?2 AND n.overlay_ip < ?3"
        " AND NOT EXISTS (SELECT 1 FROM nodes m WHERE m.cluster_id = ?1 AND m.overlay_ip = n.overlay_ip + 1)"
        " ORDER BY n.overlay_ip LIMIT 1",
        (cluster_id, first, last),
    ).fetchone()
    return None if row is None else int(row[0])


def update(connection: sqlite3.Connection, before: Node, after: Node) -> NodeChanged:
    """Write what differs, of what administrators change of a node; return what the roll needs.

    A new version of its own is as old as the change.
    """
    # SQLite rewrites the entries of each index whose columns are named, whether or not their values differ.
    changed = [name for name in _CHANGEABLE if getattr(after, name) != getattr(before, name)]
    values = [_value(after, name) for name in changed]
    changed.append("updated_at")
    values.append(after.updated_at)
    if after.own_version != before.own_version:
        changed.append("own_version_at")
        values.append(after.updated_at)
    row = connection.execute(
        f"UPDATE nodes SET {', '.join(f'{name} = ?' for name in changed)} WHERE id = ? RETURNING token_digest",
        (*values, after.id),
    ).fetchone()
    return entry_of(after, token_digest=row[0])


def set_own_version(connection: sqlite3.Connection, node_id: str, version: int, *, at: int) -> None:
    """Note the newest version that concerns the node alone."""
    connection.execute(
        "UPDATE nodes SET own_version = ?, own_version_at = ? WHERE id = ?", (version, at, node_id)
    )


def set_token(connection: sqlite3.Connection, node_id: str, *, token_digest: bytes) -> None:
    """Replace a node's token; the new one has not been used."""
    connection.execute(
        "UPDATE nodes SET token_digest = ?, token_used_at = NULL WHERE id = ?", (token_digest, node_id)
    )


def enrolled_key(connection: sqlite3.Connection, node_id: str) -> bytes | None:
    """Return the public key that a node of an uploaded cluster enrolled with, or None."""
    row = connection.execute("SELECT enrolled_key FROM nodes WHERE id = ?", (node_id,)).fetchone()
    return None if row is None else row[0]


def set_enrolled_key(connection: sqlite3.Connection, node_id: str, public_key: bytes) -> None:
    """Keep the public key that a node of an uploaded cluster enrolled with, for which there is no certificate."""
    connection.execute("UPDATE nodes SET enrolled_key = ? WHERE id = ?", (public_key, node_id))


def mark_token_used(connection: sqlite3.Connection, node_id: str, *, token_digest: bytes, at: int) -> bool:
    """Note the first use of a node's token; False when it was noted already, or is not the node's any more."""
    return (
        connection.execute(
            "UPDATE nodes SET token_used_at = ?, enrolled_at = COALESCE(enrolled_at, ?)"
            " WHERE id = ? AND token_digest = ? AND token_used_at IS NULL",
            (at, at, node_id, token_digest),
        ).rowcount
        == 1
    )


def delete(connection: sqlite3.Connection, node: Node) -> None:
    """Delete a node with its routes and certificates, and count it no more; its blocklist rows stay."""
    connection.execute("DELETE FROM nodes WHERE id = ?", (node.id,))
    connection.execute("UPDATE clusters SET node_count = node_count - 1 WHERE id = ?", (node.cluster_id,))


def certified(connection: sqlite3.Connection, cluster_id: str, *, after: str, limit: int) -> tuple[Node, ...]:
    """Return the nodes with a certificate whose names come after ``after``, by name, at most ``limit``."""
    rows = connection.execute(
        f"{_SELECT} WHERE n.cluster_id = ? AND n.name > ? AND c.fingerprint IS NOT NULL ORDER BY n.name LIMIT ?",
        (cluster_id, after, limit),
    )
    return tuple(_node(row) for row in rows)


def certified_names(connection: sqlite3.Connection, cluster_id: str) -> list[tuple[str, str]]:
    """Return id and name of every node with a certificate, by name."""
    return connection.execute(
        "SELECT n.id, n.name FROM nodes n JOIN certificates c ON c.node_id = n.id AND c.state = 'current'"
        " WHERE n.cluster_id = ? ORDER BY n.name",
        (cluster_id,),
    ).fetchall()


def topology(connection: sqlite3.Connection, cluster_id: str) -> tuple[Node, ...]:
    """Return the nodes that are lighthouse or relay, by id."""
    rows = connection.execute(
        f"{_SELECT} WHERE n.cluster_id = ? AND (n.is_lighthouse = 1 OR n.is_relay = 1) ORDER BY n.id",
        (cluster_id,),
    )
    return tuple(_node(row) for row in rows)


def members_with_bundle(connection: sqlite3.Connection, cluster_id: str) -> Iterator[Membership]:
    """Yield every node of a cluster that has a bundle, by name."""
    rows = connection.execute(
        "SELECT n.id, n.name, n.groups, c.pem FROM nodes n"
        " JOIN certificates c ON c.node_id = n.id AND c.state = 'current'"
        " WHERE n.cluster_id = ? ORDER BY n.name",
        (cluster_id,),
    )
    for node_id, name, groups, pem in rows:
        yield Membership(node_id, name, from_text(groups), pem)


def entry_of(node: Node, *, token_digest: bytes) -> NodeChanged:
    """Return what the roll needs of a node as it is written, as :func:`roll_entries` would."""
    return NodeChanged(
        node_id=node.id,
        cluster_id=node.cluster_id,
        role=node.role,
        token_digest=token_digest,
        own_version=node.own_version,
        has_bundle=node.certificate is not None or node.overlay_ip is None,
        token_used=node.token_used_at is not None,
    )


def roll_entries(connection: sqlite3.Connection, node_ids: Iterable[str]) -> list[NodeChanged]:
    """Return what the roll needs of those of some nodes that exist."""
    wanted = tuple(node_ids)
    if len(wanted) == 1:
        rows = connection.execute(f"{_ENTRY} WHERE n.id = ?", wanted)
    else:
        rows = connection.execute(
            f"{_ENTRY} WHERE n.id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(wanted).decode(),),
        )
    return [_entry(row) for row in rows]


def all_roll_entries(connection: sqlite3.Connection) -> list[NodeChanged]:
    """Return what the roll needs of every node."""
    return [_entry(row) for row in connection.execute(_ENTRY)]


def all_reports(connection: sqlite3.Connection) -> list[SelfReport]:
    """Return what every node last said of itself, as far as it was flushed."""
    rows = connection.execute("SELECT id, applied_version, reported_state, error, nebula_version FROM nodes")
    return [
        SelfReport(
            node_id=row[0],
            applied_version=row[1],
            reported_state=row[2],
            error=row[3],
            nebula_version=row[4],
        )
        for row in rows
    ]


def write_reports(connection: sqlite3.Connection, reports: Iterable[SelfReport]) -> None:
    """Flush what nodes said of themselves; nodes that are gone are passed over."""
    connection.executemany(
        "UPDATE nodes SET applied_version = ?, reported_state = ?, error = ?, nebula_version = ? WHERE id = ?",
        [
            (
                report.applied_version,
                report.reported_state,
                report.error,
                report.nebula_version,
                report.node_id,
            )
            for report in reports
        ],
    )


def versions(connection: sqlite3.Connection, cluster_id: str) -> list[tuple[str, str, int, int | None]]:
    """Return id, name, own version and its time of every node of a cluster, by name."""
    return connection.execute(
        "SELECT id, name, own_version, own_version_at FROM nodes WHERE cluster_id = ? ORDER BY name",
        (cluster_id,),
    ).fetchall()


def _row(node: Node) -> tuple[Any, ...]:
    """Return a node's own columns, in order; what else of it is there stands in other tables."""
    return (
        node.id,
        node.cluster_id,
        node.name,
        node.role,
        to_number(node.overlay_ip),
        node.mtu,
        to_text(node.groups),
        node.listen_port,
        node.is_lighthouse,
        node.is_relay,
        to_text(node.public_addresses),
        node.own_version,
        node.enrolment_key_id,
        node.enrolled_at,
        node.token_used_at,
        node.applied_version,
        node.reported_state,
        node.error,
        node.nebula_version,
        node.created_at,
        node.updated_at,
    )


def _value(node: Node, column: str) -> Any:
    """Return the value of one of the columns that can be changed."""
    match column:
        case "overlay_ip":
            return to_number(node.overlay_ip)
        case "groups" | "public_addresses":
            return to_text(getattr(node, column))
        case _:
            return getattr(node, column)


def _node(row: tuple[Any, ...]) -> Node:
    certificate = row[_OWN_COUNT + 1 :]
    return Node(
        id=row[0],
        cluster_id=row[1],
        name=row[2],
        role=row[3],
        overlay_ip=from_number(row[4]),
        mtu=row[5],
        groups=from_text(row[6]),
        listen_port=row[7],
        is_lighthouse=bool(row[8]),
        is_relay=bool(row[9]),
        public_addresses=from_text(row[10]),
        own_version=row[11],
        enrolment_key_id=row[12],
        enrolled_at=row[13],
        token_used_at=row[14],
        applied_version=row[15],
        reported_state=row[16],
        error=row[17],
        nebula_version=row[18],
        created_at=row[19],
        updated_at=row[20],
        routes=in_order(from_text(row[_OWN_COUNT])),
        certificate=None if certificate[0] is None else certificates.from_row(certificate),
    )


def _entry(row: tuple[Any, ...]) -> NodeChanged:
    return NodeChanged(
        node_id=row[0],
        cluster_id=row[1],
        role=row[2],
        token_digest=row[3],
        own_version=row[4],
        has_bundle=bool(row[5]),
        token_used=bool(row[6]),
    )
