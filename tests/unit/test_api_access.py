"""The access log: each kind of request is seen at once, and what goes on for hours fills no disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edgegc.api.access import AccessLog

if TYPE_CHECKING:
    import pytest


async def ask(log: AccessLog, *, seconds: int, every_s: float = 0.5, status: int = 200) -> None:
    for _ in range(int(seconds / every_s)):
        log.record(
            method="GET",
            path="/api/v1/config/version",
            route="/api/v1/config/version",
            status=status,
            seconds=0.001,
            request_id="r",
            source="192.0.2.1",
        )
        await trio.sleep(every_s)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


async def test_the_first_of_a_kind_is_logged_at_once_and_the_next_ones_are_counted(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgegc.api.access")
    log = AccessLog()
    await ask(log, seconds=3)
    first, second = lines(caplog)
    assert first == "GET /api/v1/config/version 200"
    assert second == "GET /api/v1/config/version 200 (and 3 alike before it)"
    (tally,) = log.tallies.values()
    assert tally.count == 6


async def test_what_goes_on_and_goes_well_is_a_line_a_minute(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgegc.api.access")
    log = AccessLog()
    await ask(log, seconds=120)
    assert len(lines(caplog)) <= 7
    await ask(log, seconds=600)
    assert len(lines(caplog)) == 10
    # One node that polls is no reason for more.
    await ask(log, seconds=600, every_s=30)
    assert len(lines(caplog)) <= 10


async def test_what_comes_after_a_silence_is_logged_at_once(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgegc.api.access")
    log = AccessLog()
    await ask(log, seconds=601)
    lines(caplog)
    await trio.sleep(60)
    await ask(log, seconds=3)
    assert len(lines(caplog)) == 2


async def test_what_fails_stays_in_sight(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgegc.api.access")
    log = AccessLog()
    await ask(log, seconds=60, status=503)
    assert len(lines(caplog)) == 60
