"""Creating and migrating: two ways, one schema; a copy first; all or nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgegc import errors
from edgegc.store import room
from edgegc.store.database import MEMORY, open_database
from edgegc.store.migrations import (
    FIRST_VERSION,
    Migration,
    Plan,
    bring_up_to_date,
    describe,
    released_plan,
    statements,
    user_version,
)

FIRST_SCHEMA = Path(__file__).with_name("schema_1.sql")
"""A copy of schema.sql as it was at version 1, to be made by whoever appends the first migration."""

# A synthetic history of three versions.
SCHEMA_1 = """
CREATE TABLE parents (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE children (id TEXT PRIMARY KEY, parent TEXT NOT NULL REFERENCES parents (id)) STRICT;
"""
SCHEMA_3 = """
-- Grown since version 1.
CREATE TABLE parents (id TEXT PRIMARY KEY, name TEXT) STRICT;
CREATE TABLE children (
    id     TEXT PRIMARY KEY,
    parent TEXT NOT NULL REFERENCES parents (id) ON DELETE CASCADE -- was: no action
) STRICT;
CREATE INDEX children_parent ON children (parent);
"""


def add_name(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE parents ADD COLUMN name TEXT")


def rebuild_children(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE new_children "
        "(id TEXT PRIMARY KEY, parent TEXT NOT NULL REFERENCES parents (id) ON DELETE CASCADE) STRICT"
    )
    connection.execute("INSERT INTO new_children SELECT id, parent FROM children")
    connection.execute("DROP TABLE children")
    connection.execute("ALTER TABLE new_children RENAME TO children")
    connection.execute("CREATE INDEX children_parent ON children (parent)")


VERSION_1 = Plan(SCHEMA_1, ())
VERSION_3 = Plan(SCHEMA_3, (Migration("names", add_name), Migration("cascade", rebuild_children)))


def memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def test_creating_and_migrating_end_in_the_same_schema_in_a_synthetic_history() -> None:
    created, migrated = memory(), memory()
    bring_up_to_date(created, VERSION_3, backups=None)
    bring_up_to_date(migrated, VERSION_1, backups=None)
    bring_up_to_date(migrated, VERSION_3, backups=None)
    assert user_version(created) == user_version(migrated) == 3
    assert describe(created) == describe(migrated)
    created.close()
    migrated.close()


def test_creating_and_migrating_end_in_the_same_schema() -> None:
    plan = released_plan()
    first = FIRST_SCHEMA.read_text() if plan.migrations else plan.schema
    created, migrated = memory(), memory()
    bring_up_to_date(created, plan, backups=None)
    bring_up_to_date(migrated, Plan(first, ()), backups=None)
    assert user_version(migrated) == FIRST_VERSION
    bring_up_to_date(migrated, plan, backups=None)
    assert describe(created) == describe(migrated)
    created.close()
    migrated.close()


def filled(connection: sqlite3.Connection, table: str, **values: object) -> None:
    """Add a row, with something in each column that must have a value and is given none."""
    stands_for = {"TEXT": "x", "INTEGER": 1, "BLOB": bytes(32)}
    for _, name, kind, required, default, key in connection.execute(f"PRAGMA table_info ({table})"):
        if (required or key) and default is None:
            values.setdefault(name, stands_for[kind])
    connection.execute(
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
        [*values.values()],
    )


def test_what_the_first_version_knew_of_nodes_and_certificates_is_there_after_all_migrations() -> None:
    connection = memory()
    bring_up_to_date(connection, Plan(FIRST_SCHEMA.read_text(), ()), backups=None)
    filled(connection, "tenants")
    filled(connection, "clusters", tenant_id="x", mode="managed")
    filled(connection, "authorities", cluster_id="x", phase="active")
    for node_id, last_seen_at in (("a", 7), ("b", None)):
        filled(
            connection,
            "nodes",
            id=node_id,
            cluster_id="x",
            name=node_id,
            role="member",
            last_seen_at=last_seen_at,
        )
        for state in ("current", "superseded", "superseded"):
            number = connection.execute("SELECT count(*) FROM certificates").fetchone()[0]
            filled(
                connection,
                "certificates",
                id=str(number),
                node_id=node_id,
                fingerprint=f"f{number}",
                state=state,
                renew_at=number,
            )
    bring_up_to_date(connection, released_plan(), backups=None)
    assert connection.execute("SELECT * FROM last_seen").fetchall() == [("a", 7)]
    assert connection.execute(
        "SELECT node_id, fingerprint, state, renew_at FROM certificates ORDER BY fingerprint"
    ).fetchall() == [
        ("a", "f0", "current", 0),
        ("a", "f1", "superseded", 1),
        ("a", "f2", "superseded", 2),
        ("b", "f3", "current", 3),
        ("b", "f4", "superseded", 4),
        ("b", "f5", "superseded", 5),
    ]
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE certificates SET state = 'current' WHERE fingerprint = 'f1'")
    connection.close()


def test_the_comparison_sees_a_difference() -> None:
    one, other = memory(), memory()
    one.execute("CREATE TABLE t (a TEXT, b TEXT)")
    other.execute("CREATE TABLE t (a TEXT)")
    assert describe(one) != describe(other)
    other.execute('ALTER TABLE t ADD COLUMN   "b" TEXT')
    assert describe(one) == describe(other)
    one.close()
    other.close()


async def test_a_migration_keeps_the_rows_and_leaves_a_copy_of_before(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline", plan=VERSION_1) as database:
        await database.write(lambda c: c.execute("INSERT INTO parents VALUES ('p')") and None)
        await database.write(lambda c: c.execute("INSERT INTO children VALUES ('c', 'p')") and None)
    async with open_database(path, executor="inline", plan=VERSION_3) as database:
        rows = await database.read(
            lambda c: c.execute("SELECT * FROM children JOIN parents ON parent = parents.id").fetchall()
        )
        assert rows == [("c", "p", "p", None)]
        # Foreign keys are back on.
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(lambda c: c.execute("INSERT INTO children VALUES ('d', 'none')") and None)
    (copy,) = (tmp_path / "backups").iterdir()
    assert copy.name == "before-schema-3-from-1.db"
    old = sqlite3.connect(copy)
    assert user_version(old) == 1
    assert old.execute("SELECT * FROM parents").fetchall() == [("p",)]
    old.close()


async def test_a_disk_that_the_copy_would_fill_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline", plan=VERSION_1):
        pass
    monkeypatch.setattr(room, "LEFT_BYTES", 2**60)
    with pytest.raises(errors.Unavailable, match=r"before a migration needs .*: make room"):
        async with open_database(path, executor="inline", plan=VERSION_3):
            pytest.fail("must not open")
    assert list((tmp_path / "backups").iterdir()) == []
    async with open_database(path, executor="inline", plan=VERSION_1):
        pass


async def test_a_migration_that_fails_changes_nothing_and_starting_again_keeps_one_copy(
    tmp_path: Path,
) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE children")
        connection.execute("INSERT INTO missing VALUES (1)")

    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline", plan=VERSION_1) as database:
        await database.write(lambda c: c.execute("INSERT INTO parents VALUES ('p')") and None)
    broken = Plan(SCHEMA_3, (Migration("names", add_name), Migration("broken", fail)))
    for _ in range(2):
        with pytest.raises(errors.Unavailable, match="missing; nothing was changed"):
            async with open_database(path, executor="inline", plan=broken):
                pytest.fail("must not open")
        assert len(list((tmp_path / "backups").iterdir())) == 1
    async with open_database(path, executor="inline", plan=VERSION_1) as database:
        assert await database.read(lambda c: c.execute("SELECT * FROM parents").fetchall()) == [("p",)]


async def test_a_migration_that_would_leave_rows_that_refer_to_nothing_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline", plan=VERSION_1) as database:
        await database.write(lambda c: c.execute("INSERT INTO parents VALUES ('p')") and None)
        await database.write(lambda c: c.execute("INSERT INTO children VALUES ('c', 'p')") and None)
    careless = Plan(SCHEMA_3, (Migration("careless", lambda c: c.execute("DELETE FROM parents") and None),))
    with pytest.raises(errors.Unavailable, match="refer to nothing"):
        async with open_database(path, executor="inline", plan=careless):
            pytest.fail("must not open")


async def test_without_the_copy_there_is_no_migration(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline", plan=VERSION_1):
        pass
    (tmp_path / "backups" / "before-schema-3-from-1.db").mkdir(parents=True)
    with pytest.raises(errors.Unavailable, match="nothing was changed"):
        async with open_database(path, executor="inline", plan=VERSION_3):
            pytest.fail("must not open")
    async with open_database(path, executor="inline", plan=VERSION_1):
        pass


async def test_a_schema_that_fails_half_way_leaves_an_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    with pytest.raises(errors.Unavailable):
        async with open_database(
            path, executor="inline", plan=Plan("CREATE TABLE a (b); CREATE TABLE a (b);", ())
        ):
            pytest.fail("must not open")
    async with open_database(path, executor="inline", plan=VERSION_1) as database:
        assert await database.read(lambda c: c.execute("SELECT count(*) FROM parents").fetchone()) == (0,)


async def test_every_table_is_strict() -> None:
    async with open_database(MEMORY, executor="inline") as database:
        loose = await database.read(
            lambda c: c.execute(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
        )
        assert loose == []


async def test_every_foreign_key_has_an_index_that_deletes_can_use() -> None:
    """Without one a delete in the parent reads the whole child table."""
    async with open_database(MEMORY, executor="inline") as database:
        uncovered = await database.read(
            lambda c: c.execute(
                """
                SELECT t.name, k."from" FROM pragma_table_list AS t, pragma_foreign_key_list(t.name) AS k
                WHERE t.schema = 'main' AND NOT EXISTS (
                    SELECT 1 FROM pragma_index_list(t.name) AS i, pragma_index_info(i.name) AS c
                    WHERE c.seqno = 0 AND c.name = k."from"
                )
                """
            ).fetchall()
        )
        assert uncovered == []


def test_scripts_are_split_at_statements_not_at_semicolons() -> None:
    script = "CREATE TABLE a (b TEXT DEFAULT ';'); -- c;\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\nSELECT 1;\nEND;\n"
    connection = memory()
    for statement in statements(script):
        connection.execute(statement)
    assert len(describe(connection)) == 2
    connection.close()
    with pytest.raises(ValueError, match="inside a statement"):
        statements("CREATE TABLE a (b")
