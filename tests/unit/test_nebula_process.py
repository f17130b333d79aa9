"""Process against a fake spawner and a clock that jumps: the order of things, and every race we thought of."""

from __future__ import annotations

import datetime
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edgegc.nebula import record
from edgegc.nebula.machine import FATAL_AFTER, FATAL_RETRY_S, START_LIMIT_S, TERM_LIMIT_S
from edgegc.nebula.process import ApplyFailed, Process, ProcessStatus, State, Wanted
from tests.fakes import HUP_LINES, FakeClock, FakeSpawner, inline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio.testing import MockClock

FIREWALL_LINE = 'level=info msg="New firewall has been installed" firewallHash=1'


class World:
    """A directory, a spawner, and processes over them, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spawner = FakeSpawner()
        self.clock = FakeClock()
        self.statuses: list[ProcessStatus] = []

    def process(self) -> Process:
        return Process(
            executable=self.directory / "nebula",
            config_path=self.directory / "config.yml",
            record_path=self.directory / "process.json",
            log_path=self.directory / "nebula.log",
            user="nobody",
            spawner=self.spawner,
            clock=self.clock,
            random=lambda: 0.5,
            on_change=self.statuses.append,
            disk=inline,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        process = self.process()
        async with trio.open_nursery() as nursery:
            await nursery.start(process.run)
            yield process
            nursery.cancel_scope.cancel()

    @property
    def record(self) -> record.Record:
        known = record.load(self.directory / "process.json")
        assert known is not None
        return known


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def wanted(digest: str = "1", *, port: int = 0, **sections: Any) -> Wanted:
    config: dict[str, object] = {
        "firewall": {"inbound": [{"port": "any", "proto": "icmp", "host": "any"}], "outbound": []},
        "listen": {"host": "0.0.0.0", "port": port},
        **sections,
    }
    return Wanted(config=config, config_digest=digest, port=port, fingerprint=None, probe=False)


def other_firewall(digest: str = "2") -> Wanted:
    return wanted(
        digest, firewall={"inbound": [{"port": "22", "proto": "tcp", "host": "any"}], "outbound": []}
    )


def other_device(digest: str = "2") -> Wanted:
    return wanted(digest, tun={"disabled": True})


async def until(process: Process, state: State) -> None:
    with trio.fail_after(3600):
        while process.status.state is not state:
            await trio.sleep(0.01)


async def test_nothing_runs_until_something_is_applied(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await trio.sleep(1000)
        assert process.status.state is State.STOPPED
    assert world.spawner.children == []


async def test_apply_starts_and_records_the_process(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        applied = await process.apply(wanted())
        assert applied.action == "start"
        status = process.status
        assert (status.state, status.pid, status.adopted) == (State.RUNNING, 1000, False)
        assert (status.nebula_version, status.config_digest, status.port) == ((1, 6, 1), "1", 4242)
        known = world.record
        assert (known.pid, known.ready, known.boot_id) == (1000, True, record.boot_id())
        assert world.spawner.users == ["nobody"]


async def test_the_intention_is_on_disk_before_the_process_is_spawned(
    world: World, autojump_clock: MockClock
) -> None:
    seen: list[int | None] = []
    spawn = world.spawner.spawn

    async def spying(*args: Any, **more: Any) -> Any:
        seen.append(world.record.pid)
        return await spawn(*args, **more)

    world.spawner.spawn = spying  # type: ignore[method-assign]
    async with world.running() as process:
        await process.apply(wanted())
    assert seen == [None]


async def test_a_restart_loses_no_time_with_the_intention(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        saved: list[int | None] = []
        spawn = world.spawner.spawn

        async def spying(*args: Any, **more: Any) -> Any:
            saved.append(world.record.pid)
            return await spawn(*args, **more)

        world.spawner.spawn = spying  # type: ignore[method-assign]
        await process.restart()
        assert saved == [1000]
        assert world.record.pid == 1001


async def test_a_tunnel_device_stays_while_its_process_is_replaced(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted(tun={"dev": "overlay"}))
        before = world.spawner.child
        await process.restart()
        assert before.tunnel_kept
        assert not world.spawner.child.tunnel_kept
        assert world.spawner.removed_tunnels == []


@pytest.mark.parametrize(
    "tun",
    [{"disabled": True, "dev": "overlay"}, {"dev": "overlay", "unsafe_routes": [{"route": "10.9.0.0/16"}]}],
)
async def test_a_tunnel_device_with_routes_goes_with_its_process(
    world: World, autojump_clock: MockClock, tun: dict[str, object]
) -> None:
    async with world.running() as process:
        await process.apply(wanted(tun=tun))
        before = world.spawner.child
        await process.restart()
        assert not before.tunnel_kept


async def test_a_kept_tunnel_device_is_removed_when_nobody_takes_it(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted(tun={"dev": "overlay"}))
        world.spawner.behaviour = "dies"
        with pytest.raises(ApplyFailed):
            await process.restart()
        assert world.spawner.removed_tunnels == ["overlay"]


async def test_applying_the_same_again_does_nothing(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        assert (await process.apply(wanted("1b"))).action == "none"
        assert world.spawner.child.signals == []
        assert process.status.config_digest == "1b"


async def test_what_may_be_reloaded_is_reloaded_by_hup(world: World, autojump_clock: MockClock) -> None:
    world.spawner.hup_lines = (*HUP_LINES, FIREWALL_LINE)
    async with world.running() as process:
        await process.apply(wanted())
        applied = await process.apply(other_firewall())
        assert applied.action == "hup"
        assert world.spawner.child.signals == [signal.SIGHUP]
        assert world.record.loaded is not None
        assert world.record.loaded.config_digest == "2"


async def test_what_needs_a_restart_gets_sigterm_and_one_new_process(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        applied = await process.apply(other_device())
        assert applied.action == "restart"
        assert [child.signals for child in world.spawner.children] == [[signal.SIGTERM], []]
        assert process.status.restarts == 1


async def test_hup_waits_for_the_ready_line(world: World, autojump_clock: MockClock) -> None:
    world.spawner.behaviour = "silent"
    world.spawner.hup_lines = (*HUP_LINES, FIREWALL_LINE)
    async with world.running() as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.apply, wanted())
        await until(process, State.STARTING)
        nursery.start_soon(process.apply, other_firewall())
        await trio.sleep(5)
        assert world.spawner.child.signals == []
        world.spawner.child.log('level=info msg="Nebula interface is active" build=1.6.1')
        await trio.sleep(5)
        assert world.spawner.child.signals == [signal.SIGHUP]


async def test_a_refused_reload_fails_and_leaves_the_process_alone(
    world: World, autojump_clock: MockClock
) -> None:
    world.spawner.hup_lines = (
        *HUP_LINES,
        'level=error msg="Error while creating firewall during reload" error="rule #0"',
    )
    async with world.running() as process:
        await process.apply(wanted())
        with pytest.raises(ApplyFailed, match="creating firewall during reload: rule #0"):
            await process.apply(other_firewall())
        assert process.status.state is State.RUNNING
        assert world.spawner.child.signals == [signal.SIGHUP]


async def test_after_a_refused_reload_going_back_restarts_because_what_is_loaded_is_unknown(
    world: World,
) -> None:
    world.spawner.hup_lines = (*HUP_LINES, 'level=error msg="Error while creating firewall during reload"')
    async with world.running() as process:
        await process.apply(wanted())
        with pytest.raises(ApplyFailed):
            await process.apply(other_firewall())
        assert process.status.config_digest is None
        assert (await process.apply(wanted())).action == "restart"


async def test_errors_about_peers_are_not_taken_for_a_refused_reload(
    world: World, autojump_clock: MockClock
) -> None:
    world.spawner.hup_lines = (
        *HUP_LINES,
        'level=error msg="Failed to send handshake message"',
        FIREWALL_LINE,
    )
    async with world.running() as process:
        await process.apply(wanted())
        assert (await process.apply(other_firewall())).action == "hup"


async def test_a_nebula_deaf_to_hup_is_restarted(world: World, autojump_clock: MockClock) -> None:
    world.spawner.hup_lines = ()
    async with world.running() as process:
        await process.apply(wanted())
        applied = await process.apply(other_firewall())
        assert applied.action == "restart"
        assert "Caught HUP" in applied.reasons[-1]
        assert world.spawner.children[0].signals == [signal.SIGHUP, signal.SIGTERM]


async def test_dying_of_a_reload_fails_the_apply_and_the_process_comes_back(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process, trio.open_nursery() as nursery:
        await process.apply(wanted())
        world.spawner.hup_lines = ()

        async def crash() -> None:
            while signal.SIGHUP not in world.spawner.child.signals:
                await trio.sleep(0.01)
            world.spawner.child.die(2)

        nursery.start_soon(crash)
        with pytest.raises(ApplyFailed, match="exit code 2"):
            await process.apply(other_firewall())
        await until(process, State.RUNNING)
        assert len(world.spawner.children) == 2


async def test_a_crash_comes_back_in_under_two_seconds_with_what_is_on_disk(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        await trio.sleep(100)
        died = trio.current_time()
        world.spawner.child.die(-9)
        await until(process, State.BACKOFF)
        assert process.status.last_error == "nebula was ended by SIGKILL"
        await until(process, State.RUNNING)
        assert trio.current_time() - died < 2
        assert process.status.config_digest == "1"


async def test_a_crash_while_the_files_change_does_not_pass_new_content_for_old(
    world: World, autojump_clock: MockClock
) -> None:
    config = world.directory / "config.yml"
    config.write_text("old")
    async with world.running() as process:
        await process.apply(wanted())
        # The owner switches to the new files, and before it says so nebula crashes and reads them.
        config.write_text("new")
        world.spawner.child.die(-9)
        await until(process, State.BACKOFF)
        await until(process, State.RUNNING)
        assert process.status.config_digest is None
        config.write_text("old")
        assert (await process.apply(wanted())).action == "restart"
        assert process.status.config_digest == "1"


async def test_a_failure_is_shown_until_the_next_process_has_lived_a_while(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        await trio.sleep(100)
        world.spawner.child.die(-9)
        await trio.sleep(1)
        assert process.status.last_error is not None
        await trio.sleep(100)
        assert process.status.last_error is None


async def test_dying_at_once_fails_the_apply_with_nebulas_own_words_and_ends_in_fatal(
    world: World, autojump_clock: MockClock
) -> None:
    world.spawner.behaviour = "dies"
    async with world.running() as process:
        with pytest.raises(ApplyFailed, match="Failed to open udp listener: it broke"):
            await process.apply(wanted())
        await until(process, State.FATAL)
        assert len(world.spawner.children) == FATAL_AFTER
        await trio.sleep(FATAL_RETRY_S + 1)
        assert len(world.spawner.children) == FATAL_AFTER + 1
        world.spawner.behaviour = "ready"
        assert (await process.apply(wanted())).action == "start"


async def test_a_missing_executable_is_a_sentence(world: World, autojump_clock: MockClock) -> None:
    world.spawner.behaviour = "missing"
    async with world.running() as process:
        with pytest.raises(ApplyFailed, match="can't be started: No such file"):
            await process.apply(wanted())
        assert process.status.state is State.BACKOFF


async def test_one_that_is_never_ready_is_terminated_and_tried_again(
    world: World, autojump_clock: MockClock
) -> None:
    world.spawner.behaviour = "silent"
    async with world.running() as process:
        with pytest.raises(ApplyFailed, match="not ready within 60 s"):
            await process.apply(wanted())
        # It may be looking up names; what hurries is only whoever applied.
        assert process.status.state is State.STARTING
        assert world.spawner.child.signals == []
        await until(process, State.BACKOFF)
        assert world.spawner.child.signals == [signal.SIGTERM]
        assert trio.current_time() >= START_LIMIT_S


async def test_going_back_does_not_wait_for_a_new_version_that_never_gets_ready(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        world.spawner.behaviour = "silent"
        with pytest.raises(ApplyFailed, match="not ready"):
            await process.apply(other_device())
        world.spawner.behaviour = "ready"
        began = trio.current_time()
        assert (await process.apply(wanted())).action == "restart"
        assert trio.current_time() - began < 10


async def test_applying_again_what_is_slow_to_start_does_not_start_it_anew(
    world: World, autojump_clock: MockClock
) -> None:
    world.spawner.behaviour = "silent"
    async with world.running() as process, trio.open_nursery() as nursery:
        with pytest.raises(ApplyFailed, match="not ready"):
            await process.apply(wanted())
        nursery.start_soon(process.apply, wanted())
        await trio.sleep(20)
        world.spawner.child.log('level=info msg="Nebula interface is active" build=1.6.1')
        await until(process, State.RUNNING)
    assert len(world.spawner.children) == 1
    assert world.spawner.child.signals == []


async def test_one_that_ends_just_after_its_ready_line_is_not_proven(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process, trio.open_nursery() as nursery:

        async def end() -> None:
            await until(process, State.RUNNING)
            world.spawner.child.die(1)

        nursery.start_soon(end)
        with pytest.raises(ApplyFailed, match="exit code 1"):
            await process.apply(wanted())


async def test_stop_terminates_waits_and_forgets(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        await process.stop()
        assert process.status.state is State.STOPPED
        assert world.spawner.child.signals == [signal.SIGTERM]
        assert not (world.directory / "process.json").exists()


async def test_stop_kills_only_what_ignores_sigterm_for_long(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        world.spawner.child.stubborn = True
        began = trio.current_time()
        await process.stop()
        assert world.spawner.child.signals == [signal.SIGTERM, signal.SIGKILL]
        assert trio.current_time() - began >= TERM_LIMIT_S


async def test_stop_during_an_apply_makes_the_apply_fail(world: World, autojump_clock: MockClock) -> None:
    world.spawner.behaviour = "silent"
    async with world.running() as process, trio.open_nursery() as nursery:

        async def stop() -> None:
            await until(process, State.STARTING)
            await process.stop()

        nursery.start_soon(stop)
        with pytest.raises(ApplyFailed, match="stopped"):
            await process.apply(wanted())
    assert world.spawner.living == {}


async def test_stop_while_it_is_being_spawned_ends_the_new_process(
    world: World, autojump_clock: MockClock
) -> None:
    gate = trio.Event()
    spawn = world.spawner.spawn

    async def slow(*args: Any, **more: Any) -> Any:
        await gate.wait()
        return await spawn(*args, **more)

    world.spawner.spawn = slow  # type: ignore[method-assign]
    async with world.running() as process, trio.open_nursery() as nursery:

        async def apply() -> None:
            with pytest.raises(ApplyFailed):
                await process.apply(wanted())

        nursery.start_soon(apply)
        await until(process, State.STARTING)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(process.stop)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert world.spawner.living == {}
    assert world.spawner.child.signals == [signal.SIGTERM]


async def test_cancelling_run_leaves_nebula_running_and_the_next_run_adopts_it(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted())
    child = world.spawner.child
    assert child.released
    assert child.signals == []
    async with world.running() as process:
        status = process.status
        assert (status.state, status.pid, status.adopted) == (State.RUNNING, child.pid, True)
        assert status.nebula_version == (1, 6, 1)
        assert (await process.apply(wanted())).action == "none"
    assert len(world.spawner.children) == 1
    assert child.signals == []


async def test_an_apply_whose_file_is_read_when_everything_is_cancelled_starts_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    process = world.process()
    async with trio.open_nursery() as nursery:

        async def read_to_the_end(job: Callable[[], Any], /) -> Any:
            nursery.cancel_scope.cancel()
            # A thread is waited for; Process.run() meanwhile ends.
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            return job()

        await nursery.start(process.run)
        process._disk = read_to_the_end
        await process.apply(wanted())
    assert world.spawner.children == []


async def test_what_json_has_no_word_for_makes_no_difference_after_an_adoption(
    world: World, autojump_clock: MockClock
) -> None:
    odd = wanted(tun={"routes": ("10.0.0.0/8",), "since": datetime.date(2026, 11, 23), 1: 2})
    async with world.running() as process:
        await process.apply(odd)
    async with world.running() as process:
        assert (await process.apply(odd)).action == "none"


async def test_a_configuration_that_is_beyond_json_is_refused_and_changes_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        with pytest.raises(ApplyFailed, match="no use for"):
            await process.apply(wanted("2", tun={(1, 2): 3}))
        assert process.status.config_digest == "1"
        assert world.spawner.child.signals == []


async def test_one_adopted_before_its_ready_line_is_not_sent_hup_until_then(
    world: World, autojump_clock: MockClock
) -> None:
    world.spawner.behaviour = "silent"
    world.spawner.hup_lines = (*HUP_LINES, FIREWALL_LINE)
    async with world.running() as process, trio.open_nursery() as nursery:
        nursery.start_soon(process.apply, wanted())
        await until(process, State.STARTING)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    async with world.running() as process, trio.open_nursery() as nursery:
        assert process.status.state is State.STARTING
        nursery.start_soon(process.apply, other_firewall())
        await trio.sleep(1)
        assert world.spawner.child.signals == []
        world.spawner.child.log('level=info msg="Nebula interface is active" build=1.6.1')
        await trio.sleep(5)
        assert world.spawner.child.signals == [signal.SIGHUP]
    assert len(world.spawner.children) == 1


async def test_dying_between_hup_and_proof_leaves_what_is_loaded_unknown(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.running() as process, trio.open_nursery() as nursery:
        await process.apply(wanted())
        world.spawner.hup_lines = HUP_LINES
        nursery.start_soon(process.apply, other_firewall())
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    async with world.running() as process:
        assert process.status.config_digest is None
        assert (await process.apply(other_firewall())).action == "restart"


async def test_an_adopted_process_that_dies_is_replaced(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await process.apply(wanted())
    async with world.running() as process:
        world.spawner.child.die(1)
        await until(process, State.BACKOFF)
        await until(process, State.RUNNING)
        assert process.status.adopted is False


async def test_a_record_of_a_dead_process_is_not_adopted(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await process.apply(wanted())
    world.spawner.child.die(0)
    async with world.running() as process:
        assert process.status.state is State.STOPPED
        assert (await process.apply(wanted())).action == "start"


async def test_a_full_disk_does_not_stop_the_network(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "save", full)
    async with world.running() as process:
        assert (await process.apply(wanted())).action == "start"
        assert process.status.state is State.RUNNING


async def test_a_large_log_is_truncated_while_it_runs(world: World, autojump_clock: MockClock) -> None:
    async with world.running() as process:
        await process.apply(wanted())
        world.spawner.child.log("x" * 2_000_000)
        await trio.sleep(200)
        assert (world.directory / "nebula.log").stat().st_size == 0
        assert (world.directory / "nebula.log.1").stat().st_size > 2_000_000


async def test_applies_wait_for_each_other(world: World, autojump_clock: MockClock) -> None:
    world.spawner.hup_lines = (*HUP_LINES, FIREWALL_LINE)
    async with world.running() as process, trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(
                process.apply, wanted(str(number)) if number % 2 else other_firewall(str(number))
            )
    assert len(world.spawner.children) == 1
