from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edgegc.agent.ping import echo_request, is_reply
from edgegc.agent.reach import AFTER_S, BEFORE_S, INTERVAL_S, RECENT_S, Reach

if TYPE_CHECKING:
    from trio.testing import MockClock

LIGHTHOUSES = ("10.42.0.1", "10.42.0.9")


class Sky:
    """Lighthouses that answer, or not; remembers how long each question was willing to wait."""

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers
        self.asked: list[tuple[tuple[str, ...], str, float]] = []

    async def __call__(self, addresses: tuple[str, ...], device: str, within_s: float) -> bool:
        self.asked.append((addresses, device, within_s))
        if not self.answers:
            await trio.sleep(within_s)
        return self.answers


async def test_without_lighthouses_nothing_is_asked_and_nothing_is_known(autojump_clock: MockClock) -> None:
    sky = Sky()
    reach = Reach(ask=sky)
    assert not await reach.before()
    assert not await reach.within(AFTER_S)
    assert (reach.reached, sky.asked) == (None, [])


async def test_an_answer_counts_for_a_minute_before_a_switch(autojump_clock: MockClock) -> None:
    sky = Sky()
    reach = Reach(ask=sky)
    reach.aim(LIGHTHOUSES, "egc-home")
    assert await reach.within(AFTER_S)
    sky.answers = False
    await trio.sleep(RECENT_S - 1)
    assert await reach.before(), "known, without asking"
    assert len(sky.asked) == 1
    await trio.sleep(2)
    assert not await reach.before()
    assert sky.asked[1:] == [(LIGHTHOUSES, "egc-home", BEFORE_S)]


async def test_what_another_version_was_answered_is_forgotten(autojump_clock: MockClock) -> None:
    reach = Reach(ask=Sky())
    reach.aim(LIGHTHOUSES, "egc-home")
    assert await reach.within(1)
    reach.forget()
    assert reach.reached is False


async def test_it_keeps_asking_and_tells_when_one_answers_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    told: list[float] = []
    sky = Sky()
    reach = Reach(ask=sky, on_answer=lambda: told.append(trio.current_time()))
    nursery.start_soon(reach.run)
    await trio.sleep(100)
    assert told == []
    reach.aim(LIGHTHOUSES, "egc-home")
    await trio.sleep(1)
    assert len(told) == 1
    await trio.sleep(10 * INTERVAL_S)
    assert (len(told), reach.reached) == (1, True)
    sky.answers = False
    await trio.sleep(RECENT_S + INTERVAL_S)
    assert reach.reached is False
    sky.answers = True
    await trio.sleep(2 * INTERVAL_S)
    assert len(told) == 2


def test_an_echo_request_has_the_checksum_of_rfc_792() -> None:
    packet = echo_request(0x1234, 1, b"abcdefghijklmnop")
    words = [int.from_bytes(packet[at : at + 2]) for at in range(0, len(packet), 2)]
    total = sum(words)
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert packet[:2] == b"\x08\x00"


def test_a_reply_is_known_by_its_payload_with_or_without_an_ip_header() -> None:
    payload = b"p" * 16
    reply = b"\x00" + echo_request(7, 1, payload)[1:]
    header = b"\x45" + bytes(19)
    assert is_reply(reply, payload)
    assert is_reply(header + reply, payload)
    assert is_reply(b"\x46" + bytes(23) + reply, payload), "an IP header with options"
    assert not is_reply(reply, b"q" * 16)
    assert not is_reply(echo_request(7, 1, payload), payload), "our own question"
    assert not is_reply(b"", payload)
