"""The server: answers, errors, shutdown, listeners; beside plain Hypercorn where that differs. See ``test_api_hostile``, too."""

from __future__ import annotations

import os
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from quart_trio import QuartTrio

from edgegc import errors
from edgegc.api import bounds, tls
from edgegc.api.access import AccessLog
from edgegc.api.listeners import open_admin, open_tcp
from edgegc.api.server import Server
from edgegc.settings import Settings
from tests.hostile import trusting
from tests.raw_http import RawClient
from tests.serving import GRACE_S, App, both_paths, plain_hypercorn, serving, until

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.api.tls import Identity


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
async def test_tls_serves_under_the_pin_and_a_silent_client_is_dropped(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "HANDSHAKE_S", 0.3)
    listeners = open_tcp(["127.0.0.1:0"], tls=tls.context(identity))
    async with serving(App(), listeners=listeners) as server:
        client = await RawClient.tcp(server.port, tls=trusting())
        assert (await client.request("POST", "/", body=b"x" * 200_000)).json["got"] == 200_000
        silent = await RawClient.tcp(server.port)
        assert await silent.closed()
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        server.shutdown.set()
        with trio.fail_after(GRACE_S + 5):
            await server.ended.wait()


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
