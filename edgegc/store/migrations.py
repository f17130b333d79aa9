"""Owns how a database comes to the schema of this code: created from schema.sql, or migrated to it.

Knows no aggregate. Migrations are append-only: one that was released is never edited. The first one brings
version 1 to version 2, and so on; whoever adds one also changes schema.sql, and a test holds that both ways end in the
same schema.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING

from msgspec import Struct

from edgegc import errors
from edgegc.store import room
from edgegc.store.snapshot import copy_database

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x45474331
"""``EGC1`` in the database header: what ``file`` shows, and how another program's database is told from ours."""

FIRST_VERSION = 1


class Migration(Struct, frozen=True):
    """One step: ``summary`` for the log, and what it does inside the transaction that the caller opened.

    ``apply`` must not commit. Foreign keys are off while it runs, so that a table can be rebuilt, and checked after.
    """

    summary: str
    apply: Callable[[sqlite3.Connection], None]


class Plan(Struct, frozen=True):
    """What a new database starts with, and how an older one gets there."""

    schema: str
    migrations: tuple[Migration, ...]

    @property
    def version(self) -> int:
        """The version at the end of both ways."""
        return FIRST_VERSION + len(self.migrations)


def _note_rotation(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE authorities ADD COLUMN phase_version INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE signers ADD COLUMN since_version INTEGER NOT NULL DEFAULT 0")


def _uploaded_bundles(connection: sqlite3.Connection) -> None:
    for statement in (
        "ALTER TABLE nodes ADD COLUMN enrolled_key BLOB",
        "CREATE TABLE bundle_bodies ("
        " id INTEGER PRIMARY KEY,"
        " cluster_id TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,"
        " digest TEXT NOT NULL,"
        " complete INTEGER NOT NULL CHECK (complete IN (0, 1)),"
        " body BLOB NOT NULL"
        ") STRICT",
        "CREATE INDEX bundle_bodies_digest ON bundle_bodies (cluster_id, digest)",
        "CREATE INDEX bundle_bodies_incomplete ON bundle_bodies (id) WHERE complete = 0",
        "CREATE TABLE bundles ("
        " cluster_id TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,"
        " version INTEGER NOT NULL,"
        " body_id INTEGER NOT NULL REFERENCES bundle_bodies (id),"
        " digest TEXT NOT NULL,"
        " size INTEGER NOT NULL,"
        " uploaded_at INTEGER NOT NULL,"
        " PRIMARY KEY (cluster_id, version)"
        ") STRICT, WITHOUT ROWID",
        "CREATE INDEX bundles_body ON bundles (body_id)",
    ):
        connection.execute(statement)


def _keep_answers(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE kept_answers (number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,"
        " body_digest BLOB NOT NULL, answer BLOB NOT NULL, expires_at INTEGER NOT NULL) STRICT"
    )
    connection.execute("CREATE INDEX kept_answers_expired ON kept_answers (expires_at)")


def _find_what_to_forget(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE INDEX enrolment_keys_expired ON enrolment_keys (expires_at)")
    connection.execute(
        "CREATE INDEX audit_refusals ON audit (id)"
        " WHERE action IN ('authentication.failed', 'request.forbidden')"
    )


def _narrow_last_seen(connection: sqlite3.Connection) -> None:
    for statement in (
        "CREATE TABLE last_seen ("
        " node_id TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,"
        " at INTEGER NOT NULL"
        ") STRICT, WITHOUT ROWID",
        "INSERT INTO last_seen SELECT id, last_seen_at FROM nodes WHERE last_seen_at IS NOT NULL",
        "DROP INDEX nodes_last_seen",
        "ALTER TABLE nodes DROP COLUMN last_seen_at",
    ):
        connection.execute(statement)


def _name_certificates_by_fingerprint(connection: sqlite3.Connection) -> None:
    columns = (
        "fingerprint, cluster_id, node_id, authority_id, public_key, overlay_ip, pem, state, issued_at, not_before,"
        " not_after, renew_at, blocklist_at, superseded_in"
    )
    for statement in (
        "CREATE TABLE new_certificates ("
        " fingerprint TEXT PRIMARY KEY,"
        " cluster_id TEXT NOT NULL,"
        " node_id TEXT REFERENCES nodes (id) ON DELETE CASCADE,"
        " authority_id TEXT NOT NULL REFERENCES authorities (id) ON DELETE CASCADE,"
        " public_key BLOB NOT NULL CHECK (length(public_key) = 32),"
        " overlay_ip INTEGER NOT NULL,"
        " pem TEXT NOT NULL,"
        " state TEXT NOT NULL CHECK (state IN ('current', 'superseded', 'revoked')),"
        " issued_at INTEGER NOT NULL,"
        " not_before INTEGER NOT NULL,"
        " not_after INTEGER NOT NULL,"
        " renew_at INTEGER,"
        " blocklist_at INTEGER,"
        " superseded_in INTEGER"
        ") STRICT",
        f"INSERT INTO new_certificates ({columns}) SELECT {columns} FROM certificates ORDER BY rowid",
        "DROP TABLE certificates",
        "ALTER TABLE new_certificates RENAME TO certificates",
        "CREATE UNIQUE INDEX certificates_node ON certificates"
        " (node_id, CASE state WHEN 'current' THEN '' ELSE fingerprint END)",
        "CREATE UNIQUE INDEX certificates_current_box ON certificates (cluster_id)"
        " WHERE state = 'current' AND node_id IS NULL",
        "CREATE INDEX certificates_authority ON certificates (authority_id)",
        "CREATE INDEX certificates_renewal_due ON certificates (renew_at)"
        " WHERE state = 'current' AND renew_at IS NOT NULL",
        "CREATE INDEX certificates_blocklist_due ON certificates (blocklist_at)"
        " WHERE state = 'superseded' AND blocklist_at IS NOT NULL",
        "CREATE INDEX certificates_expired ON certificates (not_after) WHERE state != 'current'",
        "CREATE INDEX certificates_held_address ON certificates (cluster_id, overlay_ip)"
        " WHERE state = 'superseded' AND blocklist_at IS NOT NULL",
    ):
        connection.execute(statement)


def _find_expired_blocklist_entries(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE INDEX blocklist_expired ON blocklist (cluster_id, not_after)")


MIGRATIONS: tuple[Migration, ...] = (
    Migration("authorities and signers know their versions", _note_rotation),
    Migration("uploaded bundles", _uploaded_bundles),
    Migration("answers to repeated requests are kept", _keep_answers),
    Migration("expired enrolment keys and old refusals are forgotten", _find_what_to_forget),
    Migration("when nodes were last heard of is kept apart", _narrow_last_seen),
    Migration("certificates are known by their fingerprints", _name_certificates_by_fingerprint),
    Migration("expired blocklist entries are found", _find_expired_blocklist_entries),
)


def released_plan() -> Plan:
    """Return the plan of this code."""
    schema = resources.files("edgegc.store").joinpath("schema.sql").read_text("utf-8")
    return Plan(schema, MIGRATIONS)


def user_version(connection: sqlite3.Connection) -> int:
    """Return the schema version that a database says it has; 0 for a new one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _size(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)


def newer(found: int, plan: Plan) -> errors.Error:
    """Return the error for a database of a later edgegc."""
    return errors.Conflict(
        f"the database has schema version {found}, this edgegc knows {plan.version} at most: "
        "start the newer edgegc that made it, or restore a backup from before the upgrade"
    )


def bring_up_to_date(connection: sqlite3.Connection, plan: Plan, *, backups: Path | None) -> None:
    """Create or migrate the schema, in one transaction: afterwards it is the plan's, or untouched.

    ``connection`` must be in autocommit mode (``isolation_level=None``). Before a migration a copy of the
    database is written into ``backups`` (None: in memory, nothing to copy), one per version left behind, so
    that starting again and again after a failure does not fill the disk. Raises Conflict for a newer database,
    Unavailable where copy or migration fail.
    """
    found = user_version(connection)
    if found > plan.version:
        raise newer(found, plan)
    if found == plan.version:
        return
    if found == 0:
        _create(connection, plan)
        return
    if backups is not None:
        backups.mkdir(mode=0o700, exist_ok=True)
        # A disk that the copy filled would have no room for the migration itself, nor for who goes back.
        room.require(backups, _size(connection), what="the copy that must be made before a migration")
        copy = backups / f"before-schema-{plan.version}-from-{found}.db"
        try:
            copy_database(connection, copy)
        except (OSError, sqlite3.Error) as error:
            raise errors.Unavailable(
                f"the copy that must be made before a migration could not be written to {copy}: {error}; "
                "nothing was changed"
            ) from error
        logger.info("copied the database before its migration to %s", copy)
    _migrate(connection, plan, found)


def _create(connection: sqlite3.Connection, plan: Plan) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(plan.schema):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {plan.version}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def _migrate(connection: sqlite3.Connection, plan: Plan, found: int) -> None:
    # Has no effect inside a transaction, so it must come first; rebuilding a table needs it.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        connection.execute("BEGIN IMMEDIATE")
        for version, migration in enumerate(plan.migrations[found - FIRST_VERSION :], found + 1):
            logger.info("migrating the database to schema version %d: %s", version, migration.summary)
            migration.apply(connection)
        broken = connection.execute("PRAGMA foreign_key_check").fetchone()
        if broken is not None:
            raise sqlite3.IntegrityError(f"a row of {broken[0]} would refer to nothing in {broken[2]}")
        connection.execute(f"PRAGMA user_version = {plan.version}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise errors.Unavailable(
            f"the migration from schema version {found} to {plan.version} failed: {error}; nothing was changed"
        ) from error
    finally:
        if connection.in_transaction:
            connection.rollback()
        connection.execute("PRAGMA foreign_keys = ON")


def statements(script: str) -> list[str]:
    """Split a script into statements, so that it can run inside a transaction (``executescript`` commits first)."""
    found: list[str] = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement.strip())
            statement = ""
    if _without_comments(statement):
        raise ValueError(f"the script ends inside a statement: {statement.strip()[:80]}")
    return found


def describe(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the schema as name -> normalised SQL: equal for two databases whose tables, indexes and so on agree."""
    rows = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {name: _without_comments(sql) for name, sql in rows}


def _without_comments(sql: str) -> str:
    """Drop comments, quotes and spacing: what differs between typed SQL and what ALTER TABLE leaves behind."""
    bare = re.sub(r"--[^\n]*", " ", sql).replace('"', "")
    return re.sub(r"\s+", " ", re.sub(r"\s*([(),])\s*", r"\1", bare)).strip()
