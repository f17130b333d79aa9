"""Trials of versions, with a nebula, a lighthouse and a clock that do as they are told; files are real."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edgegc.agent.apply import LIGHTHOUSE_SETTLE_S, RENEWAL_SLOT_S, RENEWAL_SLOTS, Applier
from edgegc.agent.decision import NEITHER, NO_LIGHTHOUSE
from edgegc.agent.reach import Reach
from edgegc.agent.state import Failure, Memory, Trial
from edgegc.agent.versions import Version, Versions
from edgegc.nebula import bundle, certificate, keys, upload
from edgegc.nebula.process import Applied, ApplyFailed, NebulaUnusable, Wanted
from tests import zoo
from tests.fakes import ControlPlane, FakeClock, FakeLighthouse, FakeNebula, inline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio.testing import MockClock


class Node:
    """A machine with the files, the memory and the fakes of one cluster. Starting it again is a crash and a start."""

    def __init__(self, directory: Path) -> None:
        self.plane = ControlPlane()
        self.pair = keys.generate_x25519()
        self.clock = FakeClock(self.plane.now)
        self.versions = Versions(directory)
        self.versions.save_key(self.pair)
        self.nebula = FakeNebula(self.versions)
        self.lighthouse = FakeLighthouse(self.versions)
        self.test_refuses: dict[int, ApplyFailed] = {}
        self.tested: list[int] = []
        self.adopted: list[int] = []
        self.memory = Memory(directory / "state.json", disk=inline)
        self.applier: Applier

    async def receive(self, version: int, **changes: Any) -> None:
        """Do what the poller does with a good bundle."""
        body = self.plane.bundle(version, self.pair.public, **changes)
        self.versions.store(bundle.read(body))
        await self.memory.change(highest=version, highest_digest=bundle.digest(body), tried=version)
        if hasattr(self, "applier"):
            self.applier.wake()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.memory = Memory(self.versions.directory / "state.json", disk=inline)
        await self.memory.recall()
        reach = Reach(ask=self.lighthouse, on_answer=lambda: self.applier.lighthouse_answers())
        self.applier = Applier(
            cluster=self.plane.membership(),
            versions=self.versions,
            memory=self.memory,
            nebula=self.nebula,
            reach=reach,
            clock=self.clock,
            random=lambda: 0.5,
            test=self._test,
            adopt=self._adopt,
            on_change=lambda: None,
            disk=inline,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.applier.run)
            nursery.start_soon(reach.run)
            yield
            nursery.cancel_scope.cancel()

    async def until(self, holds: Callable[[], bool], *, within_s: float = 200.0) -> None:
        with trio.fail_after(within_s):
            while not holds():
                await trio.sleep(0.1)

    async def applied(self, version: int) -> None:
        await self.until(lambda: self.memory.state.applied == version and self.memory.state.trial is None)

    async def failed(self, version: int) -> Failure:
        def has_failed() -> bool:
            failure = self.memory.state.failure
            return failure is not None and failure.version == version and self.memory.state.trial is None

        await self.until(has_failed)
        await trio.sleep(1)  # what follows the verdict, too
        assert self.memory.state.failure is not None
        return self.memory.state.failure

    async def _test(self, path: Path) -> None:
        number = int(path.parent.name)
        self.tested.append(number)
        with path.open() as twin:
            assert str(path.parent / "host.crt") in twin.read(), "the twin's paths point into the version"
        if number in self.test_refuses:
            raise self.test_refuses[number]

    async def _adopt(self, version: Version) -> None:
        self.adopted.append(version.number)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_good_version_is_tested_switched_to_proven_and_adopted(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await node.receive(8)
        await node.applied(8)
    assert (node.tested, node.nebula.applied, node.adopted) == ([7, 8], [7, 8], [7, 8])
    assert node.versions.current() == 8
    assert [outcome.what for outcome in node.memory.state.history] == ["applied", "applied"]


async def test_a_version_that_the_test_refuses_touches_nothing(node: Node, autojump_clock: MockClock) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.test_refuses[8] = ApplyFailed("nebula -test refuses the configuration: bad rule")
        await node.receive(8)
        failure = await node.failed(8)
    assert failure.reason == "nebula -test refuses the configuration: bad rule"
    assert node.nebula.applied == [7]
    assert (node.versions.current(), node.memory.state.applied) == (7, 7)


async def test_a_version_that_nebula_refuses_is_taken_back(node: Node, autojump_clock: MockClock) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.nebula.refuses[8] = "it died"
        await node.receive(8)
        failure = await node.failed(8)
    assert (failure.reason, failure.lost) == ("it died", False)
    assert node.nebula.applied == [7, 8, 7]
    assert (node.versions.current(), node.nebula.running, node.adopted) == (7, 7, [7])


async def test_a_version_that_loses_every_lighthouse_is_taken_back(
    node: Node, autojump_clock: MockClock
) -> None:
    node.lighthouse.reached_by = {7}
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await node.receive(8)
        failure = await node.failed(8)
    assert (failure.reason, failure.lost) == (NO_LIGHTHOUSE, True)
    assert (node.versions.current(), node.memory.state.applied) == (7, 7)


LIGHTHOUSE: dict[str, Any] = {"am_lighthouse": True, "interval": 10, "hosts": []}


async def test_a_node_that_becomes_a_lighthouse_proves_that_by_the_other_ones(
    node: Node, autojump_clock: MockClock
) -> None:
    node.lighthouse.reached_by = {7, 8}
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await node.receive(8, lighthouse=LIGHTHOUSE)
        await node.applied(8)
        await node.receive(9, lighthouse=LIGHTHOUSE)
        assert (await node.failed(9)).reason == NO_LIGHTHOUSE


async def test_a_node_that_becomes_the_only_lighthouse_has_nobody_to_ask(
    node: Node, autojump_clock: MockClock
) -> None:
    node.lighthouse.reached_by = {7}
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await node.receive(8, lighthouse=LIGHTHOUSE, static_host_map={})
        await node.applied(8)


async def test_where_no_lighthouse_answered_before_none_is_asked_for_after(
    node: Node, autojump_clock: MockClock
) -> None:
    node.lighthouse.reached_by = set()
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await node.receive(8)
        await node.applied(8)
    assert node.memory.state.failure is None


async def test_where_neither_version_reaches_a_lighthouse_the_new_one_stays_and_is_proven_when_one_answers(
    node: Node,
    autojump_clock: MockClock,
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await trio.sleep(30)  # reached
        node.lighthouse.reached_by = set()
        await node.receive(8)
        failure = await node.failed(8)
        assert failure.reason == NEITHER
        assert (node.versions.current(), node.memory.state.applied) == (8, 7)
        before = list(node.nebula.applied)
        node.lighthouse.reached_by = None
        await node.applied(8)
        assert node.nebula.applied == [*before, 8], "proven as it runs, without going anywhere"
    assert node.memory.state.failure is None


async def test_nebula_dying_while_it_is_proven_is_no_proof(node: Node, autojump_clock: MockClock) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.nebula.dies_at = 8
        await node.receive(8)
        failure = await node.failed(8)
    assert failure.reason == "nebula ended while it was being proven"
    assert node.versions.current() == 7


async def test_the_first_version_stays_whatever_it_is_like_for_there_is_nothing_to_go_back_to(
    node: Node,
    autojump_clock: MockClock,
) -> None:
    node.nebula.refuses[7] = "it died"
    async with node.running():
        await node.receive(7)
        failure = await node.failed(7)
    assert failure.reason == "it died; there is no earlier good version"
    assert node.versions.current() == 7


@pytest.mark.parametrize("closed", ["expired", "blocklisted"])
async def test_nothing_goes_back_to_a_certificate_that_peers_refuse(
    node: Node, autojump_clock: MockClock, closed: str
) -> None:
    async with node.running():
        await node.receive(7, not_after=node.plane.now + 100)
        await node.applied(7)
        fingerprint = node.versions.certificate(7).fingerprint
        if closed == "expired":
            node.clock.at += 100
        node.nebula.refuses[8] = "it died"
        listed = [fingerprint] if closed == "blocklisted" else []
        await node.receive(8, pki={"blocklist": listed, "disconnect_invalid": True})
        failure = await node.failed(8)
    assert (
        failure.reason
        == f"it died; the certificate of version 7 {'has expired' if closed == 'expired' else 'is blocklisted'}"
    )
    assert (node.versions.current(), node.nebula.applied) == (8, [7, 8])


async def test_a_failed_version_is_tried_again_after_ten_minutes_then_twenty(
    node: Node, autojump_clock: MockClock
) -> None:
    node.test_refuses[7] = ApplyFailed("no")
    async with node.running():
        await node.receive(7)
        started = trio.current_time()
        times = []
        for attempt in range(1, 4):
            await node.until(lambda expected=attempt: len(node.tested) == expected, within_s=10_000)
            times.append(trio.current_time() - started)
        assert [round(time / 60) for time in times] == [0, 10, 30]
        assert node.memory.state.failure is not None
        assert node.memory.state.failure.attempts == 3
        node.test_refuses.clear()
        await node.until(lambda: node.memory.state.applied == 7, within_s=10_000)


async def test_a_failed_version_does_not_wait_for_its_retry_where_nebula_was_replaced(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.test_refuses[8] = ApplyFailed("it can't be run")
        await node.receive(8)
        await node.failed(8)
        node.test_refuses.clear()
        node.applier.replaced()
        await node.until(lambda: node.memory.state.applied == 8, within_s=10)
    assert node.nebula.applied == [7, 7, 8], "and what is in force was looked at first"


async def test_a_replaced_certificate_of_the_machine_is_brought_into_force_without_a_new_version(
    node: Node, autojump_clock: MockClock
) -> None:
    fingerprints: list[str | None] = []
    apply = node.nebula.apply

    async def note(wanted: Wanted) -> Applied:
        fingerprints.append(wanted.fingerprint)
        return await apply(wanted)

    node.nebula.apply = note  # type: ignore[method-assign]
    own = node.versions.directory / "host.crt"
    signed = [node.plane.certificate(node.pair.public, not_after=node.plane.now + days) for days in (10, 20)]
    own.write_text(signed[0].pem())
    async with node.running():
        before = node.versions.own_files()
        node.versions.store(
            upload.read(
                zoo.bundle(
                    {
                        "config.yml": b"lighthouse: {hosts: [10.42.0.1]}\n",
                        "ca.crt": node.plane.ca.pem().encode(),
                    }
                ),
                cluster_id=node.plane.cluster_id,
                node_id=node.plane.node_id,
                version=7,
            )
        )
        await node.memory.change(highest=7, tried=7)
        node.applier.wake()
        await node.applied(7)
        own.write_text(signed[1].pem())
        assert node.versions.own_files() != before
        node.applier.replaced()
        await node.until(lambda: len(fingerprints) == 2)
    assert fingerprints == [each.fingerprint for each in signed]
    assert [outcome.version for outcome in node.memory.state.history] == [7]


async def test_a_newer_version_does_not_wait_for_the_retry_of_a_failed_one(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.test_refuses[8] = ApplyFailed("no")
        await node.receive(8)
        await node.failed(8)
        await node.receive(9)
        await node.applied(9)
    assert node.tested == [7, 8, 9]


async def test_a_failed_version_is_tried_again_at_the_agents_start_once_the_network_is_up(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.nebula.refuses[8] = "it died"
        await node.receive(8)
        await node.failed(8)
    node.nebula.refuses.clear()
    async with node.running():
        await node.applied(8)
    assert node.nebula.applied == [7, 8, 7, 7, 8], "first what was in force"


async def test_a_version_that_lost_the_lighthouses_is_not_accepted_after_a_boot_where_none_answers_yet(
    node: Node,
    autojump_clock: MockClock,
) -> None:
    node.lighthouse.reached_by = {7}
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await node.receive(8)
        await node.failed(8)
    node.lighthouse.reached_by = set()
    async with node.running():
        await trio.sleep(50)
        assert node.nebula.applied[-1] == 7, "not tried before a lighthouse answers, or a minute has passed"
        node.lighthouse.reached_by = {7}
        await node.until(lambda: 8 in node.nebula.applied[4:])
        failure = await node.failed(8)
        await node.until(lambda: node.nebula.running == 7)
    assert (failure.lost, node.memory.state.applied) == (True, 7)


@pytest.mark.parametrize("in_force", [7, 8])
async def test_a_trial_that_a_power_cut_interrupted_is_finished_by_the_next_start(
    node: Node, autojump_clock: MockClock, in_force: int
) -> None:
    await _interrupted(node, Trial(version=8, back_to=7, must_reach=True), in_force=in_force)
    async with node.running():
        await node.applied(8)
    assert node.memory.state.trial is None


async def test_a_trial_that_a_power_cut_interrupted_still_needs_the_lighthouse_that_answered_before(
    node: Node,
    autojump_clock: MockClock,
) -> None:
    await _interrupted(node, Trial(version=8, back_to=7, must_reach=True), in_force=8)
    node.lighthouse.reached_by = {7}
    async with node.running():
        failure = await node.failed(8)
    assert (failure.reason, node.versions.current(), node.memory.state.applied) == (NO_LIGHTHOUSE, 7, 7)


async def test_a_way_back_that_a_power_cut_interrupted_is_taken_to_its_end(
    node: Node, autojump_clock: MockClock
) -> None:
    trial = Trial(version=8, back_to=7, must_reach=False, reason="it died", lost=False)
    await _interrupted(node, trial, in_force=8)
    node.test_refuses[8] = ApplyFailed("no")
    async with node.running():
        await node.until(lambda: node.nebula.running == 7)
        failure = await node.failed(8)
    assert failure.reason == "it died"
    assert 8 not in node.nebula.applied[1:]


async def _interrupted(node: Node, trial: Trial, *, in_force: int) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
    await node.receive(8)
    version = node.versions.load(8)
    node.versions.prepare(version, node.plane.membership())
    await node.memory.change(trial=trial)
    node.versions.switch(in_force)


@pytest.mark.parametrize("crash_after", range(1, 60, 2))
async def test_whenever_the_agent_dies_the_next_one_ends_up_with_a_good_version(
    node: Node, autojump_clock: MockClock, crash_after: int
) -> None:
    node.lighthouse.reached_by = {7}
    async with node.running():
        await node.receive(7)
        await node.applied(7)
    with contextlib.suppress(trio.TooSlowError):
        await node.receive(8)
        with trio.CancelScope() as scope:
            async with node.running():
                for _ in range(crash_after):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
                await trio.lowlevel.checkpoint()
    node.nebula.refuses[8] = "it died"
    async with node.running():
        failure = await node.failed(8)
    assert failure.version == 8
    assert (node.versions.current(), node.nebula.running, node.memory.state.applied) == (7, 7, 7)


async def test_a_missing_nebula_is_nobodys_fault_and_is_waited_for(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.test_refuses[8] = NebulaUnusable("nebula is not installed: install it")
        await node.receive(8)
        await node.until(lambda: node.applier.trouble is not None)
        assert node.applier.trouble == "nebula is not installed: install it"
        node.test_refuses.clear()
        await node.applied(8)
        assert node.applier.trouble is None
    assert [outcome.what for outcome in node.memory.state.history] == ["applied", "applied"]


async def test_a_full_disk_changes_nothing_and_is_waited_for(
    node: Node, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    async with node.running():
        await node.receive(7)
        await node.applied(7)
        monkeypatch.setattr(node.versions, "switch", full)
        await node.receive(8)
        await node.until(lambda: node.applier.trouble is not None)
        assert node.applier.trouble is not None
        assert "No space left" in node.applier.trouble
        assert (node.versions.current(), node.nebula.running) == (7, 7)
        monkeypatch.undo()
        await node.applied(8)


async def test_going_back_does_not_depend_on_writing_it_down(
    node: Node, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        change = node.memory.change

        async def refuse_the_way_back(**fields: Any) -> Any:
            if isinstance(trial := fields.get("trial"), Trial) and trial.reason:
                raise OSError(28, "No space left on device")
            return await change(**fields)

        monkeypatch.setattr(node.memory, "change", refuse_the_way_back)
        node.nebula.refuses[8] = "it died"
        await node.receive(8)
        await node.failed(8)
    assert node.nebula.applied == [7, 8, 7]


async def test_lighthouses_and_relays_wait_their_turn_before_a_restart_and_others_hardly(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        started = trio.current_time()
        await node.receive(8, tun={"disabled": False, "mtu": 1400}, restart_delay_s=45)
        await node.applied(8)
        assert 45 <= trio.current_time() - started < 50
        started = trio.current_time()
        await node.receive(9, tun={"disabled": False, "mtu": 1500})
        await node.applied(9)
        assert trio.current_time() - started < 5


async def test_nodes_whose_certificates_are_only_renewed_restart_one_after_the_other(
    node: Node, autojump_clock: MockClock
) -> None:
    slot_s = int(node.plane.overlay.ip) % RENEWAL_SLOTS * RENEWAL_SLOT_S
    assert slot_s >= 1
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        started = trio.current_time()
        await node.receive(8, not_after=node.plane.now + 200_000)
        await node.applied(8)
        assert slot_s <= trio.current_time() - started < slot_s + 1


async def test_a_certificate_of_another_authority_waits_until_the_lighthouses_know_everybody_again(
    node: Node, autojump_clock: MockClock
) -> None:
    slot_s = int(node.plane.overlay.ip) % RENEWAL_SLOTS * RENEWAL_SLOT_S
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.plane.ca_key = keys.generate_ed25519()
        node.plane.ca = certificate.self_sign(
            name="home",
            key=node.plane.ca_key,
            not_before=node.plane.now - 3600,
            not_after=node.plane.now + 10**8,
        )
        started = trio.current_time()
        await node.receive(8)
        await node.applied(8)
        waited_s = trio.current_time() - started
        assert slot_s + LIGHTHOUSE_SETTLE_S <= waited_s < slot_s + LIGHTHOUSE_SETTLE_S + 1


async def test_nobody_waits_for_its_turn_until_its_certificate_has_ended(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7, not_after=node.clock.at + 20)
        await node.applied(7)
        started = trio.current_time()
        await node.receive(8, restart_delay_s=45)
        await node.applied(8)
        assert 10 <= trio.current_time() - started < 11


async def test_a_version_that_was_replaced_while_it_waited_its_turn_is_never_switched_to(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        await node.receive(8, tun={"disabled": False, "mtu": 1400}, restart_delay_s=45)
        await trio.sleep(20)
        await node.receive(9)
        await node.applied(9)
    assert node.nebula.applied == [7, 9]


async def test_old_versions_are_pruned_but_good_ones_are_kept(node: Node, autojump_clock: MockClock) -> None:
    async with node.running():
        for number in range(7, 14):
            await node.receive(number)
            await node.applied(number)
    kept = sorted(int(path.name) for path in (node.versions.directory / "versions").iterdir())
    assert kept == [11, 12, 13]


async def test_a_version_whose_key_is_not_here_fails_with_a_sentence(
    node: Node, autojump_clock: MockClock
) -> None:
    async with node.running():
        await node.receive(7)
        await node.applied(7)
        node.pair = keys.generate_x25519()
        await node.receive(8)
        failure = await node.failed(8)
    assert "private key of the certificate of version 8 is not on this machine" in failure.reason
    assert node.versions.current() == 7
