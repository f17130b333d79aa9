"""Answers about nodes that are kept: always what is true now, made once while nothing changes, bounded, for callers who may."""

from __future__ import annotations

import msgspec
import pytest
import trio

from edgegc.control import fleet, node_answers, node_lists, nodes, policies
from edgegc.control.answer_cache import ID_BYTES, Answers, Basis
from edgegc.errors import Forbidden, NotFound
from edgegc.model import message
from tests.control_plane import OPERATOR, Plane, control_plane

encode = msgspec.json.encode

QUERIES = (
    message.NodeQuery(),
    message.NodeQuery(page_size=1, page=2),
    message.NodeQuery(sort="-name"),
    message.NodeQuery(sort="-last_seen_at"),
    message.NodeQuery(state="offline"),
    message.NodeQuery(name="a"),
)


async def check(plane: Plane, node_id: str) -> None:
    """Compare all answers with what the rows and the fleet say; the second time, with those that were kept."""
    control = plane.control
    for _ in range(2):
        node = await nodes.get(control, OPERATOR, node_id)
        assert await node_answers.node(control, OPERATOR, node_id) == encode(node)
        for query in QUERIES:
            page = await node_lists.list_(control, OPERATOR, plane.cluster_id, query)
            assert await node_answers.page(control, OPERATOR, plane.cluster_id, query) == encode(page)


async def test_an_answer_is_always_what_is_true_now(autojump_clock: trio.abc.Clock) -> None:
    async with control_plane() as plane:
        control = plane.control
        made = await plane.add_node("a")
        await plane.add_node("b")
        await check(plane, made.id)
        caller = await plane.caller(made.node_token)
        await check(plane, made.id)
        plane.clock.at += 5
        await plane.patch(made.id, mtu=1400)
        await check(plane, made.id)
        await plane.patch(made.id, name="c")
        await check(plane, made.id)
        await nodes.set_relay(control, OPERATOR, made.id)
        await check(plane, made.id)
        await nodes.set_routes(control, OPERATOR, made.id, message.Routes(routes=("10.20.0.0/16",)))
        await check(plane, made.id)
        await policies.put(control, OPERATOR, plane.cluster_id, message.Policy(inbound=(), outbound=()))
        await check(plane, made.id)
        fleet.report(control, caller, message.Report(applied_version=1, state="failed", error="no"))
        await check(plane, made.id)
        fleet.ride_along(control, made.id, applied=None, state=None, nebula="1.9.3")
        await check(plane, made.id)
        plane.clock.at += 5
        control.fleet.seen(made.id)
        await check(plane, made.id)
        await trio.sleep(91)
        await check(plane, made.id)
        control.fleet.hold(made.id)
        await check(plane, made.id)
        await trio.sleep(91)
        await check(plane, made.id)
        control.fleet.release(made.id)
        await check(plane, made.id)
        await trio.sleep(91)
        await check(plane, made.id)
        other = await plane.add_node("d")
        await check(plane, made.id)
        await nodes.delete(control, OPERATOR, other.id)
        await check(plane, made.id)
        await nodes.delete(control, OPERATOR, made.id)
        with pytest.raises(NotFound):
            await node_answers.node(control, OPERATOR, made.id)


async def test_an_answer_is_made_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with control_plane() as plane:
        control = plane.control
        node = await plane.add_node("a")
        query = message.NodeQuery()
        first = [
            await node_answers.node(control, OPERATOR, node.id),
            await node_answers.page(control, OPERATOR, plane.cluster_id, query),
        ]
        monkeypatch.setattr(control.database, "read", None)
        # Who is not shown changes nothing.
        control.fleet.seen("somebody else")
        assert await node_answers.node(control, OPERATOR, node.id) is first[0]
        assert await node_answers.page(control, OPERATOR, plane.cluster_id, query) is first[1]


async def test_a_new_node_does_not_make_the_answers_about_others_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        body = await node_answers.node(plane.control, OPERATOR, node.id)
        await plane.add_node("b")
        monkeypatch.setattr(plane.control.database, "read", None)
        assert await node_answers.node(plane.control, OPERATOR, node.id) is body


async def test_who_may_not_read_gets_no_kept_answer_either() -> None:
    async with control_plane() as plane:
        control = plane.control
        node = await plane.add_node("a")
        member = await plane.caller(node.node_token)
        await node_answers.node(control, OPERATOR, node.id)
        await node_answers.page(control, OPERATOR, plane.cluster_id, message.NodeQuery())
        with pytest.raises(Forbidden):
            await node_answers.node(control, member, node.id)
        with pytest.raises(Forbidden):
            await node_answers.page(control, member, None, message.NodeQuery())


async def test_what_is_kept_is_bounded_and_the_least_used_goes_first() -> None:
    async with control_plane() as plane:
        answers = Answers(plane.control.fleet, capacity_bytes=3 * (10 + ID_BYTES))
        basis = Basis(None, 1)
        for asked in "abc":
            answers.keep(asked, basis, bytes(10), node_ids=("x",))
        assert await answers.get("a", basis) == bytes(10)
        answers.keep("d", basis, bytes(10), node_ids=("x",))
        assert [asked for asked in "abcd" if await answers.get(asked, basis) is None] == ["b"]
        answers.keep("a", basis, bytes(1000), node_ids=("x",))
        assert await answers.get("a", basis) is None
        assert answers.size_bytes == 2 * (10 + ID_BYTES)
