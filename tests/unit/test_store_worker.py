"""Group commit and read transactions, without threads: every job runs at once, batches are made by hand."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import outcome
import pytest

from edgegc import errors
from edgegc.store.worker import Job, Reader, Writer

if TYPE_CHECKING:
    from pathlib import Path

Work = Callable[[sqlite3.Connection], Any]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (name TEXT PRIMARY KEY) STRICT")
    yield connection
    connection.close()


def insert(name: str) -> Work:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", (name,)).rowcount


def failing(name: str, error: Exception) -> Work:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (?)", (name,))
        raise error

    return job


def serve(lane: Writer | Reader, *works: Work) -> list[Job]:
    jobs = [Job(work) for work in works]
    answered: list[Job] = []
    lane.serve(jobs, answered.extend)
    assert answered == jobs
    return jobs


def error_of(job: Job) -> BaseException:
    assert isinstance(job.outcome, outcome.Error)
    return job.outcome.error


def names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM t")}


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode = code
    return error


def test_a_group_of_writes_is_one_transaction(connection: sqlite3.Connection) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    serve(Writer(connection), insert("a"), insert("b"), insert("c"))
    connection.set_trace_callback(None)
    assert statements.count("BEGIN IMMEDIATE") == statements.count("COMMIT") == 1
    assert names(connection) == {"a", "b", "c"}


def test_answers_come_after_the_commit(connection: sqlite3.Connection, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "test.db")
    seen: list[set[str]] = []
    Writer(connection).serve([Job(insert("a")), Job(insert("b"))], lambda jobs: seen.append(names(other)))
    other.close()
    assert seen == [{"a", "b"}]


def test_a_job_that_raises_fails_alone_and_leaves_nothing(connection: sqlite3.Connection) -> None:
    conflict = errors.Conflict("taken")
    first, second, third = serve(Writer(connection), insert("a"), failing("b", conflict), insert("c"))
    assert error_of(second) is conflict
    assert isinstance(first.outcome, outcome.Value)
    assert isinstance(third.outcome, outcome.Value)
    assert names(connection) == {"a", "c"}


def test_after_a_job_that_fails_half_way_the_others_are_done_again_and_once(
    connection: sqlite3.Connection,
) -> None:
    runs: list[str] = []

    def counted(name: str) -> Work:
        def job(connection: sqlite3.Connection) -> str:
            runs.append(name)
            connection.execute("INSERT INTO t VALUES (?)", (name,))
            return f"{name} {runs.count(name)}"

        return job

    writer = Writer(connection)
    first, second, third = serve(writer, counted("a"), failing("b", errors.Conflict("taken")), counted("c"))
    assert first.outcome == outcome.Value("a 2")
    assert isinstance(error_of(second), errors.Conflict)
    assert third.outcome == outcome.Value("c 1")
    assert names(connection) == {"a", "c"}
    assert (writer.commits, writer.jobs, writer.failed_jobs) == (1, 3, 1)


def test_a_job_that_fails_half_way_by_itself_is_not_run_again(connection: sqlite3.Connection) -> None:
    runs: list[str] = []

    def job(connection: sqlite3.Connection) -> None:
        runs.append("b")
        failing("b", errors.Conflict("taken"))(connection)

    (only,) = serve(Writer(connection), job)
    assert isinstance(error_of(only), errors.Conflict)
    assert runs == ["b"]
    assert names(connection) == set()
    assert not connection.in_transaction


def test_a_job_that_fails_before_it_changes_anything_costs_the_others_nothing(
    connection: sqlite3.Connection,
) -> None:
    def refused(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT * FROM t").fetchall()
        raise errors.Conflict("taken")

    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    _, second, _ = serve(Writer(connection), insert("a"), refused, insert("c"))
    connection.set_trace_callback(None)
    assert isinstance(error_of(second), errors.Conflict)
    assert names(connection) == {"a", "c"}
    assert [each for each in statements if each.split()[0] in ("SAVEPOINT", "ROLLBACK")] == []


def test_a_constraint_that_breaks_fails_its_job_alone(connection: sqlite3.Connection) -> None:
    _, second, _ = serve(Writer(connection), insert("a"), insert("a"), insert("c"))
    assert isinstance(error_of(second), sqlite3.IntegrityError)
    assert names(connection) == {"a", "c"}


@pytest.mark.parametrize("what", ["raises", "translates", "hides"])
def test_when_sqlite_rolls_the_whole_transaction_back_every_job_of_the_group_fails(
    connection: sqlite3.Connection, what: str
) -> None:
    def lose(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES ('b')")
        # What SQLITE_FULL and its like do on their own.
        connection.execute("ROLLBACK")
        if what == "raises":
            raise sqlite_error(sqlite3.SQLITE_FULL)
        if what == "translates":
            raise errors.Conflict("the job thinks it knows why")

    writer = Writer(connection)
    for job in serve(writer, insert("a"), lose, insert("c")):
        assert isinstance(error_of(job), errors.Unavailable)
    assert names(connection) == set()
    assert not connection.in_transaction
    assert writer.trouble is not None
    serve(writer, insert("d"))
    assert names(connection) == {"d"}
    assert writer.trouble is None


def test_waiters_of_a_lost_group_get_an_error_each(connection: sqlite3.Connection) -> None:
    jobs = serve(Writer(connection), insert("a"), lambda c: c.execute("ROLLBACK"))
    assert error_of(jobs[0]) is not error_of(jobs[1])


def test_a_full_disk_that_leaves_the_transaction_alone_fails_only_its_job(
    connection: sqlite3.Connection,
) -> None:
    _, second, _ = serve(
        Writer(connection), insert("a"), failing("b", sqlite_error(sqlite3.SQLITE_FULL)), insert("c")
    )
    unavailable = error_of(second)
    assert isinstance(unavailable, errors.Unavailable)
    assert unavailable.retry_after_s
    assert "full" in unavailable.message
    assert names(connection) == {"a", "c"}


def test_when_the_write_lock_is_held_by_another_program_the_group_fails_and_the_next_succeeds(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = Writer(connection)
    (job,) = serve(writer, insert("a"))
    other.close()
    assert "locked" in str(error_of(job))
    serve(writer, insert("b"))
    assert names(connection) == {"b"}


def test_a_damaged_database_takes_no_more_writes(connection: sqlite3.Connection) -> None:
    writer = Writer(connection)
    for job in serve(writer, insert("a"), failing("b", sqlite_error(sqlite3.SQLITE_CORRUPT))):
        assert "damaged" in str(error_of(job))
    (job,) = serve(writer, insert("c"))
    assert "damaged" in str(error_of(job))
    assert names(connection) == set()


def test_a_job_that_wants_to_be_alone_runs_outside_transactions_and_in_its_turn(
    connection: sqlite3.Connection,
) -> None:
    seen: list[tuple[bool, set[str]]] = []
    jobs = [
        Job(insert("a")),
        Job(lambda connection: seen.append((connection.in_transaction, names(connection))), alone=True),
        Job(insert("b")),
    ]
    Writer(connection).serve(jobs, lambda jobs: None)
    assert seen == [(False, {"a"})]
    assert names(connection) == {"a", "b"}


def test_a_read_is_one_snapshot_whatever_is_written_beside_it(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)

    def job(connection: sqlite3.Connection) -> tuple[set[str], int]:
        first = names(connection)
        other.execute("INSERT INTO t VALUES ('late')")
        return first, connection.execute("SELECT count(*) FROM t").fetchone()[0]

    (read,) = serve(Reader(connection), job)
    other.close()
    assert read.outcome == outcome.Value((set(), 0))
    assert not connection.in_transaction


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_read_past_its_deadline_is_interrupted_and_the_next_one_is_not(
    connection: sqlite3.Connection,
) -> None:
    reader = Reader(connection)
    slow = Job(lambda connection: connection.execute(ENDLESS).fetchone(), deadline=time.monotonic() + 0.05)
    quick = Job(names, deadline=time.monotonic() + 60)
    answered: list[list[Job]] = []
    reader.serve([slow, quick], lambda jobs: answered.append(list(jobs)))
    assert isinstance(error_of(slow), errors.Unavailable)
    assert quick.outcome == outcome.Value(set())
    assert reader.overdue_jobs == 1
    assert len(answered) == 2, "the quick one must not have been waited for"


def test_a_read_whose_deadline_passed_in_the_queue_is_not_run(connection: sqlite3.Connection) -> None:
    ran: list[bool] = []
    job = Job(lambda connection: ran.append(True), deadline=time.monotonic() - 1)
    Reader(connection).serve([job], lambda jobs: None)
    assert isinstance(error_of(job), errors.Unavailable)
    assert not ran


def test_a_read_that_was_abandoned_is_not_run(connection: sqlite3.Connection) -> None:
    ran: list[bool] = []
    job = Job(lambda connection: ran.append(True))
    job.abandoned = True
    Reader(connection).serve([job], lambda jobs: None)
    assert not ran


def test_a_read_that_fails_leaves_no_transaction_open(connection: sqlite3.Connection) -> None:
    (job,) = serve(Reader(connection), lambda connection: connection.execute("SELECT * FROM missing"))
    assert isinstance(error_of(job), sqlite3.OperationalError)
    assert not connection.in_transaction
