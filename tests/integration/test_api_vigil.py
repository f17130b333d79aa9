"""Clients that leave while a handler works, which neither reads nor writes: the server itself looks out for them."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from edgegc.api import vigil
from edgegc.api.service import WATCHED
from tests.link import connected

GET = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


class Slow:
    """An application whose handler takes for ever, and notes how it ends; ``quick`` ones answer at once."""

    def __init__(self) -> None:
        self.offers: list[bool] = []
        self.began = trio.Event()
        self.ended = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.offers.append(WATCHED in scope["extensions"])
        await receive()
        if scope["path"] == "/quick":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        self.began.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()


@pytest.mark.parametrize("request_", [GET, POST + b"body"], ids=["without a body", "with all of its body"])
async def test_a_client_that_leaves_ends_a_handler_that_neither_reads_nor_writes(request_: bytes) -> None:
    app = Slow()
    async with connected(app) as client:
        await client.say(request_)
        await app.began.wait()
        await client.leave()
        with trio.fail_after(5):
            await app.ended.wait()
        while not client.counted:
            await trio.lowlevel.checkpoint()
        assert list(client.counted.values()) == [1]
        assert next(iter(client.counted))[2] == 499
    assert app.offers == [True]


async def test_a_request_that_is_not_all_here_is_not_offered_the_short_way() -> None:
    app = Slow()
    async with connected(app) as client:
        await client.say(POST + b"bo")
        await client.say(b"dy")
        with trio.fail_after(5):
            await app.began.wait()
    assert app.offers == [False]


async def test_what_is_sent_behind_a_long_handler_is_kept_for_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vigil, "LONG_S", 0.01)
    app, go_on = Slow(), trio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await go_on.wait()
        await app({**scope, "path": "/quick"}, receive, send)

    async with connected(waiting) as client:
        await client.say(GET)
        await trio.sleep(0.1)  # it is looked after by now
        await client.say(GET.replace(b"/slow", b"/quick"))
        go_on.set()
        assert (await client.heard()).count(b"HTTP/1.1 200") == 2
        await client.say(GET.replace(b"/slow", b"/quick"))
        assert (await client.heard()).count(b"HTTP/1.1 200") == 1
