"""The database on the inline executor: contract, startup gate, backups."""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc import errors
from edgegc.store.database import MEMORY, Database, open_database
from edgegc.store.migrations import APPLICATION_ID, released_plan

if TYPE_CHECKING:
    from pathlib import Path


def add_tenant(name: str) -> object:
    def job(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO tenants VALUES (?, ?, 1)", (f"id-{name}", name))
        return name

    return job


def tenants(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM tenants ORDER BY name")]


def contents(directory: Path) -> dict[str, bytes]:
    """Return what must not change when a start is refused; the lock file is not part of it."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MEMORY if request.param == "memory" else tmp_path / "edgegc.db"


async def test_a_write_is_seen_by_the_next_read(path: Path) -> None:
    async with open_database(path, executor="inline") as database:
        assert await database.write(add_tenant("a")) == "a"
        assert await database.read(tenants) == ["a"]


async def test_writing_in_a_read_is_refused(path: Path) -> None:
    async with open_database(path, executor="inline") as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(add_tenant("a"))


async def test_foreign_keys_are_enforced_and_files_are_durable(tmp_path: Path) -> None:
    async with open_database(tmp_path / "edgegc.db", executor="inline") as database:
        pragmas = await database.write(
            lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in ("foreign_keys", "synchronous")]
        )
        assert pragmas == [1, 2], "2 is FULL: an answered write survives a power cut"
        assert await database.read(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"


async def test_the_observer_is_told_of_commits_only_and_before_the_writer_goes_on(path: Path) -> None:
    async with open_database(path, executor="inline") as database:
        seen: list[object] = []
        database.on_commit = seen.append
        await database.write(add_tenant("a"))
        assert seen == ["a"]
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(add_tenant("a"))
        assert seen == ["a"]


async def test_a_cancelled_caller_writes_nothing(path: Path) -> None:
    async with open_database(path, executor="inline") as database:
        with trio.CancelScope() as scope:
            scope.cancel()
            await database.write(add_tenant("a"))
        assert scope.cancelled_caught
        assert await database.read(tenants) == []


async def test_a_timeout_under_a_jumping_clock_does_not_cut_a_write(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_database(path, executor="inline") as database:
        with trio.fail_after(1):
            await database.write(add_tenant("a"))
        assert await database.read(tenants) == ["a"]


async def test_content_survives_closing(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline") as database:
        await database.write(add_tenant("a"))
    async with open_database(path, executor="inline") as database:
        assert await database.read(tenants) == ["a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_error_of_the_body_leaves_as_it_is(path: Path) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with open_database(path, executor="inline"):
            raise LookupError("mine")


# The startup gate


async def refused(path: Path, expected: type[errors.Error], match: str) -> None:
    before = contents(path.parent)
    with pytest.raises(expected, match=match):
        async with open_database(path, executor="inline"):
            pytest.fail("must not open")
    assert contents(path.parent) == before


async def test_a_directory_in_use_is_refused_naming_who_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline") as database:
        await database.write(add_tenant("a"))
        await refused(path, errors.Conflict, f"in use by process {os.getpid()}")
        assert await database.read(tenants) == ["a"]


async def test_a_missing_directory_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="no data directory"):
        async with open_database(tmp_path / "none" / "edgegc.db", executor="inline"):
            pytest.fail("must not open")


async def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline"):
        pass
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {released_plan().version + 1}")
    connection.close()
    await refused(path, errors.Conflict, "newer edgegc")


async def test_a_newer_schema_in_the_log_of_a_crash_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline"):
        pass
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {released_plan().version + 1}")
    for name in ("edgegc.db", "edgegc.db-wal"):
        (crashed / name).write_bytes((tmp_path / name).read_bytes())
    connection.close()
    before = contents(crashed)
    with pytest.raises(errors.Conflict, match="newer edgegc"):
        async with open_database(crashed / "edgegc.db", executor="inline"):
            pytest.fail("must not open")
    after = contents(crashed)
    # The index of the log is scratch: SQLite makes it for every reader and never trusts what it finds.
    after.pop("edgegc.db-shm", None)
    assert after == before


async def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    path.write_bytes(b"this is a text file, and not a short one\n" * 10)
    await refused(path, errors.Invalid, "damaged")


async def test_a_file_cut_short_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline"):
        pass
    os.truncate(path, path.stat().st_size // 2)
    await refused(path, errors.Invalid, "damaged")


async def test_a_file_with_a_spoilt_page_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline") as database:
        await database.write(add_tenant("a"))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))
    await refused(path, errors.Invalid, "damaged")


async def test_a_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    await refused(path, errors.Invalid, "another program")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 77")
    connection.close()
    await refused(path, errors.Invalid, "another program")


async def test_an_empty_file_left_by_a_start_that_died_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    path.touch()
    async with open_database(path, executor="inline") as database:
        assert await database.read(tenants) == []


async def test_the_file_says_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline"):
        pass
    assert int.from_bytes(path.read_bytes()[68:72], "big") == APPLICATION_ID


# Backups and checkpoints


async def test_a_backup_is_one_private_file_that_opens(tmp_path: Path) -> None:
    async with open_database(tmp_path / "edgegc.db", executor="inline") as database:
        await database.write(add_tenant("a"))
        await database.backup(tmp_path / "copy.db")
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy.db").rename(tmp_path / "elsewhere" / "edgegc.db")
    async with open_database(tmp_path / "elsewhere" / "edgegc.db", executor="inline") as database:
        assert await database.read(tenants) == ["a"]


async def test_a_backup_that_can_not_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    async with open_database(tmp_path / "edgegc.db", executor="inline") as database:
        with pytest.raises(errors.Unavailable, match="could not be written"):
            await database.backup(tmp_path / "missing" / "copy.db")


async def log_size(database: Database) -> int:
    return database.stats().wal_bytes


async def test_a_checkpoint_empties_the_log(tmp_path: Path) -> None:
    async with open_database(tmp_path / "edgegc.db", executor="inline") as database:
        await database.write(add_tenant("a"))
        assert await log_size(database) > 0
        checkpoint = await database.checkpoint()
        assert checkpoint.complete
        assert checkpoint.pages > 0
        assert await log_size(database) == 0
        assert await database.read(tenants) == ["a"]


async def test_the_writer_bounds_the_log_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_database(tmp_path / "edgegc.db", executor="inline") as database:
        monkeypatch.setattr(database, "_checkpoint_above", 100_000)
        largest = 0
        for number in range(60):
            await database.write(add_tenant(f"t{number}"))
            largest = max(largest, await log_size(database))
            monkeypatch.setattr(database, "_checkpoint_above", 100_000)
        assert largest <= 200_000
        assert database.stats().checkpoints > 0


async def test_verify_finds_nothing_in_a_healthy_file_and_rows_that_refer_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.db"
    async with open_database(path, executor="inline") as database:
        assert await database.verify() == []
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO signers VALUES ('s', 'no cluster', zeroblob(32), x'', 'active', 1, 0)")
    connection.commit()
    connection.close()
    async with open_database(path, executor="inline") as database:
        assert await database.verify() == ["a row of signers refers to nothing in clusters"]


async def test_statistics_count_what_happened(tmp_path: Path) -> None:
    async with open_database(tmp_path / "edgegc.db", executor="inline") as database:
        await database.write(add_tenant("a"))
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(add_tenant("a"))
        await database.read(tenants)
        stats = database.stats()
        assert (stats.writes, stats.failed_writes, stats.commits, stats.reads) == (2, 1, 2, 1)
        assert stats.database_bytes > 0
        assert stats.trouble is None
        await database.optimize()
