"""The server of ours and plain Hypercorn, each with an application that has one path for each thing to provoke."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import hypercorn.config
import hypercorn.trio
import pytest
import trio

from edgegc.api.access import AccessLog
from edgegc.api.listeners import Listener, open_tcp
from edgegc.api.server import Server
from edgegc.settings import Api, Settings
from tests.raw_http import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.api.tls import Identity


GRACE_S = 0.5
BIG = 64 * 1024 * 1024
"""More than all socket buffers on the way."""
both_paths = pytest.mark.usefixtures("either_path")
"""Once with requests answered inline, once by Hypercorn's protocol: see the fixture."""


async def until(condition: Any, *, limit_s: float = 10.0) -> None:
    with trio.fail_after(limit_s):
        while not condition():
            await trio.sleep(0.01)


class App:
    """A bare ASGI application with one path for each thing to provoke."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.held = 0
        self.finished = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "the lifespan protocol is not run"
        try:
            await getattr(self, scope["path"].strip("/") or "ok")(scope, receive, send)
        except trio.Cancelled:
            self.cancelled += 1
            raise

    async def answer(self, send: Any, body: bytes, status: int = 200) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def ok(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await self.answer(send, json.dumps({"got": len(body), "state": scope["state"]}).encode())

    async def big(self, scope: Any, receive: Any, send: Any) -> None:
        await self.answer(send, bytes(BIG))

    async def early(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers without looking at the body, as a 401 does."""
        await self.answer(send, b"{}", 401)

    async def slow(self, scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(GRACE_S / 5)
        self.finished += 1
        await self.answer(send, b"{}")

    async def hold(self, scope: Any, receive: Any, send: Any) -> None:
        """As Quart does: the handler runs until the client leaves."""
        self.held += 1
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            try:
                await trio.sleep_forever()
            finally:
                self.held -= 1

    async def deaf(self, scope: Any, receive: Any, send: Any) -> None:
        """Works on, and asks nobody whether the client is still there."""
        self.held += 1
        try:
            await trio.sleep_forever()
        finally:
            self.held -= 1

    async def unended(self, scope: Any, receive: Any, send: Any) -> None:
        """Says that the answer is over only when the client is gone, which Quart can come to as well."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.finished += 1

    async def crash(self, scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a bug")


class Running:
    def __init__(self, listeners: list[Listener], log: AccessLog) -> None:
        self.listeners = listeners
        self.log = log
        self.port = listeners[0].port
        self.shutdown = trio.Event()
        self.ended = trio.Event()
        self.scope = trio.CancelScope()


@asynccontextmanager
async def serving(
    app: Any, *, listeners: list[Listener] | None = None, settings: Settings | None = None
) -> AsyncIterator[Running]:
    log = AccessLog()
    running = Running(listeners or open_tcp(["127.0.0.1:0"], tls=None), log)
    server = Server(
        app,
        settings or Settings(api=Api(graceful_timeout_s=GRACE_S)),
        log=log,
        release=lambda: None,
    )

    async def run(task_status: Any) -> None:
        with running.scope:
            await server.run(running.listeners, shutdown=running.shutdown, task_status=task_status)
        running.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield running
        finally:
            running.scope.cancel()
            await RawClient.close_all()


@asynccontextmanager
async def plain_hypercorn(
    app: Any, *, identity: Identity | None = None, **settings: float
) -> AsyncIterator[Running]:
    """Hypercorn as it comes, but for what ``settings`` names, and TLS with ``identity``."""
    config = hypercorn.config.Config()
    config.errorlog = None
    config.graceful_timeout = 0.1
    for name, value in settings.items():
        setattr(config, name, value)
    if identity is not None:
        config.certfile, config.keyfile = str(identity.certificate), str(identity.key)
    running = Running(open_tcp(["127.0.0.1:0"], tls=None), AccessLog())
    config.bind = [f"fd://{os.dup(running.listeners[0].socket.fileno())}"]
    running.listeners[0].close()

    async def run(task_status: Any) -> None:
        await hypercorn.trio.serve(
            app, config, shutdown_trigger=running.shutdown.wait, task_status=task_status
        )
        running.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield running
        finally:
            running.shutdown.set()
            await RawClient.close_all()
