"""Housekeeping: renewal in time and worth it, clocks that lie, rows that leave, a log that is brought in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from edgegc import build
from edgegc.control import certificates, enrolment, housekeeping, lighthouses, nodes, signing
from edgegc.control.failures import AUTHENTICATION_FAILED
from edgegc.errors import Unavailable
from edgegc.model import message
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control

DAY = 86_400
LIFETIME = 180 * DAY


async def count(plane: Plane, table: str) -> int:
    def job(connection: sqlite3.Connection) -> int:
        return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])

    return await plane.control.database.read(job)


async def test_nothing_is_renewed_before_its_time_and_everything_after() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        node = await plane.add_node("a")
        (lighthouse,) = await lighthouses.desired(plane.control)
        plane.clock.at += int(LIFETIME * 2 / 3 * 0.95) - 10
        await housekeeping.renew_certificates(plane.control)
        assert (await plane.node(node.id)).certificate == node.certificate
        plane.clock.at += int(LIFETIME * 2 / 3 * 0.1) + 20
        await housekeeping.renew_certificates(plane.control)
        plane.clock.at += housekeeping.LIGHTHOUSE_SETTLE_S
        await housekeeping.renew_certificates(plane.control)
        renewed = (await plane.node(node.id)).certificate
        assert renewed is not None
        assert renewed.not_after == message.rfc3339(plane.clock.at + LIFETIME)
        (again,) = await lighthouses.desired(plane.control)
        assert again.fingerprint != lighthouse.fingerprint
        assert again.version > lighthouse.version
        assert again.key_pem == lighthouse.key_pem
        assert plane.effective(node.id)[0] > node.version


def test_renewals_of_a_fleet_are_spread_by_node_id() -> None:
    due = {
        signing.renew_at(issued_at=0, not_after=LIFETIME, subject=f"node {number}") for number in range(100)
    }
    assert len(due) == 100
    assert all(LIFETIME * 2 / 3 * 0.95 - 1 <= at <= LIFETIME * 2 / 3 * 1.05 + 1 for at in due)


async def test_a_renewal_that_gains_too_little_is_not_made_and_not_tried_again() -> None:
    async with control_plane() as plane:
        # The authority ends in ten years, and so does whatever it signs.
        plane.clock.at += 10 * 365 * DAY - LIFETIME // 2
        node = await plane.add_node("a")
        before = plane.effective(node.id)
        plane.clock.at += LIFETIME // 2 - 10
        await housekeeping.renew_certificates(plane.control)
        assert plane.effective(node.id) == before
        due = await plane.control.database.read(
            lambda connection: connection.execute("SELECT renew_at FROM certificates").fetchall()
        )
        assert due == [(None,)]


async def test_an_authority_that_has_ended_keeps_nobody_else_s_certificates_from_being_renewed() -> None:
    async with control_plane() as plane:
        old = await plane.add_node("old")
        plane.clock.at += 10 * 365 * DAY + 1
        cluster = await plane.add_cluster("other")
        young = await plane.add_node("young", cluster_id=cluster.id)
        plane.clock.at += LIFETIME * 3 // 4
        wait_s = await housekeeping.renew_certificates(plane.control)
        assert wait_s is not None
        assert wait_s > DAY
        assert (await plane.node(old.id)).certificate == old.certificate
        assert (await plane.node(young.id)).certificate != young.certificate


async def test_nodes_are_renewed_when_their_lighthouse_has_been_and_knows_everybody_again() -> None:
    async with control_plane(cluster={"certificate_lifetime_s": 60, "provide_lighthouse": True}) as plane:
        (lighthouse,) = await lighthouses.desired(plane.control)
        # Due a few seconds before the lighthouse, and a few after it.
        plane.clock.at -= 5
        early = await plane.add_node("early")
        plane.clock.at += 10
        late = await plane.add_node("late")
        plane.clock.at += 34
        wait_s = await housekeeping.renew_certificates(plane.control)
        assert wait_s == housekeeping.LIGHTHOUSE_SETTLE_S
        (again,) = await lighthouses.desired(plane.control)
        assert again.fingerprint != lighthouse.fingerprint
        for node in (early, late):
            assert (await plane.node(node.id)).certificate == node.certificate
        plane.clock.at += housekeeping.LIGHTHOUSE_SETTLE_S
        await housekeeping.renew_certificates(plane.control)
        for node in (early, late):
            assert (await plane.node(node.id)).certificate != node.certificate
        assert await lighthouses.desired(plane.control) == [again]


async def test_a_certificate_of_a_minute_is_renewed_in_time() -> None:
    async with control_plane(cluster={"certificate_lifetime_s": 60}) as plane:
        node = await plane.add_node("a")
        plane.clock.at += 43
        await housekeeping.renew_certificates(plane.control)
        renewed = (await plane.node(node.id)).certificate
        assert renewed is not None
        assert renewed.not_after == message.rfc3339(plane.clock.at + 60)


async def test_a_change_that_is_undone_within_the_second_gets_a_certificate_of_its_own() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        seen = {node.certificate.fingerprint} if node.certificate else set()
        for groups in (("web",), (), ("web",), ()):
            certificate = (await plane.patch(node.id, groups=groups)).certificate
            assert certificate is not None
            seen.add(certificate.fingerprint)
        assert len(seen) == 5
        plane.clock.at += 600
        await housekeeping.blocklist_replaced(plane.control)
        current = (await plane.node(node.id)).certificate
        listed = await plane.control.database.read(
            lambda connection: {row[0] for row in connection.execute("SELECT fingerprint FROM blocklist")}
        )
        assert current is not None
        assert current.fingerprint not in listed
        assert len(listed) == 4


async def test_a_certificate_that_expired_before_its_turn_is_not_blocklisted() -> None:
    async with control_plane(cluster={"certificate_lifetime_s": 60}) as plane:
        node = await plane.add_node("a")
        await plane.patch(node.id, overlay_ip="10.42.9.9")
        other = await plane.add_node("b")
        before = plane.effective(other.id)
        plane.clock.at += 600
        await housekeeping.blocklist_replaced(plane.control)
        assert plane.effective(other.id) == before
        assert await count(plane, "blocklist") == 0


async def test_nothing_is_signed_before_the_build_date() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("keyless", keyed=False)
        caller = await plane.caller(node.node_token)
        plane.clock.at = build.built_at() - 1
        with pytest.raises(Unavailable, match="before this edgegc was built") as caught:
            await certificates.issue(
                plane.control, caller, message.CertificateRequest(public_key=new_public_key())
            )
        assert caught.value.retry_after_s is not None
        await housekeeping.watch_clock(plane.control)
        report = plane.control.health.report()
        assert report.status == "degraded"
        assert "set the clock" in report.checks["clock"]


async def test_nothing_is_signed_more_than_an_hour_behind_the_newest_change() -> None:
    async with control_plane() as plane:
        await plane.add_node("a")
        newest = plane.clock.at
        plane.clock.at = newest - 3600
        await plane.add_node("b")
        plane.clock.at = newest - 3601
        with pytest.raises(Unavailable, match="the last change was made at"):
            await plane.add_node("c")
        with pytest.raises(Unavailable):
            await plane.add_cluster("other")
        # What needs no signature goes on.
        await plane.add_node("d", keyed=False)
        plane.clock.at = newest
        await plane.add_node("c")
        await housekeeping.watch_clock(plane.control)
        assert plane.control.health.report().checks["clock"] == "ok"


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the chore that waits for a thread: a clock that jumps would not."""

    async def nothing(control: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(housekeeping, "prune_backups", nothing)


@pytest.mark.usefixtures("without_threads")
async def test_a_wrong_clock_leaves_renewals_due_and_says_so(autojump_clock: trio.abc.Clock) -> None:
    async with control_plane(cluster={"certificate_lifetime_s": 60}) as plane:
        node = await plane.add_node("a")
        plane.clock.at += 86_400
        await plane.add_node("b", keyed=False)
        plane.clock.at -= 7200
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: housekeeping.run(plane.control, task_status=task_status))
            await trio.sleep(1)
            assert (await plane.node(node.id)).certificate == node.certificate
            assert "housekeeping.certificates" in plane.control.health.report().checks
            plane.clock.at += 7200
            await trio.sleep(housekeeping.RENEWAL_S + 1)
            assert (await plane.node(node.id)).certificate != node.certificate
            assert "housekeeping.certificates" not in plane.control.health.report().checks
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("without_threads")
async def test_a_chore_that_crashes_is_said_and_keeps_no_other_from_being_done(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [True]
    blocklist = housekeeping.blocklist_replaced

    async def crash(control: Control) -> None:
        if broken:
            raise AssertionError("a bug")
        await blocklist(control)

    monkeypatch.setattr(housekeeping, "blocklist_replaced", crash)
    async with control_plane() as plane:
        node = await plane.add_node("a")
        plane.clock.at += LIFETIME * 3 // 4
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: housekeeping.run(plane.control, task_status=task_status))
            await trio.sleep(1)
            assert (await plane.node(node.id)).certificate != node.certificate
            said = plane.control.health.report().checks["housekeeping.blocklist"]
            assert said == "internal error: AssertionError('a bug'); see the log"
            assert "housekeeping crashed: blocklist" in caplog.text
            broken.clear()
            await trio.sleep(housekeeping.TICK_S)
            assert "housekeeping.blocklist" not in plane.control.health.report().checks
            nursery.cancel_scope.cancel()


async def test_expired_certificates_and_old_audit_rows_are_forgotten() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        await plane.patch(node.id, groups=("web",))
        assert await count(plane, "certificates") == 2
        plane.clock.at += housekeeping.AUDIT_KEPT_S + 1
        await nodes.rotate_token(plane.control, OPERATOR, node.id)
        await housekeeping.trim(plane.control)
        assert await count(plane, "certificates") == 1
        assert await count(plane, "audit") == 1


async def test_expired_enrolment_keys_are_forgotten_and_their_nodes_stay() -> None:
    async with control_plane() as plane:
        used, _ = await plane.key(expires_in_s=60), await plane.key(expires_in_s=90 * 86_400)
        request = message.Enroll(name="a", public_key=new_public_key())
        node = await enrolment.enroll(plane.control, used, request)
        plane.clock.at += 60 + housekeeping.KEYS_KEPT_S
        await housekeeping.trim(plane.control)
        assert await count(plane, "enrolment_keys") == 2
        plane.clock.at += 1
        await housekeeping.trim(plane.control)
        assert await count(plane, "enrolment_keys") == 1
        assert (await plane.node(node.node_id)).name == "a"


async def test_refusals_do_not_push_out_what_was_really_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "REFUSALS_KEPT_ROWS", 3)
    async with control_plane() as plane:
        done = await count(plane, "audit")
        for number in range(10):
            plane.control.failures.note(
                actor="unknown",
                action=AUTHENTICATION_FAILED,
                what="malformed token",
                source=f"192.0.2.{number}",
                request_id="",
            )
        await plane.control.failures.flush()
        await housekeeping.trim(plane.control)
        assert await count(plane, "audit") == done + 3


@pytest.mark.usefixtures("without_threads")
async def test_an_idle_box_writes_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        await plane.caller(node.node_token)
        before = plane.control.database.stats().writes
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: housekeeping.run(plane.control, task_status=task_status))
            await trio.sleep(3600)
            nursery.cancel_scope.cancel()
        # The trimming looks once at the start, and once an hour; optimising is no write.
        assert plane.control.database.stats().writes - before <= 3


async def test_every_write_leaves_one_audit_row_that_says_who_and_what() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        await plane.patch(node.id, mtu=1400)
        await plane.patch(node.id, mtu=1400)
        await nodes.set_relay(plane.control, OPERATOR, node.id)
        await nodes.set_routes(plane.control, OPERATOR, node.id, message.Routes(routes=("172.16.0.0/24",)))
        await nodes.delete(plane.control, OPERATOR, node.id)

        def rows(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return connection.execute(
                "SELECT actor, action, target = ?, request_id, source FROM audit WHERE action LIKE 'node.%' ORDER BY id",
                (node.id,),
            ).fetchall()

        found = await plane.control.database.read(rows)
    assert found == [
        ("operator:socket", f"node.{action}", 1, "test-request", "socket")
        for action in ("create", "update", "relay.set", "routes", "delete")
    ]
