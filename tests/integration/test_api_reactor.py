"""Who polls rests in the reactor, and comes back out of it for whatever is not the lane's, with nothing lost."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from edgegc.api import bounds, tls
from tests.link import connected
from tests.polling import HELD, LANE, NEWS, ODD, PLAIN, FakeLane, FakeTaken, app, paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.link import Client

BIG = b"GET /big HTTP/1.1\r\n\r\n"
BIG_ANSWER = bytes(range(256)) * 8192


class Lane(FakeLane):
    """Has an answer that no socket takes at once, one that crashes, and something to do at each request."""

    def __init__(self) -> None:
        super().__init__()
        self.on_request: Callable[[], None] = lambda: None

    def take(self, received: bytes | bytearray, *, source: str) -> FakeTaken | None:
        self.on_request()
        if received.startswith(BIG):
            return FakeTaken(len(BIG), BIG_ANSWER)
        if received.startswith(b"crash"):
            raise ZeroDivisionError
        return super().take(received, source=source)


def resting(client: Client) -> int:
    """Return how many connections the reactor has."""
    assert client.service.reactor is not None
    return len(client.service.reactor)


async def poll(client: Client) -> None:
    """Ask as an agent does, which brings the connection into the reactor."""
    await client.say(LANE)
    assert paths(await client.heard()) == ["lane"]
    assert resting(client) == 1


async def test_who_was_answered_by_the_lane_rests_in_the_reactor_and_nobody_else() -> None:
    async with connected(app, lane=Lane()) as client:
        assert resting(client) == 0
        await client.say(PLAIN)
        assert paths(await client.heard()) == ["plain"]
        assert resting(client) == 0
        for _ in range(3):
            await poll(client)
        await client.say(PLAIN)
        assert paths(await client.heard()) == ["plain"]
        assert resting(client) == 0
        await poll(client)
        await client.say(ODD)
        assert paths(await client.heard()) == ["odd"]
        assert resting(client) == 0


async def test_a_server_without_a_lane_has_no_reactor() -> None:
    async with connected(app) as client:
        assert client.service.reactor is None
        await client.say(PLAIN)
        assert paths(await client.heard()) == ["plain"]


@pytest.mark.parametrize("request_", [LANE, PLAIN, HELD])
async def test_what_comes_to_the_reactor_may_come_in_pieces(request_: bytes) -> None:
    for cut in range(1, len(request_)):
        lane = Lane()
        lane.changed = True
        async with connected(app, lane=lane) as client:
            await poll(client)
            await client.say(request_[:cut])
            assert resting(client) == 0
            await client.say(request_[cut:])
            assert paths(await client.heard()) == [{LANE: "lane", PLAIN: "plain", HELD: "news"}[request_]]


async def test_what_comes_to_the_reactor_together_is_answered_in_order() -> None:
    lane = Lane()
    lane.changed = True
    async with connected(app, lane=lane) as client:
        await poll(client)
        await client.say(LANE + LANE + PLAIN + HELD + LANE)
        assert paths(await client.heard()) == ["lane", "lane", "plain", "news", "lane"]
        assert resting(client) == 1


async def test_a_poll_that_comes_to_the_reactor_is_held_by_its_connection() -> None:
    lane = Lane()
    async with connected(app, lane=lane) as client:
        await poll(client)
        await client.say(HELD + LANE)
        assert await client.heard() == b""
        assert resting(client) == 0
        lane.held[0].wake()  # type: ignore[misc]
        assert paths(await client.heard()) == ["news", "lane"]
        await poll(client)
        await client.say(HELD)
        await client.leave()
        assert lane.held[1].ended == ["left"]


async def test_an_answer_that_the_socket_does_not_take_at_once_is_sent_to_its_end() -> None:
    async with connected(app, lane=Lane()) as client:
        await poll(client)
        await client.say(BIG)
        assert resting(client) == 0, "its own task waits for the client, the reactor for nobody"
        assert await client.heard() == BIG_ANSWER
        await poll(client)


async def test_who_does_not_read_what_the_reactor_sends_is_dropped(mock_clock: MockClock) -> None:
    async with connected(app, lane=Lane()) as client:
        await poll(client)
        await client.say(BIG)
        mock_clock.jump(bounds.SEND_S + 1)
        await wait_all_tasks_blocked()
        assert client.service.log.clients_dropped == 1
        heard = await client.heard()
        assert client.closed
        assert 0 < len(heard) < len(BIG_ANSWER)


async def test_a_client_that_leaves_while_it_rests_is_let_go() -> None:
    for partly in (b"", PLAIN[:9]):
        async with connected(app, lane=Lane()) as client:
            await poll(client)
            await client.say(partly)
            await client.end()
            assert await client.heard() == b""
            assert client.closed
            assert resting(client) == 0


async def test_a_rest_ends_after_its_time_which_each_request_gives_anew(mock_clock: MockClock) -> None:
    async with connected(app, lane=Lane()) as client:
        for _ in range(5):
            await poll(client)
            mock_clock.jump(bounds.KEEP_ALIVE_S - 1)
            assert await client.heard() == b""
            assert not client.closed
        mock_clock.jump(2)
        await client.heard()
        assert client.closed
        assert resting(client) == 0


async def test_a_head_that_drips_to_the_reactor_is_cut_off_in_time(mock_clock: MockClock) -> None:
    async with connected(app, lane=Lane()) as client:
        await poll(client)
        await client.say(PLAIN[:9])
        mock_clock.jump(bounds.HEAD_S - 1)
        await client.say(PLAIN[9:10])
        assert not client.closed
        mock_clock.jump(2)
        await client.heard()
        assert client.closed


async def test_a_stop_ends_a_rest_at_once_and_a_request_before_it_is_the_last_one() -> None:
    async with connected(app, lane=Lane()) as client:
        await poll(client)
        await client.service.stop()
        client.connection.stop()
        await client.heard()
        assert client.closed
        assert resting(client) == 0
    async with connected(app, lane=Lane()) as client:
        await poll(client)
        await client.service.stop()
        await client.say(LANE)
        assert paths(await client.heard()) == ["lane"]
        assert client.closed


async def test_a_poll_that_came_right_before_a_stop_is_answered() -> None:
    for _ in range(20):  # Which of two tasks comes first is Trio's dice to say.
        lane = Lane()
        lane.changed = True
        async with connected(app, lane=lane) as client:
            await poll(client)
            client.push(HELD)
            while not lane.held:
                await trio.lowlevel.checkpoint()
            # The reactor has taken it, and in half of the cases its connection does not know yet.
            client.service.stopping = lane.stopping = True
            client.connection.stop()
            assert await client.heard() == NEWS
            assert client.closed


async def test_what_is_cancelled_while_it_rests_is_let_go() -> None:
    async with connected(app, lane=Lane()) as client:
        await poll(client)
    assert resting(client) == 0


async def test_a_crash_is_its_own_connections() -> None:
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with connected(app, lane=Lane()) as client:
            await poll(client)
            await client.say(b"crash")
            await client.heard()
            assert client.closed
            assert resting(client) == 0


async def test_all_others_have_their_turn_while_there_is_always_something_to_answer() -> None:
    """The lane is made to take a millisecond, and to have another request sent with each that it answers."""
    lane = Lane()
    turns: list[int] = []
    async with connected(app, lane=lane) as client, trio.open_nursery() as nursery:
        await poll(client)
        answered = 0

        def again() -> None:
            nonlocal answered
            answered += 1
            time.sleep(0.001)
            if answered < 40:
                client.push(LANE)

        async def other() -> None:
            while True:
                turns.append(answered)
                await trio.lowlevel.checkpoint()

        lane.on_request = again
        nursery.start_soon(other)
        client.push(LANE)
        while answered < 40:
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert len(set(turns)) > 10, "how often the other one saw that there was progress"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_all_of_it_over_tls_as_well(tmp_path: Path, version: ssl.TLSVersion) -> None:
    identity = tls.self_signed(tmp_path / "tls", names=("127.0.0.1",), now=1_800_000_000)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    trusting.maximum_version = version
    lane = Lane()
    async with connected(app, lane=lane, tls=tls.context(identity)) as client:
        stream = trio.SSLStream(client.stream(), trusting, server_hostname="localhost", https_compatible=True)

        async def asked(request: bytes, answer: bytes) -> None:
            await stream.send_all(request)
            heard = b""
            while len(heard) < len(answer):
                heard += await stream.receive_some()
            assert heard == answer
            await wait_all_tasks_blocked()

        for _ in range(3):
            await asked(LANE, b"lane\n")
            assert resting(client) == 1
        await asked(LANE * 3000, b"lane\n" * 3000)
        assert resting(client) == 1
        await asked(BIG, BIG_ANSWER)
        await asked(LANE, b"lane\n")
        await stream.send_all(HELD)
        await wait_all_tasks_blocked()
        lane.held[0].wake()  # type: ignore[misc]
        assert await stream.receive_some() == NEWS
        await asked(LANE, b"lane\n")
        assert resting(client) == 1
        await trio.aclose_forcefully(stream)
        await wait_all_tasks_blocked()
        assert resting(client) == 0
