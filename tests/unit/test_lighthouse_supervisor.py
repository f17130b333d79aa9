"""The supervisor over fake processes and a clock that jumps: what it does with wishes, faults and bursts."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edgegc.lighthouse import supervisor as supervisor_module
from edgegc.lighthouse.render import lighthouse_directory
from edgegc.lighthouse.supervisor import Supervisor
from edgegc.model.event import RestartRequested, StopRequested
from edgegc.watch import Polling
from tests.fakes import (
    CLUSTER_ID,
    HUP_LINES,
    FakeControl,
    FakeExecutable,
    FakeSpawner,
    inline,
    sample_lighthouse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from edgegc.model.lighthouse import LighthouseSpec, LighthouseStatus

FIREWALL_LINE = 'level=info msg="New firewall has been installed" firewallHash=1'
OTHER = "44444444-4444-4444-8444-444444444444"


class Box:
    """A data directory with everything around it; daemons come and go."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.spawner = FakeSpawner()
        self.spawner.hup_lines = (*HUP_LINES, FIREWALL_LINE)
        self.nebula = FakeExecutable()
        self.control = FakeControl(data_dir)

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Supervisor]:
        supervisor = Supervisor(
            self.control,  # type: ignore[arg-type]
            spawner=self.spawner,
            nebula=self.nebula,
            random=lambda: 0.5,
            disk=inline,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            yield supervisor
            nursery.cancel_scope.cancel()

    def status(self, cluster_id: str = CLUSTER_ID) -> LighthouseStatus:
        status = self.control.lighthouses.get(cluster_id)
        assert status is not None
        return status

    @property
    def directory(self) -> Path:
        return lighthouse_directory(self.data_dir, CLUSTER_ID)

    def overrides(self, name: str, text: str) -> None:
        (self.directory / "overrides" / name).write_text(text)

    @property
    def health(self) -> str:
        return self.control.health.report().checks["lighthouses"]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    # inotify is a file descriptor, which a jumping clock would jump over.
    @contextmanager
    def polling() -> Iterator[Polling]:
        yield Polling()

    monkeypatch.setattr(supervisor_module, "open_watcher", polling)
    return Box(tmp_path)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(4000):
        while not holds():
            await trio.sleep(0.05)


def running(box: Box, version: int, cluster_id: str = CLUSTER_ID) -> Callable[[], bool]:
    def holds() -> bool:
        status = box.control.lighthouses.get(cluster_id)
        return status is not None and status.state == "running" and status.version_running == version

    return holds


def with_rule(version: int, port: str, cluster_id: str = CLUSTER_ID) -> LighthouseSpec:
    rules: list[Any] = [{"port": port, "proto": "tcp", "host": "any"}]
    return sample_lighthouse(
        cluster_id,
        version=version,
        config={"listen": {"host": "0.0.0.0"}, "firewall": {"inbound": rules, "outbound": []}},
    )


async def test_what_is_wanted_at_the_start_runs(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        assert box.health == "ok"
    assert len(box.spawner.children) == 1


async def test_a_new_wish_comes_with_the_bus(box: Box, autojump_clock: MockClock) -> None:
    async with box.daemon():
        box.control.want(sample_lighthouse())
        began = trio.current_time()
        await until(running(box, 1))
        assert trio.current_time() - began < 5


async def test_a_change_is_tested_and_reloaded(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(with_rule(1, "22"))
    async with box.daemon():
        await until(running(box, 1))
        box.control.want(with_rule(2, "80"))
        await until(running(box, 2))
        assert box.spawner.child.signals == [signal.SIGHUP]
        assert len(box.nebula.tested) == 2


async def test_a_burst_of_changes_is_few_applies(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(with_rule(1, "22"))
    async with box.daemon():
        await until(running(box, 1))
        for version in range(2, 102):
            box.control.want(with_rule(version, str(version)))
            await trio.sleep(0.02)
        await until(running(box, 101))
        assert 1 <= box.spawner.child.signals.count(signal.SIGHUP) <= 3


async def test_ticks_and_events_without_a_difference_do_nothing(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        before = {path: path.stat().st_mtime_ns for path in box.directory.iterdir()}
        box.control.want(sample_lighthouse())
        await trio.sleep(1000)
        assert box.spawner.child.signals == []
        assert len(box.nebula.tested) == 1
        assert {path: path.stat().st_mtime_ns for path in box.directory.iterdir()} == before


async def test_a_lighthouse_that_is_no_longer_wanted_is_terminated_and_removed(
    box: Box, autojump_clock: MockClock
) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        box.control.want()
        await until(lambda: box.control.lighthouses.all() == ())
        assert box.spawner.child.signals == [signal.SIGTERM]
        assert not box.directory.exists()


async def test_one_that_is_wanted_again_while_it_ends_comes_back(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        box.spawner.child.stubborn = True
        box.control.want()
        await trio.sleep(5)
        box.control.want(sample_lighthouse(version=2))
        await until(running(box, 2))
        assert len(box.spawner.children) == 2


async def test_a_cancelled_daemon_leaves_it_running_and_the_next_adopts_it(
    box: Box, autojump_clock: MockClock
) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
    async with box.daemon():
        await until(running(box, 1))
        await trio.sleep(100)
    assert len(box.spawner.children) == 1
    assert box.spawner.child.signals == []


async def test_a_change_made_while_no_daemon_ran_is_applied_to_the_adopted_process(
    box: Box, autojump_clock: MockClock
) -> None:
    box.control.want(with_rule(1, "22"))
    async with box.daemon():
        await until(running(box, 1))
    box.control.want(with_rule(2, "80"))
    async with box.daemon():
        await until(running(box, 2))
    assert box.spawner.child.signals == [signal.SIGHUP]


async def test_a_recorded_process_that_nobody_wants_any_more_is_terminated_at_the_start(
    box: Box, autojump_clock: MockClock
) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
    box.control.want()
    async with box.daemon():
        assert box.spawner.child.signals == [signal.SIGTERM]
        assert not box.directory.exists()


async def test_not_knowing_what_is_wanted_changes_nothing(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        box.control.failing = True
        box.control.want()
        await trio.sleep(1000)
        assert box.spawner.child.signals == []


async def test_stop_all_ends_every_process(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse(), sample_lighthouse(OTHER, cluster_name="away"))
    async with box.daemon() as supervisor:
        await until(running(box, 1))
        await until(running(box, 1, OTHER))
        await supervisor.stop_all()
        assert box.spawner.living == {}
        await trio.sleep(1000)
        assert box.spawner.living == {}


async def test_stop_holds_until_restart(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        box.control.bus.publish(StopRequested(cluster_id=CLUSTER_ID))
        await until(lambda: box.status().state == "stopped")
        box.control.want(sample_lighthouse(version=2))
        await trio.sleep(1000)
        assert box.status().state == "stopped"
        assert box.health == "ok"
        box.control.bus.publish(RestartRequested(cluster_id=CLUSTER_ID))
        await until(running(box, 2))


async def test_restart_replaces_the_process_once(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        box.control.bus.publish(RestartRequested(cluster_id=CLUSTER_ID))
        await until(lambda: len(box.spawner.children) == 2)
        await until(running(box, 1))
        await trio.sleep(1000)
        assert len(box.spawner.children) == 2


async def test_a_refused_configuration_leaves_the_old_one_running_and_is_shown(
    box: Box, autojump_clock: MockClock
) -> None:
    box.control.want(with_rule(1, "22"))
    async with box.daemon():
        await until(running(box, 1))
        before = (box.directory / "config.yml").read_bytes()
        box.nebula.refuses.add("666")
        box.control.want(with_rule(2, "666"))
        await until(lambda: box.status().last_error is not None)
        assert "nebula -test refuses" in (box.status().last_error or "")
        assert "home: nebula -test refuses" in box.health
        assert box.control.health.report().status == "degraded"
        await trio.sleep(1000)
        assert (box.status().state, box.status().version_running) == ("running", 1)
        assert box.spawner.child.signals == []
        assert (box.directory / "config.yml").read_bytes() == before
        assert len(box.nebula.tested) < 12
        box.control.want(with_rule(3, "80"))
        await until(running(box, 3))
        await until(lambda: box.health == "ok")


async def test_a_missing_nebula_is_a_sentence_and_is_found_when_it_is_installed(
    box: Box, autojump_clock: MockClock
) -> None:
    box.nebula.missing = "nebula is not installed: install it"
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(lambda: box.control.lighthouses.get(CLUSTER_ID) is not None)
        assert box.status().state == "stopped"
        assert box.health == "home: nebula is not installed: install it"
        box.nebula.missing = None
        await until(running(box, 1))
        await until(lambda: box.health == "ok")


async def test_one_that_dies_at_once_is_shown_with_its_own_words_and_recovers_by_itself(
    box: Box, autojump_clock: MockClock
) -> None:
    box.spawner.behaviour = "dies"
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(
            lambda: box.control.lighthouses.get(CLUSTER_ID) is not None and box.status().state == "fatal"
        )
        assert "it broke" in (box.status().last_error or "")
        assert "it broke" in box.health
        count = len(box.spawner.children)
        await trio.sleep(250)
        assert len(box.spawner.children) == count, "ticks must not shorten the machine's delays"
        box.spawner.behaviour = "ready"
        await until(running(box, 1))
        await until(lambda: box.health == "ok")


@pytest.mark.parametrize("how", ["replaced", "gone and back"])
async def test_another_nebula_need_not_wait_for_the_delays_of_the_one_that_failed(
    how: str, box: Box, autojump_clock: MockClock
) -> None:
    box.spawner.behaviour = "dies"
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(
            lambda: box.control.lighthouses.get(CLUSTER_ID) is not None and box.status().state == "fatal"
        )
        if how == "gone and back":
            box.nebula.missing = "nebula is not installed: install it"
            await until(lambda: "not installed" in box.health)
            box.nebula.missing = None
        else:
            box.nebula.generation += 1
        box.spawner.behaviour = "ready"
        changed_at = trio.current_time()
        await until(running(box, 1))
        assert trio.current_time() - changed_at <= supervisor_module.TICK_S + 10
        await until(lambda: box.health == "ok")


async def test_an_override_is_applied_when_its_file_is_written(box: Box, autojump_clock: MockClock) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        box.overrides("a.yml", "firewall: {inbound: []}")
        await until(lambda: signal.SIGHUP in box.spawner.child.signals)
        assert "inbound: []" in (box.directory / "config.yml").read_text()


async def test_overrides_that_nebula_refuses_are_reported_and_the_last_good_ones_stay(
    box: Box, autojump_clock: MockClock
) -> None:
    box.control.want(sample_lighthouse())
    box.nebula.refuses.add("terrible")
    async with box.daemon():
        await until(running(box, 1))
        box.overrides("a.yml", "firewall: {inbound: []}")
        await until(lambda: signal.SIGHUP in box.spawner.child.signals)
        box.overrides("a.yml", "firewall: {inbound: [{proto: terrible}]}")
        await until(lambda: "terrible" in box.health)
        box.control.want(with_rule(2, "80"))
        await until(running(box, 2))
        config = (box.directory / "config.yml").read_text()
        assert "inbound: []" in config
        assert "terrible" not in config
        assert "the overrides are not used" in (box.status().last_error or "")
        box.overrides("a.yml", "")
        await until(lambda: box.health == "ok")
        assert "80" in (box.directory / "config.yml").read_text()


async def test_tampered_files_are_put_right_without_touching_the_process(
    box: Box, autojump_clock: MockClock
) -> None:
    box.control.want(sample_lighthouse())
    async with box.daemon():
        await until(running(box, 1))
        good = (box.directory / "config.yml").read_bytes()
        (box.directory / "config.yml").write_bytes(b"nonsense")
        await until(lambda: (box.directory / "config.yml").read_bytes() == good)
        await trio.sleep(100)
        assert box.spawner.child.signals == []


async def test_a_crash_of_one_lighthouses_task_concerns_no_other(
    box: Box, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.control.want(sample_lighthouse(), sample_lighthouse(OTHER, cluster_name="away"))
    async with box.daemon():
        await until(running(box, 1))
        await until(running(box, 1, OTHER))
        from edgegc.lighthouse import lighthouse

        real, crashed = lighthouse.render.render, []

        def broken(spec: LighthouseSpec, *rest: Any) -> Any:
            if spec.cluster_id == OTHER and not crashed:
                crashed.append(True)
                raise ZeroDivisionError("a bug")
            return real(spec, *rest)

        monkeypatch.setattr(lighthouse.render, "render", broken)
        await until(lambda: bool(crashed))
        await until(lambda: "supervision crashed" in box.health)
        await until(lambda: box.health == "ok")
        await until(running(box, 1, OTHER))
        assert all(child.signals == [] for child in box.spawner.children)
        assert len(box.spawner.children) == 2
