"""Rows of ``certificates`` and ``blocklist``. Plain functions of a connection; knows no rule about either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgegc.model.node import Certificate
from edgegc.store.columns import dotted, marks, to_number

if TYPE_CHECKING:
    import sqlite3

COLUMNS = (
    "fingerprint, cluster_id, node_id, authority_id, public_key, overlay_ip, pem, state, issued_at, not_before,"
    " not_after, renew_at, blocklist_at, superseded_in"
)

_INSERT = f"INSERT INTO certificates ({COLUMNS}) VALUES ({marks(COLUMNS)})"
_CAN_BE_SIGNED = (
    "EXISTS (SELECT 1 FROM authorities a"
    " WHERE a.cluster_id = c.cluster_id AND a.phase = 'active' AND a.not_after > ?1)"
)


def insert(connection: sqlite3.Connection, certificate: Certificate) -> None:
    """Add a certificate."""
    connection.execute(
        _INSERT,
        (
            certificate.fingerprint,
            certificate.cluster_id,
            certificate.node_id,
            certificate.authority_id,
            certificate.public_key,
            to_number(certificate.overlay_ip),
            certificate.pem,
            certificate.state,
            certificate.issued_at,
            certificate.not_before,
            certificate.not_after,
            certificate.renew_at,
            certificate.blocklist_at,
            certificate.superseded_in,
        ),
    )


def current_of_box(connection: sqlite3.Connection, cluster_id: str) -> Certificate | None:
    """Return the certificate of the box's own lighthouse of a cluster, or None."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM certificates WHERE cluster_id = ? AND node_id IS NULL AND state = 'current'",
        (cluster_id,),
    ).fetchone()
    return None if row is None else from_row(row)


def fingerprint_known(connection: sqlite3.Connection, cluster_id: str, fingerprint: str) -> bool:
    """Whether a certificate of this fingerprint was ever issued, as far as it is remembered."""
    row = connection.execute(
        "SELECT 1 FROM certificates WHERE fingerprint = ?"
        " UNION ALL SELECT 1 FROM blocklist WHERE cluster_id = ? AND fingerprint = ?",
        (fingerprint, cluster_id, fingerprint),
    ).fetchone()
    return row is not None


def supersede(
    connection: sqlite3.Connection, certificate: Certificate, *, superseded_in: int, blocklist_at: int | None
) -> None:
    """Note that a current certificate is replaced in a version: whoever runs an older one runs this certificate.

    With ``blocklist_at`` it is to be blocklisted then, and so are its predecessors that were left to expire: they may
    what it may. Without, it is left to expire.
    """
    connection.execute(
        "UPDATE certificates SET state = 'superseded', renew_at = NULL, superseded_in = ? WHERE fingerprint = ?",
        (superseded_in, certificate.fingerprint),
    )
    if blocklist_at is not None:
        connection.execute(
            "UPDATE certificates SET blocklist_at = ?, superseded_in = ?"
            " WHERE cluster_id = ? AND node_id IS ? AND state = 'superseded' AND blocklist_at IS NULL",
            (blocklist_at, superseded_in, certificate.cluster_id, certificate.node_id),
        )


def no_renewal(connection: sqlite3.Connection, fingerprint: str) -> None:
    """Note that a certificate can't usefully be renewed."""
    connection.execute("UPDATE certificates SET renew_at = NULL WHERE fingerprint = ?", (fingerprint,))


def postpone_renewals(connection: sqlite3.Connection, cluster_id: str, *, until: int) -> None:
    """Let no node's certificate be due before ``until``, save for those that have ended by then."""
    connection.execute(
        "UPDATE certificates SET renew_at = ?2 WHERE state = 'current' AND renew_at IS NOT NULL AND renew_at < ?2"
        " AND cluster_id = ?1 AND node_id IS NOT NULL AND not_after > ?2",
        (cluster_id, until),
    )


def renewal_due(connection: sqlite3.Connection, now: int, *, limit: int) -> tuple[Certificate, ...]:
    """Return the current certificates whose renewal is due, longest due first.

    Those of a cluster whose authority has ended stay due: perhaps it is only the clock that says so.
    """
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM certificates c"
        " WHERE state = 'current' AND renew_at IS NOT NULL AND renew_at <= ?1"
        f" AND {_CAN_BE_SIGNED} ORDER BY renew_at LIMIT ?2",
        (now, limit),
    )
    return tuple(from_row(row) for row in rows)


def due_from_the_future(connection: sqlite3.Connection, *, now: int, latest_blocklist_at: int) -> int:
    """Let what was signed later than ``now`` be signed again, and nothing wait longer for the blocklist than may be.

    What was found not worth a renewal is looked at again, too.

    Returns how many current certificates are concerned.
    """
    connection.execute(
        "UPDATE certificates SET blocklist_at = ?1 WHERE state = 'superseded' AND blocklist_at > ?2",
        (now, latest_blocklist_at),
    )
    return connection.execute(
        "UPDATE certificates SET renew_at = ?1 WHERE state = 'current' AND (issued_at > ?1 OR renew_at IS NULL)",
        (now,),
    ).rowcount


def next_renewal(connection: sqlite3.Connection, now: int) -> int | None:
    """Return when the next renewal is due, or None where none is."""
    row = connection.execute(
        "SELECT renew_at FROM certificates c WHERE state = 'current' AND renew_at IS NOT NULL"
        f" AND {_CAN_BE_SIGNED} ORDER BY renew_at LIMIT 1",
        (now,),
    ).fetchone()
    return None if row is None else int(row[0])


def blocklist_due(connection: sqlite3.Connection, now: int) -> tuple[Certificate, ...]:
    """Return the superseded certificates whose grace is over, or whose node runs the successor."""
    rows = connection.execute(
        f"SELECT {', '.join('c.' + name for name in COLUMNS.split(', '))} FROM certificates c"
        " LEFT JOIN nodes n ON n.id = c.node_id"
        " WHERE c.state = 'superseded' AND c.blocklist_at IS NOT NULL AND (c.blocklist_at <= ? OR"
        " (n.applied_version >= c.superseded_in AND n.reported_state = 'ok'))",
        (now,),
    )
    return tuple(from_row(row) for row in rows)


def revoke(connection: sqlite3.Connection, certificate: Certificate, *, now: int) -> bool:
    """Put a certificate on its cluster's blocklist; False when it is expired or there already."""
    connection.execute(
        "UPDATE certificates SET state = 'revoked', renew_at = NULL, blocklist_at = NULL WHERE fingerprint = ?",
        (certificate.fingerprint,),
    )
    if certificate.not_after < now:
        return False
    return (
        connection.execute(
            "INSERT INTO blocklist (cluster_id, fingerprint, not_after) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (certificate.cluster_id, certificate.fingerprint, certificate.not_after),
        ).rowcount
        == 1
    )


def blocklist_all(connection: sqlite3.Connection, node_id: str, *, now: int) -> int:
    """Put every certificate of a node that could still be used on the blocklist, before the node is deleted with them;
    return how many were not there yet.
    """
    return connection.execute(
        "INSERT INTO blocklist (cluster_id, fingerprint, not_after)"
        " SELECT cluster_id, fingerprint, not_after FROM certificates"
        " WHERE node_id = ? AND not_after >= ? ON CONFLICT DO NOTHING",
        (node_id, now),
    ).rowcount


def held_until(
    connection: sqlite3.Connection, cluster_id: str, overlay_ip: int, *, wanted_by: str | None = None
) -> int | None:
    """Return until when, at latest, a replaced certificate of another node speaks for an address; None when none does.

    ``wanted_by`` is the node that would have the address: its own old certificates are in nobody's way.
    """
    (until,) = connection.execute(
        "SELECT MAX(blocklist_at) FROM certificates WHERE cluster_id = ? AND overlay_ip = ?"
        " AND state = 'superseded' AND blocklist_at IS NOT NULL AND node_id IS NOT ?",
        (cluster_id, overlay_ip, wanted_by),
    ).fetchone()
    return None if until is None else int(until)


def forget_expired(connection: sqlite3.Connection, *, now: int, limit: int) -> int:
    """Delete replaced certificates that have expired, at most ``limit``; return how many."""
    return connection.execute(
        "DELETE FROM certificates WHERE fingerprint IN (SELECT fingerprint FROM certificates"
        " WHERE state != 'current' AND not_after < ? LIMIT ?)",
        (now, limit),
    ).rowcount


def blocklist(connection: sqlite3.Connection, cluster_id: str) -> tuple[str, ...]:
    """Return the fingerprints that every bundle of the cluster lists, in order."""
    rows = connection.execute(
        "SELECT fingerprint FROM blocklist WHERE cluster_id = ? ORDER BY fingerprint", (cluster_id,)
    )
    return tuple(fingerprint for (fingerprint,) in rows)


def unlist_expired(connection: sqlite3.Connection, cluster_id: str, *, now: int) -> None:
    """Take the expired fingerprints off a cluster's blocklist: part of a cluster-wide bump."""
    connection.execute("DELETE FROM blocklist WHERE cluster_id = ? AND not_after < ?", (cluster_id, now))


def from_row(row: tuple[Any, ...]) -> Certificate:
    """Return the certificate of a row with :data:`COLUMNS`."""
    return Certificate(
        fingerprint=row[0],
        cluster_id=row[1],
        node_id=row[2],
        authority_id=row[3],
        public_key=row[4],
        overlay_ip=dotted(row[5]),
        pem=row[6],
        state=row[7],
        issued_at=row[8],
        not_before=row[9],
        not_after=row[10],
        renew_at=row[11],
        blocklist_at=row[12],
        superseded_in=row[13],
    )
