"""Nothing ends unannounced: authorities, certificates that could not be renewed, nodes that do not fetch theirs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from edgegc.control import expiry, fleet, housekeeping, nodes
from edgegc.control.health import OK
from tests.control_plane import OPERATOR, Plane, control_plane

if TYPE_CHECKING:
    import pytest

DAY = 86_400
LIFETIME = 180 * DAY
YEAR = 365 * DAY


async def said(plane: Plane) -> list[str]:
    return await plane.control.database.read(lambda connection: expiry.warnings(connection, plane.clock.at))


async def test_nothing_is_said_while_all_is_well() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        await plane.add_node("a")
        assert await said(plane) == []
        plane.clock.at += LIFETIME * 7 // 10
        await housekeeping.renew_certificates(plane.control)
        assert await said(plane) == []
        await expiry.warn(plane.control, expiry.Said())
        assert plane.control.health.said("certificates") == OK


async def test_an_authority_that_ends_within_half_a_year_is_announced_with_the_remedy() -> None:
    async with control_plane() as plane:
        plane.clock.at += 10 * YEAR - expiry.AUTHORITY_WARNING_S - 1
        assert await said(plane) == []
        plane.clock.at += 2
        (sentence,) = await said(plane)
        assert "'edgegc cluster rotate-ca home --step prepare'" in sentence
        await expiry.warn(plane.control, expiry.Said())
        report = plane.control.health.report()
        assert (report.status, report.checks["certificates"]) == ("degraded", sentence)


async def test_certificates_that_are_not_renewed_are_announced_before_they_end() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        await plane.add_node("a")
        plane.clock.at += LIFETIME * 3 // 4
        assert await said(plane) == []
        plane.clock.at += LIFETIME // 9
        mentioned = await said(plane)
        assert len(mentioned) == 2
        assert any("the node 'a' of the cluster 'home' ends at" in each for each in mentioned)
        assert any("the box's own lighthouse of the cluster 'home' ends at" in each for each in mentioned)


async def test_a_node_that_does_not_fetch_its_renewed_certificate_is_announced() -> None:
    async with control_plane() as plane:
        one, two = await plane.add_node("one"), await plane.add_node("two")
        for node in (one, two):
            version = str(plane.effective(node.id)[0])
            fleet.ride_along(plane.control, node.id, applied=version, state="ok", nebula=None)
        plane.clock.at += LIFETIME * 3 // 4
        await housekeeping.renew_certificates(plane.control)
        renewed = str(plane.effective(one.id)[0])
        fleet.ride_along(plane.control, one.id, applied=renewed, state="ok", nebula=None)
        await plane.control.fleet.flush(last_seen=False)
        assert await said(plane) == []
        plane.clock.at += LIFETIME // 8
        (sentence,) = await said(plane)
        assert "the node 'two' of the cluster 'home' has not fetched its renewed certificate" in sentence
        # A change that came since does not hide which certificate it runs.
        await plane.patch(two.id, groups=("web",))
        assert await said(plane) == [sentence]
        await nodes.delete(plane.control, OPERATOR, two.id)
        assert await said(plane) == []


async def test_a_warning_is_logged_once_a_day_and_again_when_it_comes_back(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with control_plane() as plane:
        said_before = expiry.Said()
        plane.clock.at += 10 * YEAR - DAY

        async def lines() -> int:
            caplog.clear()
            await expiry.warn(plane.control, said_before)
            return sum(record.levelno == logging.WARNING for record in caplog.records)

        assert [await lines(), await lines()] == [1, 0]
        await trio.sleep(expiry.AGAIN_S)
        assert await lines() == 1
        plane.clock.at -= YEAR
        assert await lines() == 0
        plane.clock.at += YEAR
        assert await lines() == 1


async def test_a_certificate_of_a_minute_is_renewed_the_second_it_is_due(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_threads(monkeypatch)
    async with control_plane(cluster={"certificate_lifetime_s": 60}) as plane:
        node = await plane.add_node("a")
        start = plane.clock.at - trio.current_time()
        monkeypatch.setattr(plane.clock, "now", lambda: int(start + trio.current_time()))
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: housekeeping.run(plane.control, task_status=task_status))
            for _ in range(3):
                before = (await plane.node(node.id)).certificate
                due = await plane.control.database.read(
                    lambda connection: connection.execute(
                        "SELECT renew_at FROM certificates WHERE state = 'current'"
                    ).fetchone()[0]
                )
                await trio.sleep(due - plane.clock.now() - 1)
                assert (await plane.node(node.id)).certificate == before
                await trio.sleep(2)
                assert (await plane.node(node.id)).certificate != before
            nursery.cancel_scope.cancel()


def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the chore that waits for a thread: a clock that jumps would not."""

    async def nothing(control: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(housekeeping, "prune_backups", nothing)
