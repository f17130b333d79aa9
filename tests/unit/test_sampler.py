"""What is sampled, what is forgotten, and which budgets say a sentence. Real processes, a made-up board."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from edgegc.control.health import Health
from edgegc.model.lighthouse import LighthouseStatus
from edgegc.model.series import Series
from edgegc.sampler import MIB, Sampler, memory_short
from edgegc.settings import Budgets
from edgegc.store.database import DatabaseStats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENEROUS: dict[str, Any] = {"daemon_rss_bytes": 2**40, "disk_free_bytes": 1}


def database(**changes: Any) -> DatabaseStats:
    counters = dict.fromkeys(DatabaseStats.__struct_fields__, 0) | {"trouble": None}
    return DatabaseStats(**(counters | changes))


def lighthouse(pid: int | None, cluster_id: str = "c1") -> LighthouseStatus:
    return LighthouseStatus(
        cluster_id=cluster_id,
        name="home",
        state="running",
        pid=pid,
        overlay_ip="10.42.0.1",
        port=4242,
        version_running=1,
        version_desired=1,
        restarts=0,
        uptime_s=1.0,
        rss_bytes=None,
        cpu_percent=None,
        fds=None,
        last_error=None,
        log_tail=(),
    )


class Box:
    """A sampler with everything around it."""

    def __init__(self, data_dir: Path, **budgets: Any) -> None:
        self.series = Series(capacity=720)
        self.health = Health()
        self.lighthouses: list[LighthouseStatus] = []
        self.stats = database()
        self.at = 1_700_000_000
        self.sampler = Sampler(
            series=self.series,
            health=self.health,
            lighthouses=lambda: self.lighthouses,
            database=lambda: self.stats,
            data_dir=data_dir,
            budgets=Budgets(**(GENEROUS | budgets)),
        )

    def sample(self, **readings: float) -> None:
        self.at += 5
        statuses = self.sampler.subjects()
        self.sampler.record(self.at, statuses, self.sampler.measure(statuses) | readings)

    @property
    def check(self) -> str:
        return self.health.report().checks["sampler"]

    def names(self) -> set[str]:
        return set(self.series.window(since=0, step_s=1))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_two_samples_show_daemon_system_and_database(box: Box) -> None:
    # The kernel counts in hundredths of a second: samples at once may see no time pass.
    for _ in range(10_000):
        box.sample()
        if box.series.latest("system.cpu_percent") is not None:
            break
    box.stats = database(writes=50, wal_bytes=4096)
    box.sample()
    assert box.names() == {
        "daemon.rss_bytes",
        "daemon.private_bytes",
        "daemon.cpu_percent",
        "daemon.fds",
        "daemon.threads",
        "system.load1",
        "system.memory_available_bytes",
        "system.disk_free_bytes",
        "system.cpu_percent",
        "database.size_bytes",
        "database.wal_bytes",
        "database.write_queue",
        "database.read_queue",
        "database.writes_per_s",
        "database.reads_per_s",
        "database.commits_per_s",
    }
    rss = box.series.latest("daemon.rss_bytes")
    private = box.series.latest("daemon.private_bytes")
    assert rss is not None
    assert private is not None
    assert 0 < private <= rss
    assert box.series.latest("database.wal_bytes") == 4096
    assert (box.series.latest("database.writes_per_s") or 0) > 0
    assert box.check == "ok"


def test_a_lighthouse_is_sampled_while_it_runs_and_forgotten_when_it_is_gone(
    box: Box, child: subprocess.Popen[bytes]
) -> None:
    box.lighthouses = [lighthouse(child.pid)]
    box.sample()
    box.sample()
    assert {name for name in box.names() if name.startswith("lighthouse.")} == {
        "lighthouse.c1.rss_bytes",
        "lighthouse.c1.cpu_percent",
        "lighthouse.c1.fds",
    }
    child.kill()
    child.wait()
    box.sample()
    newest = box.series.window(since=box.at, step_s=1)
    assert newest["lighthouse.c1.rss_bytes"] == ()
    box.lighthouses = [lighthouse(None)]
    box.sample()
    box.lighthouses = []
    box.sample()
    assert not [name for name in box.names() if name.startswith("lighthouse.")]


def test_a_lighthouse_that_was_restarted_is_followed(box: Box, child: subprocess.Popen[bytes]) -> None:
    box.lighthouses = [lighthouse(child.pid)]
    box.sample()
    box.lighthouses = [lighthouse(os.getpid())]
    box.sample()
    assert (box.series.latest("lighthouse.c1.rss_bytes") or 0) > 5 * 2**20, "this is no sleep(1)"


def test_a_process_id_of_nobody_is_no_error(box: Box) -> None:
    box.lighthouses = [lighthouse(2**22 + 1)]
    box.sample()
    assert box.check == "ok"


@pytest.mark.parametrize(
    ("budgets", "sentence"),
    [
        ({"daemon_rss_bytes": 1024 * 1024}, "the daemon uses"),
        ({"lighthouse_rss_bytes": 1024 * 1024}, "the lighthouse of home uses"),
        ({"disk_free_bytes": 2**60}, "make room"),
    ],
)
def test_a_budget_that_is_passed_is_a_sentence_until_it_is_kept_again(
    tmp_path: Path, budgets: dict[str, int], sentence: str
) -> None:
    box = Box(tmp_path, **budgets)
    box.lighthouses = [lighthouse(os.getpid())]
    box.sample()
    assert sentence in box.check
    assert box.health.report().status == "degraded"
    keeping = {"daemon.rss_bytes": 1.0, "lighthouse.c1.rss_bytes": 1.0, "system.disk_free_bytes": 2.0**61}
    box.sample(**keeping)
    assert box.check == "ok"


def test_a_lighthouse_may_be_busy_for_a_moment_but_not_for_a_minute(box: Box) -> None:
    box.lighthouses = [lighthouse(os.getpid())]
    for _ in range(10):
        box.sample(**{"lighthouse.c1.cpu_percent": 90.0, "lighthouse.c1.rss_bytes": 1.0})
        assert box.check == "ok"
    for _ in range(4):
        box.sample(**{"lighthouse.c1.cpu_percent": 90.0, "lighthouse.c1.rss_bytes": 1.0})
    assert "90.0 % of a core" in box.check
    for _ in range(13):
        box.sample(**{"lighthouse.c1.cpu_percent": 1.0, "lighthouse.c1.rss_bytes": 1.0})
    assert box.check == "ok"


def test_series_keep_the_newest_and_nothing_more() -> None:
    series = Series(capacity=3)
    for at in range(7):
        series.add("x", at, at * 10)
    assert series.window(since=0, step_s=1) == {"x": ((4, 40), (5, 50), (6, 60))}
    assert series.latest("x") == 60
    assert series.mean("x", since=5) == 55
    assert series.mean("x", since=7) is None
    assert series.latest("y") is None
    series.drop("x")
    assert series.window(since=0, step_s=1) == {}


def test_a_series_takes_its_memory_with_the_first_sample_and_no_more_later() -> None:
    series = Series(capacity=720)
    series.add("x", 0, 0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(1, 720):
            series.add("x", at, at)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1024
    assert series.window(since=718, step_s=1) == {"x": ((718, 718), (719, 719))}


def test_a_window_is_thinned_to_the_last_sample_of_each_step() -> None:
    series = Series(capacity=100)
    for at in range(100, 130, 5):
        series.add("x", at, at)
    assert series.window(since=105, step_s=10) == {"x": ((105, 105), (115, 115), (125, 125))}


@pytest.mark.parametrize(("available_bytes", "short"), [(33 * MIB, False), (31 * MIB, True)])
def test_memory_is_short_when_the_box_has_hardly_any_left(available_bytes: int, short: bool) -> None:
    assert memory_short({"system.memory_available_bytes": float(available_bytes)}) is short
