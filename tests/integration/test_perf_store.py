"""The store as the laboratory measures it: real files, real threads; seconds are small, and what is measured is not judged."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.errors import Error
from edgegc.perf import page_cache, process, store, store_content, store_process, store_rig, timer
from edgegc.perf.histogram import Histogram
from edgegc.perf.store_child import Child
from edgegc.perf.store_plan import (
    Arrivals,
    Checkpoints,
    Clients,
    Done,
    Failed,
    Growth,
    OwnCheckpoints,
    PageCache,
    Prepare,
    Series,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgegc.perf.store_plan import Work

KIB = 1024
A_MOMENT_S = 0.05


@asynccontextmanager
async def a_child(directory: Path, *, nodes: int = 60, bundles: int = 0) -> AsyncIterator[Child]:
    async with Child(directory / "data") as child:
        await done(child, Prepare(nodes=nodes, bundles=bundles, bundle_bytes=200 * KIB))
        yield child


async def done(child: Child, work: Work) -> Done:
    answer = await child.answer(work)
    assert isinstance(answer, Done), answer
    return answer


def rows(directory: Path, query: str) -> int:
    path, _ = store_rig.files(directory / "data")
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


async def test_what_is_measured_is_a_database_with_nodes_certificates_duties_and_routes(
    tmp_path: Path,
) -> None:
    async with a_child(tmp_path, nodes=130, bundles=2):
        assert rows(tmp_path, "SELECT count(*) FROM nodes WHERE own_version > 0") == 130
        assert (
            rows(tmp_path, "SELECT count(*) FROM certificates c JOIN nodes n ON n.overlay_ip = c.overlay_ip")
            == 130
        )
        assert (
            rows(tmp_path, "SELECT count(*) FROM nodes WHERE is_lighthouse OR is_relay") == store_rig.DUTIES
        )
        assert rows(tmp_path, "SELECT count(*) FROM routes") == store_content.ROUTES
        assert rows(tmp_path, "SELECT count(*) FROM bundles") == 2
        assert rows(tmp_path, "SELECT length(body) FROM bundle_bodies") == 200 * KIB


@pytest.mark.parametrize("operation", sorted(store.OPERATIONS))
async def test_every_operation_can_be_done_again_and_again(tmp_path: Path, operation: str) -> None:
    async with a_child(tmp_path, bundles=1) as child:
        size = 200 * KIB if operation == "bundle_insert" else 2
        found = await done(child, Series(operation=operation, size=size, duration_s=10, at_most=5))
    assert found.load is not None
    (ask,) = found.load.asks
    assert ask.requests == 5
    assert ask.errors == {}
    assert Histogram.from_counts(ask.latency).count == 5


async def test_writes_write_and_what_fails_is_taken_back(tmp_path: Path) -> None:
    async with a_child(tmp_path) as child:
        await done(child, Series(operation="node_insert", size=10, duration_s=10, at_most=3))
        # One more of each before it is measured.
        assert rows(tmp_path, "SELECT count(*) FROM nodes") == 60 + 4 * 10
        await done(child, Series(operation="several_fail", duration_s=10, at_most=3))
        assert rows(tmp_path, "SELECT count(*) FROM nodes") == 60 + 4 * 10
        await done(child, Series(operation="several", duration_s=10, at_most=3))
        assert rows(tmp_path, "SELECT count(*) FROM nodes") == 60 + 4 * 10 + 4


async def test_no_more_bundles_are_kept_than_a_server_keeps(tmp_path: Path) -> None:
    async with a_child(tmp_path) as child:
        await done(child, Series(operation="bundle_insert", size=KIB, duration_s=10, at_most=15))
        assert rows(tmp_path, "SELECT count(*) FROM bundles") == store.KEPT_BUNDLES
        assert rows(tmp_path, "SELECT count(*) FROM bundle_bodies WHERE complete = 1") == store.KEPT_BUNDLES


async def test_clients_share_commits(tmp_path: Path) -> None:
    async with a_child(tmp_path) as child:
        found = await done(
            child, Clients(mix={"one_row": 1, "versions": 1}, clients=8, duration_s=A_MOMENT_S * 4)
        )
    assert found.load is not None
    assert [ask.name for ask in found.load.asks] == ["read", "write"]
    assert all(ask.requests and not ask.errors for ask in found.load.asks)
    assert found.figures["writes_per_commit"].value > 1


async def test_arrivals_come_as_often_as_they_were_to(tmp_path: Path) -> None:
    async with a_child(tmp_path) as child:
        found = await done(child, Arrivals(mix={"versions": 1}, rate_per_s=400, duration_s=1.0, seed=1))
    assert found.load is not None
    # Poisson: 400 ± 5 standard deviations.
    assert 300 < found.load.asks[0].requests < 500


async def test_a_stalled_store_is_in_the_latency_of_all_that_were_due_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = []

    def stalling(rig: store_rig.Rig, size: int) -> store.Ready:
        def job(_connection: sqlite3.Connection) -> None:
            if len(stalled) == 20:
                time.sleep(0.2)
            stalled.append(None)

        return lambda: rig.database.read(job)

    monkeypatch.setitem(store.OPERATIONS, "versions", stalling)
    async with a_child(tmp_path) as child:
        found = await done(child, Arrivals(mix={"versions": 1}, rate_per_s=200, duration_s=0.8, seed=2))
    assert found.load is not None
    latency = Histogram.from_counts(found.load.asks[0].latency)
    # 40 of 160 were due while nothing was answered, and waited for half of it on the average: not one of them.
    assert latency.share_within(20_000_000) < 0.95


async def test_checkpoints_empty_the_log_and_tell_who_waited(tmp_path: Path) -> None:
    async with a_child(tmp_path) as child:
        found = await done(child, Checkpoints(wal_bytes=300 * KIB, repeat=2))
    assert found.load is not None
    assert found.load.asks[0].requests == 2
    assert len(found.marks) == 2
    assert found.figures["pages"].value >= 300 / 4 * 0.9
    assert found.figures["incomplete"].value == 0
    assert found.figures["longest_write_beside"].value > 0
    assert found.figures["usual_read_p99"].value > 0


async def test_the_writers_own_checkpoints_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegc.store.database.WAL_LIMIT_BYTES", 256 * KIB)
    async with a_child(tmp_path) as child:
        found = await done(child, OwnCheckpoints(clients=4, wanted=2, at_most_s=30))
    assert found.figures["checkpoints"].value >= 2
    assert found.figures["writes_per_checkpoint"].value > 1
    assert found.figures["longest_write_met"].value > 0
    assert len(found.marks) >= 2


@pytest.mark.parametrize(("what", "size"), [("node", 1), ("bundle", 100 * KIB), ("reports", 1)])
async def test_growth_is_told_for_each(tmp_path: Path, what: str, size: int) -> None:
    async with a_child(tmp_path) as child:
        found = await done(child, Growth(what=what, count=10, size=size))  # type: ignore[arg-type]
    grown = found.figures["file_bytes_each"].value
    if what == "bundle":
        assert 100 * KIB <= grown < 130 * KIB
    if what == "node":
        assert 500 < grown < 10 * KIB


async def test_cold_reads_come_from_the_disk_or_are_refused(tmp_path: Path) -> None:
    async with a_child(tmp_path, nodes=300) as child:
        hot = await done(child, PageCache(state="hot", rounds=1, reads=20))
        assert hot.load is not None
        assert hot.load.asks[0].requests == 20
        reopened = await done(child, PageCache(state="reopened", rounds=2, reads=5))
        assert reopened.load is not None
        assert reopened.load.asks[0].requests == 10
        cold = await child.answer(PageCache(state="cold", rounds=1, reads=20))
        if isinstance(cold, Failed):
            assert cold.unavailable
            assert "memory" in cold.sentence
        else:
            assert cold.figures["still_in_memory"].value < 5


async def test_work_before_there_is_a_database_is_refused(tmp_path: Path) -> None:
    async with Child(tmp_path / "data") as child:
        answer = await child.answer(Series(operation="versions", duration_s=1, at_most=1))
    assert isinstance(answer, Failed)
    assert not answer.unavailable


async def test_the_store_is_measured_in_a_process_that_goes_with_its_files(tmp_path: Path) -> None:
    async with store_process.running(tmp_path) as running:
        await running.do(Prepare(nodes=30))
        found = await running.do(Series(operation="node_by_id", duration_s=10, at_most=3))
        assert found.load is not None
        assert found.load.asks[0].requests == 3
        assert running.pid in running.pids()
        assert running.pid != os.getpid()
        assert running.database_bytes() > 0
    assert not process.is_alive(running.pid)
    assert os.listdir(tmp_path) == []


async def test_a_process_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    async with store_process.running(tmp_path) as running:
        await running.do(Prepare(nodes=1))
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(Error, match="broke"):
            await running.do(Series(operation="versions", duration_s=10, at_most=3))


async def test_what_was_just_read_is_in_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(1_000_000))
    path.read_bytes()
    held = page_cache.held(path)
    assert held.total_bytes == 1_000_000
    assert held.resident_percent == 100
    assert page_cache.drop([path, tmp_path / "gone"]).resident_bytes in range(1_000_001)
    assert page_cache.held(tmp_path / "file").total_bytes == 1_000_000


async def test_a_timer_never_wakes_early(tmp_path: Path) -> None:
    with timer.opened() as clock, trio.fail_after(10):
        for distance_ns in (0, 50_000, 300_000, 2_500_000):
            due = time.monotonic_ns() + distance_ns
            await clock.until(due)
            assert time.monotonic_ns() >= due
