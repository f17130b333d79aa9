"""Owns what the box uses: samples processes, system and database into ring buffers, and holds them against budgets.

Knows no HTTP and changes nothing: who reads the series, or acts on the health board, is not its business.

One sample costs about 2.5 ms, nearly all of it the kernel adding up the daemon's private memory, and is taken in a
thread, so that the event loop does not stand still meanwhile. At the default interval that is 0.05 % of a core.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

import psutil
import trio

from edgegc.control.health import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from edgegc.control.control import Control
    from edgegc.control.health import Health
    from edgegc.model.lighthouse import LighthouseStatus
    from edgegc.model.series import Series
    from edgegc.settings import Budgets
    from edgegc.store.database import DatabaseStats

logger = logging.getLogger(__name__)

CHECK: Final = "sampler"
"""The health check that says which budgets are passed."""

SUSTAINED_S: Final = 60.0
"""CPU use counts against its budget as the mean over this long: a handshake storm of seconds is what CPUs are for."""

MIB: Final = 1024 * 1024

MEMORY_SPARE_BYTES: Final = 32 * MIB
"""With less than this left on the box the kernel soon kills something: nebula, at worst."""


async def run(control: Control, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Sample every ``sampler.interval_s`` seconds for ever. Raises what the system refuses to tell.

    Cancellation ends it, after a sample that is being taken (milliseconds).
    """
    settings = control.settings
    sampler = Sampler(
        series=control.series,
        health=control.health,
        lighthouses=control.lighthouses.all,
        database=control.database.stats,
        data_dir=settings.data.dir,
        budgets=settings.budgets,
    )
    task_status.started()
    due = trio.current_time()
    while True:
        late_s = trio.current_time() - due
        statuses = sampler.subjects()
        readings = await trio.to_thread.run_sync(sampler.measure, statuses)
        readings["daemon.loop_late_ms"] = late_s * 1000
        sampler.record(control.clock.now(), statuses, readings)
        control.polls.memory_short = memory_short(readings)
        # On a schedule, not after a pause: rates stay comparable. What was missed while the box slept is left out.
        due = max(due + settings.sampler.interval_s, trio.current_time())
        await trio.sleep_until(due)


def memory_short(readings: dict[str, float]) -> bool:
    """Whether a sample says that no more version checks should be held: each costs memory for as long as it waits.

    The box decides, not the daemon's budget: passing that is worth a sentence, but hurts nobody while there is memory.
    """
    return readings["system.memory_available_bytes"] < MEMORY_SPARE_BYTES


class Sampler:
    """Takes samples, keeps them in ``series``, and says on ``health`` which budgets are passed."""

    def __init__(
        self,
        *,
        series: Series,
        health: Health,
        lighthouses: Callable[[], Iterable[LighthouseStatus]],
        database: Callable[[], DatabaseStats],
        data_dir: Path,
        budgets: Budgets,
    ) -> None:
        self._series = series
        self._health = health
        self._lighthouses = lighthouses
        self._database = database
        self._data_dir = data_dir
        self._budgets = budgets
        self._daemon = _Process(os.getpid())
        self._nebulas: dict[str, _Process] = {}
        self._counted: tuple[float, DatabaseStats] | None = None
        self._system_cpu = _SystemCpu()
        self._passed = OK

    def subjects(self) -> tuple[LighthouseStatus, ...]:
        """Return the lighthouses to sample, and forget those that are gone. In the trio thread."""
        statuses = tuple(self._lighthouses())
        present = {status.cluster_id for status in statuses}
        for cluster_id in [known for known in self._nebulas if known not in present]:
            del self._nebulas[cluster_id]
            self._series.drop(f"lighthouse.{cluster_id}.")
        return statuses

    def measure(self, statuses: Iterable[LighthouseStatus]) -> dict[str, float]:
        """Take one sample: values by series name. In any thread, one at a time."""
        readings = self._daemon.read("daemon.", threads=True)
        private = _private_bytes()
        if private is not None:
            readings["daemon.private_bytes"] = private
        for status in statuses:
            if status.pid is None:
                continue
            nebula = self._nebulas.get(status.cluster_id)
            if nebula is None or nebula.pid != status.pid:
                nebula = self._nebulas[status.cluster_id] = _Process(status.pid)
            readings |= nebula.read(f"lighthouse.{status.cluster_id}.")
        readings["system.load1"] = os.getloadavg()[0]
        readings["system.memory_available_bytes"] = psutil.virtual_memory().available
        readings["system.disk_free_bytes"] = psutil.disk_usage(os.fspath(self._data_dir)).free
        cpu_percent = self._system_cpu.percent()
        if cpu_percent is not None:
            readings["system.cpu_percent"] = cpu_percent
        return readings | self._measure_database()

    def record(self, at: float, statuses: Iterable[LighthouseStatus], readings: dict[str, float]) -> None:
        """Keep a sample taken at a wall time, and hold it against the budgets. In the trio thread."""
        for name, value in readings.items():
            self._series.add(name, at, value)
        passed = "; ".join(self._passed_budgets(at, statuses, readings)) or OK
        self._health.set(CHECK, passed)
        if (passed == OK) != (self._passed == OK):
            if passed == OK:
                logger.info("resources are within their budgets again")
            else:
                logger.warning("a resource has passed its budget: %s", passed)
        self._passed = passed

    def _measure_database(self) -> dict[str, float]:
        stats, now = self._database(), time.monotonic()
        readings: dict[str, float] = {
            "database.size_bytes": stats.database_bytes,
            "database.wal_bytes": stats.wal_bytes,
            "database.write_queue": stats.write_queue,
            "database.read_queue": stats.read_queue,
        }
        if self._counted is not None and now > self._counted[0]:
            elapsed_s, before = now - self._counted[0], self._counted[1]
            readings["database.writes_per_s"] = (stats.writes - before.writes) / elapsed_s
            readings["database.reads_per_s"] = (stats.reads - before.reads) / elapsed_s
            readings["database.commits_per_s"] = (stats.commits - before.commits) / elapsed_s
        self._counted = now, stats
        return readings

    def _passed_budgets(
        self, at: float, statuses: Iterable[LighthouseStatus], readings: dict[str, float]
    ) -> Iterable[str]:
        budgets = self._budgets
        if readings["daemon.rss_bytes"] > budgets.daemon_rss_bytes:
            yield (
                f"the daemon uses {_mib(readings['daemon.rss_bytes'])} of memory, its budget "
                f"(budgets.daemon_rss_bytes) is {_mib(budgets.daemon_rss_bytes)}"
            )
        for status in statuses:
            prefix = f"lighthouse.{status.cluster_id}."
            rss_bytes = readings.get(f"{prefix}rss_bytes", 0)
            if rss_bytes > budgets.lighthouse_rss_bytes:
                yield (
                    f"the lighthouse of {status.name} uses {_mib(rss_bytes)} of memory, its budget "
                    f"(budgets.lighthouse_rss_bytes) is {_mib(budgets.lighthouse_rss_bytes)}"
                )
            nebula = self._nebulas.get(status.cluster_id)
            if nebula is None or not nebula.watched_for(SUSTAINED_S, at):
                continue
            cpu_percent = self._series.mean(f"{prefix}cpu_percent", since=at - SUSTAINED_S)
            if cpu_percent is not None and cpu_percent > budgets.lighthouse_cpu_percent:
                yield (
                    f"the lighthouse of {status.name} uses {cpu_percent:.1f} % of a core, its budget "
                    f"(budgets.lighthouse_cpu_percent) is {budgets.lighthouse_cpu_percent:g} %"
                )
        if readings["system.disk_free_bytes"] < budgets.disk_free_bytes:
            yield (
                f"{self._data_dir} has {_mib(readings['system.disk_free_bytes'])} free, it should have "
                f"(budgets.disk_free_bytes) {_mib(budgets.disk_free_bytes)}: make room before writes are refused"
            )


class _Process:
    """One process and its CPU time at the last look. A process that is gone reads as nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process: psutil.Process | None = None
        self._used: tuple[float, float] | None = None
        self._watched_from: float | None = None

    def watched_for(self, duration_s: float, at: float) -> bool:
        if self._watched_from is None:
            self._watched_from = at
        return at - self._watched_from >= duration_s

    def read(self, prefix: str, *, threads: bool = False) -> dict[str, float]:
        try:
            # psutil compares start times, so that another process with the same id is not taken for this one.
            if self._process is None:
                self._process = psutil.Process(self.pid)
            elif not self._process.is_running():
                return {}
            with self._process.oneshot():
                readings: dict[str, float] = {f"{prefix}rss_bytes": self._process.memory_info().rss}
                times = self._process.cpu_times()
                if threads:
                    readings[f"{prefix}threads"] = self._process.num_threads()
                readings[f"{prefix}fds"] = self._process.num_fds()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It ended between the board and here, or runs as a user that an unprivileged daemon may not look at.
            return {}
        now, used = time.monotonic(), times.user + times.system
        if self._used is not None and now > self._used[0]:
            readings[f"{prefix}cpu_percent"] = max(0.0, 100 * (used - self._used[1]) / (now - self._used[0]))
        self._used = now, used
        return readings


class _SystemCpu:
    """Use of all cores together, in percent, since the last look."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def percent(self) -> float | None:
        times = psutil.cpu_times()
        # Guest time is part of user time; iowait is time in which something else could have run.
        total = sum(times[:8])
        idle = times.idle + getattr(times, "iowait", 0.0)
        last, self._last = self._last, (total, idle)
        if last is None or total <= last[0]:
            return None
        return max(0.0, 100 * (1 - (idle - last[1]) / (total - last[0])))


def _private_bytes() -> int | None:
    """Return what only this process has in memory: what would be free without it. None where the kernel won't say.

    ``smaps_rollup`` costs half of what psutil pays for reading every mapping one by one.
    """
    try:
        with open("/proc/self/smaps_rollup", "rb") as file:
            lines = file.readlines()
    except OSError:
        return None
    return sum(
        int(line.split()[1]) * 1024 for line in lines if line.startswith((b"Private_Clean", b"Private_Dirty"))
    )


def _mib(size: float) -> str:
    return f"{size / MIB:.0f} MiB"
