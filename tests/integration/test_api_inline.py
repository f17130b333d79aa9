"""The inline path beside Hypercorn's: whatever a client sends, it sees the same, and so does the application."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from hypothesis import assume, given, settings
from trio.testing import wait_all_tasks_blocked

from edgegc.api import bounds, plain
from tests.heads import streams
from tests.link import connected

HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n")
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was asked for, in the way that the path says."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    state = {key: value for key, value in scope["state"].items() if key != "request_id"}
    seen = [scope[key] for key in ("http_version", "method", "scheme", "path", "raw_path", "query_string")]
    content = repr((seen, scope["headers"], state, scope["client"], body)).encode()
    headers = [(b"Content-Type", b"text/plain"), (b"x-request-id", b"the application's")]
    status = 200
    if scope["path"] == "/nothing":
        status, content = 204, b""
    elif scope["path"] != "/stream":
        headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    half = len(content) // 2
    for part in (content[:half], b"", content[half:]):
        await trio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def comparable(heard: bytes) -> bytes:
    """Return an answer without what differs each time, or may: dates, ids of ours, ``100 Continue``, order and case of
    the headers' names.
    """

    def sorted_head(matched: re.Match[bytes]) -> bytes:
        if matched[1] == b"100":
            return b""
        fields = (line.partition(b": ") for line in matched[2].splitlines())
        lines = sorted(name.lower() + b": " + value for name, _, value in fields if name != b"date")
        return b"HTTP " + matched[1] + b"\n" + b"\n".join(lines) + b"\n\n"

    return HEAD.sub(sorted_head, re.sub(rb"\b[0-9a-f]{16}\b", b"id", heard))


async def conversation(pieces: list[bytes]) -> tuple[bytes, bool, dict[Any, int], bool]:
    """Return what a client hears, whether it is cut off, what is counted, and whether all is over when it has left."""
    async with connected(echo) as client:
        heard = b""
        for piece in pieces:
            try:
                await client.say(piece)
            except BrokenPipeError:
                break
            heard += await client.heard()
        closed = client.closed
        if not closed:
            await client.end()
            heard += await client.heard()
        return comparable(heard), closed, client.counted, client.closed


@settings(max_examples=400, deadline=None)
@given(streams())
async def test_a_client_sees_the_same_on_both_paths(pieces: list[bytes]) -> None:
    # Kept open only on one of them: see below.
    assume(b"HTTP/1.0" not in b"".join(pieces))
    ours = await conversation(pieces)
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(plain, "read", lambda _received, limit: plain.Unfit.ODD)
        theirs = await conversation(pieces)
    assert ours == theirs
    assert ours[3]


def saying(*messages: dict[str, Any]) -> Any:
    """Return an application that says this to every request, whatever it is."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send({"type": f"http.response.{'start' if 'status' in message else 'body'}"} | message)

    return app


def start(status: int = 200, **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"status": status, "headers": pairs}


async def test_an_old_client_that_would_keep_the_connection_keeps_it() -> None:
    async with connected(echo) as client:
        for _ in range(2):
            await client.say(b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
            assert b"\r\nconnection: keep-alive\r\n" in await client.heard()
        assert not client.closed
        await client.say(b"GET /stream HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        heard = await client.heard()
        assert b"\r\nconnection: close\r\n" in heard
        assert b"chunked" not in heard
        assert client.closed


async def test_a_small_answer_leaves_in_one_piece() -> None:
    async with connected(saying(start(content_length="2"), {"body": b"ok", "more_body": True}, {})) as client:
        await client.say(GET)
        assert (await client.heard()).endswith(b"\r\n\r\nok")
        assert client.counted == {("GET", "-", 200): 1}


async def test_who_waits_to_be_told_is_told_to_go_on_once_and_only_if_somebody_wants_the_body() -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with connected(echo) as client:
        await client.say(head % b"/")
        assert await client.heard() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.say(b"a")
        assert await client.heard() == b""
        await client.say(b"b")
        assert (await client.heard()).startswith(b"HTTP/1.1 200")
        await client.say(head % b"/" + b"ab")
        assert (await client.heard()).startswith(b"HTTP/1.1 200")
        assert not client.closed
    async with connected(saying(start(401, content_length="0"), {})) as client:
        await client.say(head % b"/")
        assert (await client.heard()).startswith(b"HTTP/1.1 401")
        assert client.closed, "the client may send the body or not: what comes next can't be told"


async def test_a_body_that_nobody_reads_is_passed_over_if_it_is_there() -> None:
    async with connected(saying(start(200, content_length="0"), {})) as client:
        await client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + GET)
        assert (await client.heard()).count(b"HTTP/1.1 200") == 2
        assert not client.closed


async def test_an_upload_is_read_no_faster_than_the_application_takes_it() -> None:
    go_on = trio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await go_on.wait()
        await echo(_scope, receive, send)

    async with connected(app) as client:
        size = 10 * 1024 * 1024
        await client.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        assert await client.pour(bytes(size)) < 1024 * 1024, "what the socket's buffers hold, and one part"


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        ((start(x="a\r\nb: c"), {"body": b""}), b"HTTP/1.1 500 "),
        ((start(content_length="1"), {"body": b"22"}), b"HTTP/1.1 500 "),
        ((start(content_length="3"), {"body": b"22"}), b"HTTP/1.1 500 "),
        (({"body": b"early"},), b"HTTP/1.1 500 "),
        ((start(content_length="2"),), b"HTTP/1.1 500 "),
        ((), b"HTTP/1.1 500 "),
        ((start(content_length="4"), {"body": b"half", "more_body": True}), b"HTTP/1.1 200 "),
    ],
    ids=["split header", "too long", "too short", "no start", "only a start", "nothing", "no end"],
)
async def test_an_application_that_breaks_the_rules_costs_its_own_connection(
    messages: tuple[dict[str, Any], ...], sent: bytes
) -> None:
    async with connected(saying(*messages)) as client:
        await client.say(GET)
        assert (await client.heard()).startswith(sent)
        assert client.closed
        assert sum(client.counted.values()) == 1


async def test_the_application_is_told_when_the_client_leaves_and_when_all_was_said() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                for _ in range(2):
                    message = await receive()
                    told.append(message["type"])

            nursery.start_soon(listen)
            if scope["path"] == "/":
                await wait_all_tasks_blocked()
                await saying(start(content_length="0"), {})(scope, receive, send)

    async with connected(app) as client:
        await client.say(GET)
        assert (await client.heard()).startswith(b"HTTP/1.1 200")
        assert told == ["http.request", "http.disconnect"]
        await client.say(GET.replace(b"/ ", b"/hold "))
        assert told[2:] == ["http.request"]
        await client.leave()
        assert told[3:] == ["http.disconnect"]
        assert client.counted == {("GET", "-", 200): 1, ("GET", "-", 499): 1}


async def test_a_client_that_does_not_read_is_given_up_and_so_is_what_the_application_makes_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "SEND_S", 0.05)
    ended = trio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        finally:
            ended.set()

    async with connected(app) as client:
        await client.say(GET)
        with trio.fail_after(10):
            await ended.wait()
        assert client.counted == {("GET", "-", 499): 1}
