"""Restoring: checked first, all or nothing, versions and addresses ahead, nothing overwritten, killed at any step."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from edgegc import errors
from edgegc.control import restoring
from edgegc.model.message import rfc3339
from edgegc.store import backup_file, room
from edgegc.store.backup_file import BadBackup
from edgegc.store.database import open_database
from edgegc.store.gate import RESTORING_FILE, lock_data_directory, refuse_half_restored
from edgegc.store.migrations import APPLICATION_ID, released_plan
from edgegc.store.vault import MASTER_KEY_FILE
from tests.control_plane import MASTER, open_plane

NOW = 1_795_000_000
KEY = MASTER.hex().encode() + b"\n"
SCHEMA_1 = Path(__file__).parents[1] / "unit" / "schema_1.sql"


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def fill(data: Path, *names: str, **cluster: Any) -> None:
    """Make a data directory with one cluster and its nodes."""

    async def main() -> None:
        async with open_database(data / "edgegc.db") as database:
            plane = await open_plane(database)
            plane.cluster_id = (await plane.add_cluster(**cluster)).id
            for name in names:
                await plane.add_node(name)

    data.mkdir()
    trio.run(main)
    (data / MASTER_KEY_FILE).write_bytes(KEY)
    (data / MASTER_KEY_FILE).chmod(0o600)


def own_files(data: Path) -> dict[str, bytes]:
    """Give a data directory what a box has beside its database, and return it."""
    found = {name: name.encode() for name in restoring.STAYING}
    for name, content in found.items():
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(content)
    return found


def add_node(data: Path, name: str) -> str | None:
    """Make a node in the only cluster, and return its address."""

    async def main() -> str | None:
        async with open_database(data / "edgegc.db") as database:
            plane = await open_plane(database)
            [(cluster_id,)] = rows(data / "edgegc.db", "SELECT id FROM clusters")
            return (await plane.add_node(name, cluster_id=cluster_id)).overlay_ip

    return trio.run(main)


def effective(data: Path) -> dict[str, int]:
    """Return the effective version of every node."""

    async def main() -> dict[str, int]:
        async with open_database(data / "edgegc.db") as database:
            roll = (await open_plane(database)).control.roll
            [(cluster_id,)] = rows(data / "edgegc.db", "SELECT id FROM clusters")
            return {node_id: roll.effective(node_id) for node_id in roll.members(cluster_id)}

    return trio.run(main)


def write_backup(data: Path, path: Path, *, secrets: bool = True) -> None:
    database = (data / "edgegc.db").read_bytes()
    with backup_file.create(path) as writer:
        writer.add(backup_file.DATABASE, database, now=NOW)
        if secrets:
            writer.add(backup_file.MASTER_KEY, KEY, now=NOW)
            writer.add(backup_file.TLS_KEY, b"tls key", now=NOW)
            writer.add(backup_file.TLS_CERTIFICATE, b"tls certificate", now=NOW)
        writer.finish(edgegc="0.1.0", created_at=rfc3339(NOW), now=NOW)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("made") / "data"
    fill(data, "a", "b", "c", provide_lighthouse=True)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture
def backup(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "backup.tar"
    write_backup(data, path)
    return path


def test_every_effective_version_is_a_million_higher(data: Path, backup: Path, tmp_path: Path) -> None:
    before = effective(data)
    [(version,)] = rows(data / "edgegc.db", "SELECT version FROM clusters")
    done = restoring.restore(backup, tmp_path / "other", now=NOW)
    assert [each.version for each in done.clusters] == [version + 1_000_000]
    after = effective(tmp_path / "other")
    assert after.keys() == before.keys()
    assert set(after.values()) == {version + 1_000_000}


def test_addresses_given_out_last_are_left_behind(backup: Path, tmp_path: Path) -> None:
    restoring.restore(backup, tmp_path / "other", now=NOW)
    assert add_node(tmp_path / "other", "new") == "10.42.16.5/16"


def test_a_small_network_goes_on_giving_out_addresses_around_its_end(tmp_path: Path) -> None:
    data, other = tmp_path / "small", tmp_path / "other"
    fill(data, *"abcd", network_cidr="10.42.0.0/29")
    write_backup(data, tmp_path / "small.tar")
    restoring.restore(tmp_path / "small.tar", other, now=NOW)
    assert add_node(other, "e") == "10.42.0.6/29"


def test_an_uploaded_bundle_stays_active_in_a_higher_version_and_none_stays_none(tmp_path: Path) -> None:
    data, other = tmp_path / "uploaded", tmp_path / "other"
    fill(data, mode="uploaded")
    write_backup(data, tmp_path / "empty.tar")
    restoring.restore(tmp_path / "empty.tar", tmp_path / "empty", now=NOW)
    assert rows(tmp_path / "empty" / "edgegc.db", "SELECT wide_version FROM clusters") == [(0,)]

    with closing(sqlite3.connect(data / "edgegc.db")) as connection, connection:
        connection.execute("INSERT INTO bundle_bodies SELECT 1, id, 'digest', 1, x'00' FROM clusters")
        for version in (1, 2):
            connection.execute(
                "INSERT INTO bundles SELECT id, ?, 1, 'digest', 1, 0 FROM clusters", (version,)
            )
        connection.execute("UPDATE clusters SET version = 2, wide_version = 2")
    write_backup(data, tmp_path / "two.tar")
    restoring.restore(tmp_path / "two.tar", other, now=NOW)
    assert rows(other / "edgegc.db", "SELECT version, wide_version FROM clusters") == [(1_000_002,) * 2]
    assert rows(other / "edgegc.db", "SELECT version FROM bundles ORDER BY 1") == [(1,), (1_000_002,)]


def test_what_is_restored_is_private(backup: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    restoring.restore(backup, other, now=NOW)
    assert (other / "master.key").read_bytes() == KEY
    assert (other / "tls" / "key.pem").read_bytes() == b"tls key"
    files = [path for path in other.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.name for path in files} == {"edgegc.db", "master.key", "key.pem", "certificate.pem", "lock"}


def test_nothing_is_overwritten_unasked(data: Path, backup: Path) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    with pytest.raises(errors.Conflict, match="--force"):
        restoring.restore(backup, data, now=NOW)
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == before


def test_with_force_what_was_there_is_kept_beside_and_its_versions_are_passed(
    data: Path, backup: Path
) -> None:
    with closing(sqlite3.connect(data / "edgegc.db")) as connection, connection:
        connection.execute("UPDATE clusters SET version = 5000000, wide_version = 5000000")
    done = restoring.restore(backup, data, force=True, now=NOW)
    assert done.replaced is not None
    assert rows(done.replaced / "edgegc.db", "SELECT version FROM clusters") == [(5_000_000,)]
    assert [each.version for each in done.clusters] == [6_000_000]
    again = restoring.restore(backup, data, force=True, now=NOW)
    assert again.replaced not in (None, done.replaced)
    assert [each.version for each in again.clusters] == [7_000_000]


def test_without_room_nothing_is_touched(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(room, "LEFT_BYTES", 2**60)
        with pytest.raises(errors.Unavailable, match=r"restoring needs .*: make room"):
            restoring.restore(backup, tmp_path / "other", now=NOW)

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(restoring.clusters, "raise_all_versions", full)
    with pytest.raises(errors.Unavailable, match="disk is full; nothing was changed"):
        restoring.restore(backup, tmp_path / "other", now=NOW)
    assert {each.name for each in (tmp_path / "other").iterdir()} == {"lock"}


def test_a_directory_in_use_is_left_alone(data: Path, backup: Path) -> None:
    with lock_data_directory(data), pytest.raises(errors.Conflict, match="in use"):
        restoring.restore(backup, data, force=True, now=NOW)


@pytest.mark.parametrize("damage", ["key", "database", "foreign"])
def test_what_does_not_fit_together_is_refused_and_nothing_is_touched(
    damage: str, data: Path, tmp_path: Path
) -> None:
    other, key = tmp_path / "other", tmp_path / "some.key"
    if damage == "key":
        key.write_text("00" * 32)
    else:
        key.write_bytes(KEY)
    if damage == "database":
        with (data / "edgegc.db").open("r+b") as file:
            file.seek(4096 * 3 + 5)
            file.write(b"\xff" * 3000)
    if damage == "foreign":
        with closing(sqlite3.connect(data / "edgegc.db")) as connection, connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("DELETE FROM tenants")
    path = tmp_path / "odd.tar"
    write_backup(data, path)
    with pytest.raises(BadBackup):
        restoring.restore(path, other, master_key=key, now=NOW)
    assert {each.name for each in other.iterdir()} == {"lock"}


def test_without_secrets_the_key_is_asked_for_or_found_where_it_belongs(data: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "bare.tar", tmp_path / "other"
    write_backup(data, path, secrets=False)
    with pytest.raises(errors.Invalid, match="--master-key"):
        restoring.restore(path, other, now=NOW)
    done = restoring.restore(path, other, master_key=data / "master.key", now=NOW)
    assert not done.tls_key
    assert (other / "master.key").read_bytes() == KEY
    # In its own directory the key is there already.
    assert restoring.restore(path, data, force=True, now=NOW).replaced is not None
    assert (data / "master.key").read_bytes() == KEY


def test_a_bare_copy_of_the_database_can_be_put_back_and_leaves_its_box_what_nodes_have_pinned(
    data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "edgegc-20261123T103000Z.db"
    copy.write_bytes((data / "edgegc.db").read_bytes())
    pinned = own_files(data)
    done = restoring.restore(copy, data, force=True, now=NOW)
    assert done.clusters[0].nodes == 3
    assert done.tls_key
    assert {name: (data / name).read_bytes() for name in pinned} == pinned
    assert done.replaced is not None
    assert (done.replaced / "edgegc.db").exists()


def test_what_a_backup_holds_replaces_what_is_there_and_another_box_s_files_are_moved_aside(
    data: Path, tmp_path: Path
) -> None:
    complete, bare, other = tmp_path / "all.tar", tmp_path / "bare.tar", tmp_path / "other"
    write_backup(data, complete)
    write_backup(data, bare, secrets=False)
    own_files(data)
    restoring.restore(complete, data, force=True, now=NOW)
    assert not (data / "operator.token").exists()
    fill(other, "z")
    (other / MASTER_KEY_FILE).write_bytes(bytes(32).hex().encode() + b"\n")
    own_files(other)
    key = tmp_path / "some.key"
    key.write_bytes(KEY)
    done = restoring.restore(bare, other, master_key=key, force=True, now=NOW)
    assert not done.tls_key
    assert not (other / "tls" / "key.pem").exists()
    assert not (other / "operator.token").exists()


def test_a_copy_from_before_a_migration_is_migrated(tmp_path: Path) -> None:
    old = tmp_path / "before-schema-2-from-1.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(SCHEMA_1.read_text("utf-8"))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
    key = tmp_path / "some.key"
    key.write_bytes(KEY)
    restoring.restore(old, tmp_path / "other", master_key=key, now=NOW)
    assert rows(tmp_path / "other" / "edgegc.db", "PRAGMA user_version") == [(released_plan().version,)]
    assert not (tmp_path / "other" / "backups").exists()
    assert rows(old, "PRAGMA user_version") == [(1,)]


@pytest.mark.parametrize("secrets", [True, False])
@pytest.mark.parametrize("step", range(1, 40))
def test_cut_off_at_any_step_it_leaves_the_old_or_asks_to_be_run_again(
    step: int, secrets: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename and removal is a place to die; dying is an exception that nothing catches, with no cleaning up."""

    class PowerCut(BaseException):
        pass

    backup = tmp_path / "backup.tar"
    write_backup(data, backup, secrets=secrets)
    left = [step]
    path_type = type(data)

    def dying(function: Any) -> Any:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] <= 0:
                raise PowerCut
            return function(*arguments, **more)

        return wrapped

    before = (data / "edgegc.db").read_bytes()
    with monkeypatch.context() as patch:
        for name in ("rename", "mkdir", "touch", "unlink"):
            patch.setattr(path_type, name, dying(getattr(path_type, name)))
        patch.setattr(restoring, "fsync", dying(restoring.fsync))
        patch.setattr(restoring.shutil, "rmtree", lambda *_, **__: None)
        try:
            restoring.restore(backup, data, force=True, now=NOW)
            finished = True
        except PowerCut:
            finished = False
    if finished:
        return
    if not (data / RESTORING_FILE).exists():
        # Either nothing has happened yet, or all of it.
        refuse_half_restored(data)
        (version,) = rows(data / "edgegc.db", "SELECT version FROM clusters")[0]
        assert version > 1_000_000 or (data / "edgegc.db").read_bytes() == before
        assert (data / "master.key").read_bytes() == KEY
        return
    with pytest.raises(errors.Conflict, match="run the same"):
        refuse_half_restored(data)
    # Without --force: what is there is nobody's any more.
    done = restoring.restore(backup, data, now=NOW)
    assert done.clusters[0].version > 1_000_000
    refuse_half_restored(data)
    kept = [path for path in data.glob("replaced-*/edgegc.db") if path.read_bytes() == before]
    assert kept, "what was replaced is kept"
