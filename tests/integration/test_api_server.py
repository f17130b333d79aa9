"""The server against clients that behave and clients that don't; beside plain Hypercorn where that is what it guards."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import hypercorn.config
import hypercorn.trio
import pytest
import trio
from quart_trio import QuartTrio

from edgegc import errors
from edgegc.api import bounds, plain, tls
from edgegc.api import server as server_module
from edgegc.api.access import AccessLog
from edgegc.api.listeners import Listener, open_admin, open_tcp
from edgegc.api.server import Server
from edgegc.settings import Api, Limits, Settings
from tests.raw_http import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GRACE_S = 0.5
BIG = 64 * 1024 * 1024
"""More than all socket buffers on the way."""


@pytest.fixture(params=["inline", "general"])
def either_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests answered inline, or take all of them for odd, so that Hypercorn's protocol answers them."""
    if request.param == "general":
        monkeypatch.setattr(plain, "read", lambda _received, limit: plain.Unfit.ODD)


both_paths = pytest.mark.usefixtures("either_path")


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
async def plain_hypercorn(app: Any) -> AsyncIterator[Running]:
    """What the same client does to Hypercorn as it comes."""
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.graceful_timeout = 0.1
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


@both_paths
async def test_it_answers_on_kept_connections_with_a_request_id() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        first = await client.request("GET", "/", headers={"X-Request-ID": "mine-1"})
        second = await client.request("POST", "/", body=b"x" * 100_000, headers={"X-Request-ID": "not sane"})
        assert (first.status, first.headers["x-request-id"]) == (200, "mine-1")
        assert first.json["state"] == {"admin": False, "request_id": "mine-1"}
        assert second.json["got"] == 100_000
        assert second.headers["x-request-id"] == second.json["state"]["request_id"] != "not sane"
        assert "server" not in first.headers


@both_paths
async def test_a_client_that_does_not_read_cannot_delay_shutdown() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.stream.receive_some(1)  # type: ignore[call-arg]
        server.shutdown.set()
        with trio.fail_after(GRACE_S + 5):
            await server.ended.wait()


async def test_plain_hypercorn_waits_for_such_a_client_for_ever() -> None:
    async with plain_hypercorn(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.stream.receive_some(1)  # type: ignore[call-arg]
        server.shutdown.set()
        with trio.move_on_after(1.5) as waiting:
            await server.ended.wait()
        await client.aclose()
        assert waiting.cancelled_caught


@both_paths
async def test_cancelling_from_outside_closes_everything_even_a_shielded_send() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.stream.receive_some(1)  # type: ignore[call-arg]
        server.scope.cancel()
        with trio.fail_after(5):
            await server.ended.wait()
        assert server.listeners[0].socket.fileno() == -1
        assert server.log.connections_open == 0


@both_paths
async def test_a_client_that_stops_reading_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SEND_S", 0.2)
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.log.clients_dropped == 1)
        await until(lambda: server.log.connections_open == 0)
        await client.aclose()


@both_paths
async def test_the_file_descriptor_is_freed_when_the_client_leaves() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.request("GET", "/")
        await client.aclose()
        await until(lambda: server.log.connections_open == 0, limit_s=2)


@both_paths
async def test_a_client_that_resets_its_connection_is_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    async with serving(app) as server:
        for path, begun in (("hold", lambda: app.held == 1), ("", lambda: True)):
            client = await trio.open_tcp_stream("127.0.0.1", server.port)
            await client.send_all(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until(begun)
            # Closing sends RST instead of FIN.
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(client)
            await until(lambda: server.log.connections_open == 0)
        assert app.held == 0
    assert "crashed" not in caplog.text


async def test_plain_hypercorn_keeps_the_file_descriptor_of_a_client_that_left() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with plain_hypercorn(App()) as server:
        before = descriptors()
        client = await RawClient.tcp(server.port)
        await client.request("GET", "/")
        await trio.sleep(0.1)
        await client.aclose()
        await trio.sleep(0.5)
        assert descriptors() == before + 1


@both_paths
async def test_a_client_that_leaves_cancels_its_handler() -> None:
    app = App()
    async with serving(app) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: app.held == 1)
        await client.aclose()
        await until(lambda: app.held == 0)
        await until(lambda: server.log.connections_open == 0)
        assert server.log.tallies["GET", "-", 499].count == 1


@both_paths
async def test_a_client_that_leaves_with_its_whole_answer_was_answered_and_is_counted_once() -> None:
    app = App()
    async with serving(app) as server:
        client = await RawClient.tcp(server.port)
        assert (await client.request("GET", "/unended")).body == b"{}"
        await client.aclose()
        await until(lambda: app.finished == 1 and server.log.connections_open == 0)
        assert {key: tally.count for key, tally in server.log.tallies.items()} == {("GET", "-", 200): 1}


@both_paths
async def test_a_client_that_pipelines_behind_a_held_request_and_leaves_frees_its_connection() -> None:
    app = App()
    async with serving(app) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: app.held == 1)
        await client.aclose()
        await until(lambda: server.log.connections_open == 0)


@both_paths
async def test_pipelined_requests_are_answered_in_order_also_when_the_last_comes_in_pieces() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        await trio.sleep(0.02)
        await client.send(b"GET / HTTP/1.1\r\nHo")
        await trio.sleep(0.02)
        await client.send(b"st: x\r\n\r\n")
        bodies = [(await client.reply()).body[:5] for _ in range(7)]
        assert bodies == [b"{}", b'{"got'] * 3 + [b'{"got']


@both_paths
async def test_pipelining_without_end_is_not_buffered_without_end() -> None:
    app = App()
    async with serving(app) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.move_on_after(1) as sending:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)
        assert sending.cancelled_caught
        await client.aclose()
        server.shutdown.set()
        with trio.fail_after(5):
            await server.ended.wait()


@both_paths
async def test_an_early_answer_reaches_a_client_that_is_still_sending() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(
            b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n" + bytes(100_000)
        )
        assert (await client.reply()).status == 401
        assert await client.closed()
        await client.aclose()
        await until(lambda: server.log.connections_open == 0)


@both_paths
async def test_tiny_chunks_to_an_application_that_has_answered_do_not_block() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        chunks = b"1\r\nx\r\n" * 10_000
        await client.send(b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert (await client.reply()).status == 401
        assert await client.closed()
        await client.aclose()
        await until(lambda: server.log.connections_open == 0)


@both_paths
async def test_an_application_that_crashes_is_an_internal_problem_and_ends_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(App()) as server:
        other = await RawClient.tcp(server.port)
        client = await RawClient.tcp(server.port)
        reply = await client.request("GET", "/crash")
        assert (reply.status, reply.json["code"]) == (500, "internal")
        assert reply.json["request_id"] == reply.headers["x-request-id"]
        assert "a bug" not in reply.body.decode()
        assert (await other.request("GET", "/")).status == 200
    assert "a bug" in caplog.text


@both_paths
async def test_shutdown_lets_answers_under_way_finish_and_closes_idle_connections() -> None:
    app = App()
    async with serving(app) as server:
        idle = await RawClient.tcp(server.port)
        await idle.request("GET", "/")
        busy = await RawClient.tcp(server.port)
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.log.connections_open == 2)
        await trio.sleep(0.02)
        server.shutdown.set()
        assert await idle.closed()
        reply = await busy.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        with trio.fail_after(GRACE_S / 2):
            await server.ended.wait()
        with pytest.raises(OSError, match="127"):
            await RawClient.tcp(server.port)


@both_paths
async def test_shutdown_cuts_what_takes_longer_than_the_grace() -> None:
    app = App()
    async with serving(app) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: app.held == 1)
        server.shutdown.set()
        with trio.fail_after(GRACE_S + 5):
            await server.ended.wait()
        assert app.held == 0


@both_paths
async def test_clear_text_http2_is_refused() -> None:
    async with serving(App()) as server:
        upgrading = await RawClient.tcp(server.port)
        reply = await upgrading.request(
            "GET",
            "/",
            headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": ""},
        )
        assert reply.status == 200
        knowing = await RawClient.tcp(server.port)
        await knowing.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        reply = await knowing.reply()
        assert (reply.status, reply.headers["content-type"]) == (505, "application/problem+json")
        websocket = await RawClient.tcp(server.port)
        reply = await websocket.request("GET", "/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert reply.status == 200


async def test_plain_hypercorn_speaks_clear_text_http2() -> None:
    async with plain_hypercorn(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
        assert (await client.reply_head()).startswith(b"HTTP/1.1 101")


@both_paths
async def test_a_crash_in_quarts_nursery_would_be_swallowed_by_hypercorn_so_there_is_no_such_nursery() -> (
    None
):
    app = QuartTrio(__name__)

    async def crash() -> None:
        raise RuntimeError("a bug in a background task")

    @app.get("/start")
    async def start() -> str:
        app.nursery.start_soon(crash)
        return "{}"

    @app.get("/alive")
    async def alive() -> str:
        return "{}"

    async with plain_hypercorn(app) as plain:
        client = await RawClient.tcp(plain.port)
        assert (await client.request("GET", "/start")).status == 200
        other = await RawClient.tcp(plain.port)
        assert (await other.request("GET", "/alive")).status == 200, "the crash went unnoticed"
        await client.aclose()
        await other.aclose()
    del app.nursery
    async with serving(app) as ours:
        client = await RawClient.tcp(ours.port)
        assert (await client.request("GET", "/start")).status == 500
        assert not hasattr(app, "nursery")


async def test_plain_hypercorn_takes_a_head_past_its_limit_that_comes_in_one_piece() -> None:
    async with plain_hypercorn(App()) as server:
        client = await RawClient.tcp(server.port)
        assert (await client.request("GET", "/", headers={"X-Long": "x" * 20_000})).status == 200


@both_paths
async def test_a_head_past_its_limit_is_refused_even_in_one_piece() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        reply = await client.request("GET", "/", headers={"X-Long": "x" * 20_000})
        assert (reply.status, reply.headers["content-type"]) == (431, "application/problem+json")
        endless = await RawClient.tcp(server.port)
        await endless.send(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 1_000_000)
        assert (await endless.reply()).status == 431


@both_paths
async def test_also_a_head_request_is_refused_with_a_problem() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"HEAD http://other/ HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = await client.reply(head_only=True)
        assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
        assert await client.closed()


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["nonsense", "no host", "absolute target", "two lengths", "TLS to a clear-text port"],
)
@both_paths
async def test_what_is_no_request_of_ours_is_an_invalid_request_problem(head: bytes) -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(head)
        reply = await client.reply()
        assert (reply.status, reply.json["code"]) == (400, "invalid_request")
        assert await client.closed()


@both_paths
async def test_a_head_that_takes_too_long_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "HEAD_S", 0.2)
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        with trio.fail_after(5):
            for byte in b"GET / HTTP/1.1\r\nHost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx":
                try:
                    await client.send(bytes([byte]))
                except trio.BrokenResourceError:
                    break
                await trio.sleep(0.02)
        assert await client.closed()


@both_paths
async def test_an_agent_may_ask_more_often_than_hypercorn_would_let_it_on_one_connection() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        for _ in range(1_100):
            assert "connection" not in (await client.request("GET", "/")).headers


async def test_connections_past_the_cap_get_503_and_the_operators_socket_is_never_refused(
    tmp_path: Path,
) -> None:
    listeners = [*open_tcp(["127.0.0.1:0"], tls=None), open_admin(tmp_path / "admin.sock")]
    settings = Settings(limits=Limits(connections=2))
    async with serving(App(), listeners=listeners, settings=settings) as server:
        clients = [await RawClient.tcp(server.port) for _ in range(2)]
        await until(lambda: server.log.connections_open == 2)
        third = await RawClient.tcp(server.port)
        reply = await third.reply()
        assert (reply.status, reply.json["code"]) == (503, "unavailable")
        assert int(reply.headers["retry-after"]) > 0
        operator = await RawClient.unix(tmp_path / "admin.sock")
        assert (await operator.request("GET", "/")).json["state"]["admin"] is True
        await clients[0].aclose()
        await operator.aclose()
        await until(lambda: server.log.connections_open == 1)
        fourth = await RawClient.tcp(server.port)
        assert (await fourth.request("GET", "/")).status == 200


async def test_clients_never_get_the_last_file_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (server_module.RESERVED_DESCRIPTORS + 2, hard))
    try:
        async with serving(App()) as server:
            for _ in range(2):
                assert (await (await RawClient.tcp(server.port)).request("GET", "/")).status == 200
            assert (await (await RawClient.tcp(server.port)).reply()).status == 503
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Exhausted(socket.socket):
    """A listening socket of a process that is out of file descriptors for a while."""

    refusals = 3

    def accept(self) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_running_out_of_file_descriptors_is_logged_once_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (listener,) = open_tcp(["127.0.0.1:0"], tls=None)
    exhausted = _Exhausted(fileno=listener.socket.detach())
    async with serving(App(), listeners=[Listener(exhausted, "tcp")]) as server:
        client = await RawClient.tcp(server.port)
        assert (await client.request("GET", "/")).status == 200
        assert server.log.accept_errors == 3
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(lines) == 1
    assert "file descriptor limit" in lines[0].getMessage()


@both_paths
async def test_tls_serves_under_the_pin_and_a_silent_client_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "HANDSHAKE_S", 0.3)
    identity = tls.self_signed(tmp_path / "tls", names=("127.0.0.1",), now=1_800_000_000)
    listeners = open_tcp(["127.0.0.1:0"], tls=tls.context(identity))
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    async with serving(App(), listeners=listeners) as server:
        client = await RawClient.tcp(server.port, tls=trusting)
        assert (await client.request("POST", "/", body=b"x" * 200_000)).json["got"] == 200_000
        silent = await RawClient.tcp(server.port)
        assert await silent.closed()
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        server.shutdown.set()
        with trio.fail_after(GRACE_S + 5):
            await server.ended.wait()


@pytest.mark.alone
@both_paths
async def test_no_client_of_any_kind_delays_shutdown_beyond_the_grace(tmp_path: Path) -> None:
    app = App()
    identity = tls.self_signed(tmp_path / "tls", names=("127.0.0.1",), now=1_800_000_000)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    listeners = [
        *open_tcp(["127.0.0.1:0"], tls=None),
        *open_tcp(["127.0.0.1:0"], tls=tls.context(identity)),
    ]
    said = [
        b"",
        b"GET / HTTP/1.1\r\nHo",
        b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
        b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun",
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun",
    ]
    async with serving(app, listeners=listeners) as server:
        for content in said:
            for listener, context in zip(listeners, (None, trusting), strict=True):
                client = await RawClient.tcp(listener.port, tls=context)
                if content:
                    await client.send(content)
        await RawClient.tcp(listeners[1].port)  # Says nothing, and so begins no handshake.
        await until(lambda: app.held == 4)
        server.shutdown.set()
        with trio.fail_after(GRACE_S + 1):
            await server.ended.wait()
        assert server.log.connections_open == 0


@both_paths
async def test_a_thousand_clients_that_come_at_once_are_all_served() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    clients = [socket.socket() for _ in range(1000)]
    try:
        async with serving(App(), settings=Settings(limits=Limits(connections=2000))) as server:
            for client in clients:
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(("127.0.0.1", server.port))
            with trio.fail_after(30):
                for client in clients:
                    await trio.lowlevel.wait_writable(client)
                    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                for client in clients:
                    await trio.lowlevel.wait_readable(client)
                    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_serving_is_started_when_it_says_so_and_may_be_stopped_before_any_client() -> None:
    shutdown = trio.Event()
    shutdown.set()
    server = Server(App(), Settings(), log=AccessLog(), release=lambda: None)
    with trio.fail_after(2):
        await partial(server.run, open_tcp(["127.0.0.1:0"], tls=None), shutdown=shutdown)()


def test_clear_text_beyond_loopback_is_refused_unless_said_out_loud() -> None:
    with pytest.raises(errors.Invalid, match=r"not loopback.*insecure-http"):
        open_tcp(["0.0.0.0:0"], tls=None)
    for listener in open_tcp(["0.0.0.0:0"], tls=None, insecure_http=True):
        listener.close()


def test_a_port_that_is_taken_is_named_and_nothing_stays_open() -> None:
    (taken,) = open_tcp(["127.0.0.1:0"], tls=None)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(errors.Conflict, match=f"127.0.0.1:{taken.port} is taken"):
        open_tcp(["127.0.0.1:0", f"127.0.0.1:{taken.port}"], tls=None)
    assert len(os.listdir("/proc/self/fd")) == before
    taken.close()


@pytest.mark.parametrize("address", ["8080", "localhost", ":80", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(errors.Invalid, match=r"host:port"):
        open_tcp([address], tls=None)


def test_the_admin_socket_is_the_owners_replaces_a_stale_one_and_leaves_with_the_listener(
    tmp_path: Path,
) -> None:
    path = tmp_path / "admin.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    listener = open_admin(path)
    assert path.stat().st_mode & 0o777 == 0o600
    listener.close()
    assert not path.exists()


def test_the_admin_socket_never_replaces_what_is_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(errors.Invalid, match="in the way"):
        open_admin(path)
    assert path.read_text() == "precious"


def test_a_listener_does_not_remove_the_socket_of_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    first = open_admin(path)
    second = open_admin(path)
    first.close()
    assert path.exists()
    second.close()
