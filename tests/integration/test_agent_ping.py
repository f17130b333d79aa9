"""Real ICMP over the loopback device."""

from __future__ import annotations

import pytest
import trio

from edgegc.agent import ping

pytestmark = pytest.mark.skipif(
    ping.may_ping() is not None, reason="needs CAP_NET_RAW or net.ipv4.ping_group_range"
)


async def test_an_address_that_answers_is_heard_among_others_that_do_not() -> None:
    with trio.fail_after(10):
        assert await ping.any_answers(("192.0.2.1", "127.0.0.1"), device="lo", within_s=5)


async def test_silence_ends_in_time() -> None:
    with trio.fail_after(10):
        assert not await ping.any_answers(("192.0.2.1",), device="lo", within_s=0.2)
        assert not await ping.any_answers((), device="lo", within_s=5)


async def test_a_device_that_is_not_there_is_silence() -> None:
    with trio.fail_after(10):
        assert not await ping.any_answers(("127.0.0.1",), device="egc-none", within_s=0.2)
