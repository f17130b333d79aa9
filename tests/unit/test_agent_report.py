from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from edgegc.agent.report import RETRY_S, Condition, Reporter
from edgegc.client import Unreachable
from edgegc.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from edgegc.model.message import Report

OK = Condition(applied=7, state="ok", nebula_version="1.9.3")
APPLYING = Condition(applied=7, state="applying")
FAILED = Condition(applied=7, state="failed", error="it broke")


class Plane:
    """Takes reports, or is not there."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.there = True

    async def ask(self, question: Callable[[Any], Awaitable[None]]) -> None:
        await question(self)

    async def report(self, report: Report) -> None:
        await trio.lowlevel.checkpoint()
        if not self.there:
            raise Unreachable("nobody there")
        self.reports.append(report)


class World:
    def __init__(self, condition: Condition) -> None:
        self.plane = Plane()
        self.condition = condition
        self.reporter = Reporter(servers=self.plane, look=lambda: self.condition, reached=lambda: True)  # type: ignore[arg-type]

    def become(self, condition: Condition) -> None:
        self.condition = condition
        self.reporter.changed()

    def said(self) -> list[tuple[str, str | None]]:
        return [(report.state, report.error) for report in self.plane.reports]


async def test_what_rides_along_with_a_question_is_not_reported_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(OK)
    with world.reporter.riding_along() as headers:
        nursery.start_soon(world.reporter.run)
        await trio.sleep(100)
    assert headers == {"Edgegc-Applied": "7", "Edgegc-State": "ok", "Edgegc-Nebula": "1.9.3"}
    assert world.said() == []


async def test_a_change_while_a_question_is_held_is_reported_when_it_lasts(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(OK)
    with world.reporter.riding_along():
        nursery.start_soon(world.reporter.run)
        await trio.sleep(1)
        world.become(APPLYING)
        await trio.sleep(0.5)
        world.become(OK)
        await trio.sleep(10)
        assert world.said() == []
        world.become(APPLYING)
        await trio.sleep(10)
    assert world.said() == [("applying", None)]


async def test_an_error_is_reported_once_at_once_and_its_state_rides_along_only_afterwards(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(FAILED)
    with world.reporter.riding_along() as headers:
        assert "Edgegc-State" not in headers
    nursery.start_soon(world.reporter.run)
    await trio.sleep(0.1)
    assert world.said() == [("failed", "it broke")]
    with world.reporter.riding_along() as headers:
        assert headers["Edgegc-State"] == "failed"
    await trio.sleep(100)
    assert len(world.said()) == 1


async def test_a_report_that_was_not_taken_is_made_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(FAILED)
    world.plane.there = False
    nursery.start_soon(world.reporter.run)
    await trio.sleep(1)
    world.plane.there = True
    await trio.sleep(RETRY_S + 1)
    assert world.said() == [("failed", "it broke")]


async def test_a_token_that_is_not_valid_is_not_tried_in_a_loop(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(FAILED)
    asked: list[float] = []

    async def refuse(question: object) -> None:
        await trio.lowlevel.checkpoint()
        asked.append(trio.current_time())
        raise Unauthorized("unauthorized")

    world.plane.ask = refuse  # type: ignore[assignment]
    nursery.start_soon(world.reporter.run)
    for _ in range(60):
        await trio.sleep(15)
        world.reporter.changed()
    assert len(asked) == 3


async def test_what_rode_along_with_a_question_that_was_lost_counts_as_untold(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(OK)
    nursery.start_soon(world.reporter.run)
    with pytest.raises(Unreachable), world.reporter.riding_along():
        raise Unreachable("the connection broke")
    await trio.sleep(10)
    assert world.said() == [("ok", None)]


async def test_a_machine_that_runs_nothing_yet_has_nothing_to_say(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(Condition(applied=None, state="applying"))
    nursery.start_soon(world.reporter.run)
    with world.reporter.riding_along() as headers:
        await trio.sleep(100)
    assert (headers, world.said()) == ({}, [])
