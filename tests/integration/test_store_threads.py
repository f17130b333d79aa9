"""The database on its threads: group commit, order, bounds, cancellation, crashes, closing."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc import errors
from edgegc.store import executor
from edgegc.store.database import Database, StoreCrashed, open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SAFETY_S = 60.0
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def insert(name: str) -> Callable[[sqlite3.Connection], str]:
    def job(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO tenants VALUES (?, ?, 1)", (name, name))
        return name

    return job


def names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM tenants")}


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(SAFETY_S):
        while not condition():
            await trio.sleep(0.001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edgegc.db"


async def test_writes_of_one_pass_of_the_loop_share_a_commit(path: Path) -> None:
    rounds, writers = 20, 30
    async with open_database(path) as database:
        before = database.stats().commits
        for number in range(rounds):
            async with trio.open_nursery() as nursery:
                for writer in range(writers):
                    nursery.start_soon(database.write, insert(f"{number}-{writer}"))
        # Were the thread woken by the first one of each round, it would commit that one alone: twice as many. Now and then
        # the machine lets it run in between all the same.
        assert database.stats().commits - before <= rounds * 3 // 2
        assert len(await database.read(names)) == rounds * writers


@asynccontextmanager
async def held_writer(database: Database) -> AsyncIterator[None]:
    """Keep the writer's thread in a job for the length of the block, so that what is submitted waits."""
    running, release = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        running.set()
        release.wait(SAFETY_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, hold)
        try:
            await until(running.is_set)
            yield
        finally:
            release.set()


async def test_who_was_just_answered_is_back_in_time_for_the_commit_of_those_who_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that even a busy machine comes back in time.
    monkeypatch.setattr(executor, "PATIENCE", 1e9)
    monkeypatch.setattr(executor, "LONGEST_PATIENCE_S", 1.0)
    running, release = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        running.set()
        release.wait(SAFETY_S)

    async with open_database(path) as database:
        before = database.stats().commits

        async def one_after_another() -> None:
            await database.write(hold)
            await database.write(insert("came back"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_after_another)
            await until(running.is_set)
            nursery.start_soon(database.write, insert("waited"))
            await until(lambda: database.stats().write_queue == 1)
            release.set()
        assert database.stats().commits - before == 2
        assert await database.read(names) == {"came back", "waited"}


async def test_many_writers_share_commits_and_lose_nothing(path: Path) -> None:
    async with open_database(path) as database:

        async def client(number: int) -> None:
            for turn in range(20):
                assert await database.write(insert(f"{number}-{turn}")) == f"{number}-{turn}"

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(client, number)
        assert len(await database.read(names)) == 1000
        assert database.stats().commits < 500


async def test_the_observer_sees_commits_in_order_before_any_writer_goes_on(path: Path) -> None:
    async with open_database(path) as database:
        observed: list[object] = []
        resumed: list[str] = []
        database.on_commit = observed.append

        async def client(name: str) -> None:
            await database.write(insert(name))
            assert len(observed) == 21, (
                "the whole group must have been observed before its first writer goes on"
            )
            resumed.append(name)

        async with trio.open_nursery() as nursery, held_writer(database):
            for number in range(20):
                nursery.start_soon(client, f"{number}")
                await until(lambda number=number: database.stats().write_queue == number + 1)
        assert observed == [None, *(f"{number}" for number in range(20))]
        assert sorted(resumed) == sorted(observed[1:])


async def test_a_job_that_fails_in_a_group_fails_alone(path: Path) -> None:
    async with open_database(path) as database:
        await database.write(insert("taken"))
        outcomes: dict[str, str] = {}

        async def client(name: str) -> None:
            try:
                await database.write(insert(name))
                outcomes[name] = "written"
            except sqlite3.IntegrityError:
                outcomes[name] = "refused"

        async with trio.open_nursery() as nursery, held_writer(database):
            for name in ("a", "taken", "b"):
                nursery.start_soon(client, name)
            await until(lambda: database.stats().write_queue == 3)
        assert outcomes == {"a": "written", "taken": "refused", "b": "written"}
        assert await database.read(names) == {"taken", "a", "b"}


async def test_a_full_queue_refuses_at_once_and_recovers(path: Path) -> None:
    async with open_database(path, queue_size=3) as database:
        async with trio.open_nursery() as nursery, held_writer(database):
            for name in "abc":
                nursery.start_soon(database.write, insert(name))
            await until(lambda: database.stats().write_queue == 3)
            with pytest.raises(errors.Unavailable) as refused:
                await database.write(insert("d"))
            assert refused.value.retry_after_s == 1
            assert await database.read(names) == set(), "reads go on"
        assert await database.read(names) == {"a", "b", "c"}
        assert database.stats().refused_writes == 1


async def test_a_write_that_was_queued_is_finished_though_its_caller_is_cancelled(path: Path) -> None:
    async with open_database(path) as database:
        returned: list[str] = []
        async with trio.open_nursery() as nursery, held_writer(database):
            scope = trio.CancelScope()

            async def client() -> None:
                with scope:
                    returned.append(await database.write(insert("a")))
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(client)
            await until(lambda: database.stats().write_queue == 1)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert not returned
        assert scope.cancelled_caught
        assert returned == ["a"], "the answer of a write that was made is never thrown away"
        assert await database.read(names) == {"a"}


async def test_a_caller_that_is_already_cancelled_queues_nothing(path: Path) -> None:
    async with open_database(path) as database:
        with trio.CancelScope() as scope:
            scope.cancel()
            await database.write(insert("a"))
        assert database.stats().writes == 0


async def test_a_cancelled_read_is_interrupted(path: Path) -> None:
    async with open_database(path) as database:
        with trio.fail_after(SAFETY_S):
            with trio.move_on_after(0.05) as scope:
                await database.read(lambda c: c.execute(ENDLESS).fetchone(), deadline_s=10 * SAFETY_S)
            assert scope.cancelled_caught
            assert await database.read(names) == set()


async def test_a_read_past_its_deadline_is_unavailable_and_harms_nobody(path: Path) -> None:
    async with open_database(path) as database:
        with trio.fail_after(SAFETY_S), pytest.raises(errors.Unavailable):
            await database.read(lambda c: c.execute(ENDLESS).fetchone(), deadline_s=0.05)
        assert await database.read(names) == set()
        assert database.stats().overdue_reads == 1


async def test_reads_go_on_while_a_write_takes_its_time(path: Path) -> None:
    async with open_database(path) as database, held_writer(database):
        assert await database.read(names) == set()


async def test_backup_and_checkpoint_run_beside_writes(path: Path, tmp_path: Path) -> None:
    async with open_database(path) as database:
        stop = False

        async def client(number: int) -> None:
            turn = 0
            while not stop:
                await database.write(insert(f"{number}-{turn}"))
                turn += 1

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(client, number)
            for turn in range(5):
                await database.backup(tmp_path / f"copy-{turn}.db")
                await database.checkpoint()
            stop = True
        assert await database.verify() == []
        copy = sqlite3.connect(tmp_path / "copy-4.db")
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert names(copy) <= await database.read(names)
        copy.close()


async def test_a_cancelled_backup_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    async with open_database(path) as database:
        with trio.CancelScope() as scope:
            scope.cancel()
            await database.backup(tmp_path / "copy.db")
        assert scope.cancelled_caught
    assert sorted(os.listdir(tmp_path)) == ["edgegc.db", "lock"]


async def test_closing_runs_what_is_queued_and_refuses_what_comes_later(path: Path) -> None:
    async with trio.open_nursery() as nursery:
        async with open_database(path) as database, held_writer(database):
            nursery.start_soon(database.write, insert("a"))
            await until(lambda: database.stats().write_queue == 1)
        with pytest.raises(errors.Unavailable):
            await database.write(insert("late"))
        with pytest.raises(errors.Unavailable):
            await database.read(names)
    async with open_database(path) as database:
        assert await database.read(names) == {"a"}


async def test_closing_interrupts_reads(path: Path) -> None:
    outcomes: list[BaseException] = []

    async def client(database: Database) -> None:
        try:
            await database.read(lambda c: c.execute(ENDLESS).fetchone(), deadline_s=10 * SAFETY_S)
        except errors.Unavailable as error:
            outcomes.append(error)

    with trio.fail_after(SAFETY_S):
        async with trio.open_nursery() as nursery, open_database(path) as database:
            nursery.start_soon(client, database)
            await until(lambda: database.stats().reads == 1)
    assert len(outcomes) == 1


async def test_closing_leaves_no_log_and_no_thread(path: Path, tmp_path: Path) -> None:
    async with open_database(path) as database:
        await database.write(insert("a"))
        assert any(thread.name == "edgegc-writer" for thread in threading.enumerate())
    assert not any(thread.name.startswith("edgegc-") for thread in threading.enumerate())
    assert sorted(os.listdir(tmp_path)) == ["edgegc.db", "lock"]


async def test_a_thread_that_dies_ends_the_daemon_and_nobody_waits_for_ever(path: Path) -> None:
    def die(connection: sqlite3.Connection) -> None:
        raise SystemExit("not an Exception: not the job's failure")

    outcomes: list[BaseException] = []

    async def client(database: Database) -> None:
        try:
            await database.write(die)
        except errors.Unavailable as error:
            outcomes.append(error)

    async def serve() -> None:
        async with open_database(path) as database, trio.open_nursery() as nursery:
            nursery.start_soon(client, database)
            await trio.sleep_forever()

    with trio.fail_after(SAFETY_S), pytest.raises(StoreCrashed):
        await serve()
    assert len(outcomes) == 1


async def test_an_observer_that_fails_ends_the_daemon_but_the_write_was_made(path: Path) -> None:
    def observe(result: object) -> None:
        raise RuntimeError("the roll can't follow")

    async def serve() -> None:
        async with open_database(path) as database:
            database.on_commit = observe
            await database.write(insert("a"))
            await trio.sleep_forever()

    with trio.fail_after(SAFETY_S), pytest.raises(StoreCrashed) as crashed:
        await serve()
    assert isinstance(crashed.value.__cause__, RuntimeError)
    async with open_database(path) as database:
        assert await database.read(names) == {"a"}
