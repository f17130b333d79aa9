"""Who answers what on a connection: the lane first, then the inline path, then Hypercorn's; and what is held is let go."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from edgegc.api import bounds, tls
from tests.link import connected
from tests.polling import HELD, LANE, NEWS, ODD, PLAIN, FakeLane, app, paths

if TYPE_CHECKING:
    from pathlib import Path


async def test_each_request_goes_to_the_first_that_takes_it_and_what_is_odd_stays_with_hypercorn() -> None:
    async with connected(app, lane=FakeLane()) as client:
        await client.say(LANE + PLAIN + LANE + PLAIN)
        assert paths(await client.heard()) == ["lane", "plain", "lane", "plain"]
        await client.say(LANE + ODD + PLAIN)
        assert paths(await client.heard()) == ["lane", "odd", "plain"]
        await client.say(LANE)
        assert b"HTTP/1.1 400 " in await client.heard(), (
            "a request without a host, for whoever is not the lane"
        )
        assert client.closed


async def test_what_turns_out_to_be_no_request_is_refused_in_one_piece_while_its_application_answers() -> (
    None
):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}", "more_body": False})

    sent = b"GET /odd HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
    for _ in range(20):  # Which of two tasks comes first is Trio's dice to say.
        async with connected(app) as client:
            await client.say(sent)
            head, _, body = (await client.heard()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"\r\ncontent-length: %d\r\n" % len(body) in head
            assert client.closed


@pytest.mark.parametrize("cut", range(1, len(LANE)))
async def test_a_request_for_the_lane_may_come_in_pieces(cut: int) -> None:
    async with connected(app, lane=FakeLane()) as client:
        await client.say(LANE[:cut])
        await client.say(LANE[cut:])
        assert paths(await client.heard()) == ["lane"]


async def test_a_held_poll_is_answered_when_there_is_news_and_what_came_meanwhile_after_it() -> None:
    lane = FakeLane()
    async with connected(app, lane=lane) as client:
        await client.say(HELD + PLAIN[:5])
        await client.say(PLAIN[5:] + LANE)
        assert await client.heard() == b""
        (held,) = lane.held
        assert held.wake is not None
        held.wake()
        assert paths(await client.heard()) == ["news", "plain", "lane"]
        assert held.ended == ["answered"]
        assert lane.sources == {"socket"}


async def test_a_held_poll_is_answered_when_its_time_is_over_or_when_the_news_were_there_before_it() -> None:
    lane = FakeLane()
    async with connected(app, lane=lane) as client:
        lane.hold_s = 0.01
        await client.say(HELD)
        await trio.sleep(0.02)
        assert await client.heard() == NEWS
        lane.hold_s, lane.changed = 60.0, True
        await client.say(HELD)
        assert await client.heard() == NEWS
        assert [held.ended for held in lane.held] == [["answered"], ["answered"]]


async def test_a_client_that_leaves_a_held_poll_is_noticed_also_with_requests_behind_it() -> None:
    for behind in (b"", PLAIN, b"x"):
        lane = FakeLane()
        async with connected(app, lane=lane) as client:
            await client.say(HELD + behind)
            await client.leave()
            assert lane.held[0].ended == ["left"]


async def test_what_is_sent_behind_a_held_poll_is_not_buffered_without_end() -> None:
    lane = FakeLane()
    async with connected(app, lane=lane) as client:
        await client.say(HELD)
        assert await client.pour(PLAIN * 100_000) < 1024 * 1024, (
            "what the socket's buffers hold, and one part"
        )


async def test_a_held_poll_outlives_the_rest_between_requests_and_an_idle_client_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "HEAD_S", 0.05)
    monkeypatch.setattr(bounds, "KEEP_ALIVE_S", 0.1)
    lane = FakeLane()
    async with connected(app, lane=lane) as client:
        await client.say(HELD)
        await trio.sleep(0.2)
        lane.held[0].wake()  # type: ignore[misc]
        assert await client.heard() == NEWS
        assert not client.closed
        await trio.sleep(0.2)
        await client.heard()
        assert client.closed


async def test_a_stop_ends_the_idle_at_once_and_the_held_with_their_answer() -> None:
    lane = FakeLane()
    async with connected(app, lane=lane) as client:
        await client.say(HELD + LANE)
        await client.service.stop()
        assert lane.stopping
        client.connection.stop()
        assert await client.heard() == b""
        lane.held[0].wake()  # type: ignore[misc]
        assert await client.heard() == NEWS, "and no other answer"
        assert client.closed
    async with connected(app, lane=FakeLane()) as client:
        await client.say(LANE[:5])
        await client.service.stop()
        client.connection.stop()
        await client.heard()
        assert client.closed


async def test_what_is_cancelled_leaves_its_held_poll() -> None:
    lane = FakeLane()
    async with connected(app, lane=lane) as client:
        await client.say(HELD)
    assert lane.held[0].ended == ["left"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_all_of_it_over_tls_as_well(tmp_path: Path, version: ssl.TLSVersion) -> None:
    identity = tls.self_signed(tmp_path / "tls", names=("127.0.0.1",), now=1_800_000_000)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    trusting.maximum_version = version
    lane = FakeLane()
    big = bytes(range(256)) * 40_000

    async def mirror(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/mirror":
            await app(scope, receive, send)
            return
        body = b""
        while (message := await receive())["more_body"]:
            body += message["body"]
        body += message["body"]
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async with connected(mirror, lane=lane, tls=tls.context(identity)) as client:
        stream = trio.SSLStream(client.stream(), trusting, server_hostname="localhost", https_compatible=True)
        await stream.send_all(LANE + PLAIN + HELD)
        heard = b""
        while paths(heard) != ["lane", "plain"]:
            heard += await stream.receive_some()
        await wait_all_tasks_blocked()
        lane.held[0].wake()  # type: ignore[misc]
        assert await stream.receive_some() == NEWS

        head = b"POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, head % len(big) + big)
            heard = b""
            while len(heard) < len(big) or not heard.endswith(big[-1000:]):
                heard += await stream.receive_some()
        assert heard.partition(b"\r\n\r\n")[2] == big

        await stream.send_all(HELD)
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(stream)
        await wait_all_tasks_blocked()
        assert lane.held[1].ended == ["left"]
