"""Held version checks: woken by what concerns them, by nothing else, and never lost."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from edgegc.control import held_polls, nodes, polls
from edgegc.control.held_polls import Answer
from edgegc.errors import Unauthorized
from edgegc.settings import Limits
from tests.control_plane import OPERATOR, Plane, control_plane


class Poll:
    """A version check that runs beside the test."""

    def __init__(self) -> None:
        self.answer: Answer | None = None

    async def run(self, plane: Plane, node_id: str, *, current: int, wait_s: float = 60) -> None:
        self.answer = await polls.wait(plane.control, node_id, current=current, wait_s=wait_s)


async def hold(nursery: trio.Nursery, plane: Plane, node_id: str) -> Poll:
    poll = Poll()
    nursery.start_soon(lambda: poll.run(plane, node_id, current=plane.control.roll.effective(node_id)))
    await trio.testing.wait_all_tasks_blocked()
    assert poll.answer is None
    return poll


async def test_without_a_current_version_the_answer_is_immediate() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        answer = await polls.wait(plane.control, node.id, current=None, wait_s=60)
    assert answer == Answer(version=node.version)


async def test_another_version_than_the_current_one_is_answered_at_once() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        answer = await polls.wait(plane.control, node.id, current=node.version + 7, wait_s=60)
    assert answer == Answer(version=node.version)


async def test_a_held_poll_is_answered_when_its_version_moves(autojump_clock: trio.abc.Clock) -> None:
    async with control_plane() as plane, trio.open_nursery() as nursery:
        node = await plane.add_node("a")
        poll = await hold(nursery, plane, node.id)
        started = trio.current_time()
        changed = await plane.patch(node.id, mtu=1400)
        await trio.testing.wait_all_tasks_blocked()
        assert poll.answer == Answer(version=changed.version, waited=True)
        assert trio.current_time() - started < 1


async def test_a_held_poll_is_woken_before_the_writer_is_answered() -> None:
    async with control_plane() as plane, trio.open_nursery() as nursery:
        node = await plane.add_node("a")
        poll = await hold(nursery, plane, node.id)
        order: list[str] = []

        async def write() -> None:
            await plane.patch(node.id, mtu=1400)
            order.append("writer")

        async def watch() -> None:
            while poll.answer is None:
                await trio.lowlevel.checkpoint()
            order.append("poll")

        nursery.start_soon(write)
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        assert poll.answer is not None
        assert set(order) == {"poll", "writer"}


async def test_whoever_has_no_task_to_wait_in_is_woken_by_one_call_before_the_writer_is_answered() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        calls: list[int] = []
        waiter = polls.park(
            plane.control,
            node.id,
            current=node.version,
            wake=lambda: calls.append(plane.control.roll.effective(node.id)),
        )
        assert waiter is not None
        changed = await plane.patch(node.id, mtu=1400)
        await plane.patch(node.id, mtu=1500)
        assert calls == [changed.version]
        assert polls.leave(plane.control, waiter).version == plane.control.roll.effective(node.id)
        assert plane.control.polls.held == 0


@pytest.mark.parametrize("ahead", [None, 1])
async def test_a_check_without_anything_to_wait_for_is_not_held(ahead: int | None) -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        current = None if ahead is None else node.version + ahead
        assert polls.park(plane.control, node.id, current=current, wake=pytest.fail) is None
        assert plane.control.fleet.presence(node.id).held == 0


async def test_a_held_poll_is_answered_at_its_deadline(autojump_clock: trio.abc.Clock) -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        started = trio.current_time()
        answer = await polls.wait(plane.control, node.id, current=node.version, wait_s=55)
        assert trio.current_time() - started == 55
    assert answer == Answer(version=node.version, waited=True)


async def test_what_concerns_others_wakes_nobody(autojump_clock: trio.abc.Clock) -> None:
    async with control_plane() as plane, trio.open_nursery() as nursery:
        node, other = await plane.add_node("a"), await plane.add_node("b")
        poll = await hold(nursery, plane, node.id)
        await plane.patch(other.id, mtu=1400)
        await plane.patch(node.id, name="renamed")
        await plane.add_node("c")
        await trio.testing.wait_all_tasks_blocked()
        assert poll.answer is None
        nursery.cancel_scope.cancel()


async def test_a_third_poll_of_a_node_answers_the_oldest() -> None:
    async with control_plane() as plane, trio.open_nursery() as nursery:
        node = await plane.add_node("a")
        held = [await hold(nursery, plane, node.id) for _ in range(4)]
        assert [poll.answer is not None for poll in held] == [True, True, False, False]
        assert plane.control.polls.held == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("action", [nodes.delete, nodes.rotate_token])
async def test_a_deleted_node_or_a_rotated_token_ends_the_poll(action: object) -> None:
    async with control_plane() as plane, trio.open_nursery() as nursery:
        node = await plane.add_node("a")
        caller = await plane.caller(node.node_token)
        assert caller.node_id == node.id
        poll = await hold(nursery, plane, node.id)
        await action(plane.control, OPERATOR, node.id)  # type: ignore[operator]
        await trio.testing.wait_all_tasks_blocked()
        assert poll.answer is not None
        assert poll.answer.waited
        with pytest.raises(Unauthorized):
            await plane.caller(node.node_token)


async def test_many_that_wake_at_once_are_told_to_spread_out() -> None:
    async with control_plane() as plane, trio.open_nursery() as nursery:
        ids = [(await plane.add_node(f"n{number}")).id for number in range(120)]
        held = [Poll() for _ in ids]
        for poll, node_id in zip(held, ids, strict=True):
            current = plane.control.roll.effective(node_id)
            nursery.start_soon(lambda p=poll, n=node_id, c=current: p.run(plane, n, current=c))  # type: ignore[misc]
        await trio.testing.wait_all_tasks_blocked()
        await nodes.set_relay(plane.control, OPERATOR, ids[0])
        await trio.testing.wait_all_tasks_blocked()
        assert {poll.answer.spread_s for poll in held if poll.answer is not None} == {2}
        assert all(poll.answer is not None for poll in held)


async def test_where_no_more_can_be_held_the_answer_is_an_interval() -> None:
    async with control_plane(limits=Limits(held_polls=1)) as plane, trio.open_nursery() as nursery:
        first, second = await plane.add_node("a"), await plane.add_node("b")
        await hold(nursery, plane, first.id)
        answer = await polls.wait(plane.control, second.id, current=second.version, wait_s=60)
        assert answer == Answer(version=second.version, interval_s=held_polls.INTERVAL_S)
        nursery.cancel_scope.cancel()


async def test_where_memory_is_short_nothing_is_held() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        plane.control.polls.memory_short = True
        answer = await polls.wait(plane.control, node.id, current=node.version, wait_s=60)
    assert answer.interval_s == held_polls.INTERVAL_S


async def test_a_cancelled_poll_leaves_nothing_behind() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        async with trio.open_nursery() as nursery:
            await hold(nursery, plane, node.id)
            assert plane.control.fleet.state_of(node.id) != "offline"
            nursery.cancel_scope.cancel()
        assert plane.control.polls.held == 0
        assert plane.control.fleet.presence(node.id).held == 0


async def test_shutdown_answers_every_held_poll() -> None:
    async with control_plane() as plane, trio.open_nursery() as nursery:
        node = await plane.add_node("a")
        poll = await hold(nursery, plane, node.id)
        plane.control.polls.release_all()
        await trio.testing.wait_all_tasks_blocked()
        assert poll.answer == Answer(version=node.version, waited=True)
