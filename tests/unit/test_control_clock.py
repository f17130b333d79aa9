"""A clock that was ahead once, and is right now: nothing is signed until the operator says so, and then everything is well."""

from __future__ import annotations

import pytest

from edgegc import build
from edgegc.control import housekeeping, maintenance
from edgegc.errors import Conflict, Forbidden, Unavailable
from edgegc.model import message
from tests.control_plane import OPERATOR, Plane, control_plane

AHEAD = 60 * 365 * 86_400
LIFETIME = 180 * 86_400


async def with_a_past_in_the_future(plane: Plane) -> tuple[message.NodeView, message.NodeView]:
    """Let one node be made at the right time and one sixty years later, and set the clock right again."""
    before = await plane.add_node("before")
    plane.clock.at += AHEAD
    # What the wrong clock does by itself: everything is expired, so everything is signed again.
    await housekeeping.renew_certificates(plane.control)
    ahead = await plane.add_node("ahead", keyed=False)
    plane.clock.at -= AHEAD - 600
    return before, ahead


async def test_nothing_is_signed_until_the_operator_accepts_the_clock() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        before, _ = await with_a_past_in_the_future(plane)
        with pytest.raises(Unavailable, match="edgegc clock --accept"):
            await plane.add_node("refused")
        done = await maintenance.accept_clock(plane.control, OPERATOR)
        assert done.ok
        await plane.add_node("accepted")
        await housekeeping.watch_clock(plane.control)
        assert plane.control.health.said("clock") == "ok"
        # What was due then because everything seemed to have ended is not due now.
        await housekeeping.renew_certificates(plane.control)
        assert (await plane.node(before.id)).certificate == before.certificate
        plane.clock.at += LIFETIME * 3 // 4
        await housekeeping.renew_certificates(plane.control)
        plane.clock.at += housekeeping.LIGHTHOUSE_SETTLE_S
        await housekeeping.renew_certificates(plane.control)
        again = (await plane.node(before.id)).certificate
        assert again is not None
        assert again.not_after == message.rfc3339(plane.clock.at + LIFETIME)


async def test_certificates_from_the_future_are_signed_again_and_their_number_is_said() -> None:
    async with control_plane() as plane:
        # Ahead by less than the authority lives, or nothing could be signed then.
        node = await plane.add_node("a")
        plane.clock.at += LIFETIME
        await housekeeping.renew_certificates(plane.control)
        plane.clock.at -= LIFETIME - 600
        done = await maintenance.accept_clock(plane.control, OPERATOR)
        assert "1 certificates made by the clock that was ahead are signed again" in done.detail
        assert "not valid yet" not in done.detail
        await housekeeping.renew_certificates(plane.control)
        again = (await plane.node(node.id)).certificate
        assert again is not None
        assert again.not_after == message.rfc3339(plane.clock.at + LIFETIME)


async def test_a_certificate_that_waits_for_the_blocklist_until_the_future_waits_no_longer() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a", groups=("web",))
        plane.clock.at += LIFETIME // 2
        await plane.patch(node.id, groups=())
        plane.clock.at -= LIFETIME // 2 - 600
        await maintenance.accept_clock(plane.control, OPERATOR)
        await housekeeping.blocklist_replaced(plane.control)
        listed = await plane.control.database.read(
            lambda connection: [row[0] for row in connection.execute("SELECT fingerprint FROM blocklist")]
        )
        assert node.certificate is not None
        assert listed == [node.certificate.fingerprint]


async def test_a_cluster_made_in_the_future_is_named() -> None:
    async with control_plane() as plane:
        plane.clock.at += AHEAD
        await plane.add_cluster("future")
        plane.clock.at -= AHEAD
        done = await maintenance.accept_clock(plane.control, OPERATOR)
        assert done.detail.endswith("replace it with 'edgegc cluster rotate-ca': future")


async def test_accepting_a_clock_that_is_trusted_changes_nothing() -> None:
    async with control_plane() as plane:
        await plane.add_node("a")
        before = plane.control.database.stats()
        done = await maintenance.accept_clock(plane.control, OPERATOR)
        assert "trusted already" in done.detail
        assert plane.control.database.stats().failed_writes == before.failed_writes
        # And later lies are found out as ever.
        plane.clock.at -= 7200
        with pytest.raises(Unavailable):
            await plane.add_node("b")


async def test_a_clock_that_is_accepted_is_watched_from_then_on() -> None:
    async with control_plane() as plane:
        await with_a_past_in_the_future(plane)
        await maintenance.accept_clock(plane.control, OPERATOR)
        await plane.add_node("a")
        plane.clock.at -= 3601
        with pytest.raises(Unavailable):
            await plane.add_node("b")


async def test_a_clock_before_the_build_is_never_accepted_and_only_the_operator_accepts() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        with pytest.raises(Forbidden):
            await maintenance.accept_clock(plane.control, await plane.caller(node.node_token))
        plane.clock.at = build.built_at() - 1
        with pytest.raises(Conflict, match="before this edgegc was built"):
            await maintenance.accept_clock(plane.control, OPERATOR)
