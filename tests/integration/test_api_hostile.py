"""Clients that mean harm, or have bad luck: what each of them gets from us, and from plain Hypercorn.

The second shows that there is something to guard against; where Hypercorn is right as well, the test says so. What is about
many clients at once is in ``test_api_crowds``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio
from quart import request
from quart_trio import QuartTrio

from edgegc.api import bounds, codec, tls
from edgegc.api.listeners import open_tcp
from tests.box import running_box
from tests.hostile import HEAD, HELLO, asks_and_reads_nothing, drips
from tests.raw_http import RawClient
from tests.serving import GRACE_S, App, both_paths, plain_hypercorn, serving, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from edgegc.api.tls import Identity

PER_S = 0.02
"""How long a second of ours is here, where a bound is tried."""


# A client that does not read.


@both_paths
async def test_a_client_that_does_not_read_cannot_delay_shutdown() -> None:
    async with serving(App()) as server:
        await asks_and_reads_nothing(server.port)
        server.shutdown.set()
        with trio.fail_after(GRACE_S + 5):
            await server.ended.wait()


async def test_plain_hypercorn_waits_for_such_a_client_for_ever() -> None:
    async with plain_hypercorn(App()) as server:
        client = await asks_and_reads_nothing(server.port)
        server.shutdown.set()
        with trio.move_on_after(1.5) as waiting:
            await server.ended.wait()
        await client.aclose()
        assert waiting.cancelled_caught


@both_paths
async def test_a_client_that_stops_reading_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SEND_S", 0.2)
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.log.clients_dropped == 1)
        await until(lambda: server.log.connections_open == 0)
        await client.aclose()


# A head that drips.


@both_paths
async def test_a_head_that_drips_is_cut_off_long_before_a_connection_has_rested_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "HEAD_S", bounds.HEAD_S * PER_S)
    monkeypatch.setattr(bounds, "KEEP_ALIVE_S", bounds.KEEP_ALIVE_S * PER_S)
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        assert not await drips(client, HEAD, for_s=bounds.KEEP_ALIVE_S)
        again = await RawClient.tcp(server.port)
        await again.request("GET", "/")
        assert not await drips(again, HEAD, for_s=bounds.KEEP_ALIVE_S), "the second request's head as well"
        await until(lambda: server.log.connections_open == 0)


async def test_plain_hypercorn_lets_a_head_drip_for_as_long_as_a_connection_may_rest() -> None:
    """It has one timer for both: what lets an agent rest between its polls lets a client drip."""
    rest_s = bounds.KEEP_ALIVE_S * PER_S
    async with plain_hypercorn(App(), keep_alive_timeout=rest_s) as server:
        client = await RawClient.tcp(server.port)
        assert await drips(client, HEAD, for_s=rest_s / 3)
        assert (await client.reply()).status == 200


# A body that does not come.


@both_paths
async def test_a_body_that_does_not_come_is_a_problem_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "BODY_PROGRESS_S", codec.BODY_PROGRESS_S * PER_S)
    async with running_box(tmp_path / "data") as box:
        client = await box.client("admin")
        await client.send(
            b"POST /api/v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        reply = await client.reply()
        assert (reply.status, reply.json["code"]) == (408, "invalid_request")
        assert await client.closed()


async def test_plain_hypercorn_waits_for_a_body_for_ever_and_quart_for_a_minute() -> None:
    """Its only timer stands still while a request is under way; Quart's is one for the whole of a body."""
    app = QuartTrio(__name__)

    @app.post("/quart")
    async def quart() -> str:
        return str(len(await request.get_data()))

    assert app.config["BODY_TIMEOUT"] == 60
    for each, path in ((App(), "/"), (app, "/quart")):
        async with plain_hypercorn(each, keep_alive_timeout=PER_S) as server:
            client = await RawClient.tcp(server.port)
            await client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n1".encode())
            with trio.move_on_after(3 * codec.BODY_PROGRESS_S * PER_S) as waiting:
                await client.stream.receive_some()
            assert waiting.cancelled_caught


# A client that leaves.


@both_paths
async def test_the_file_descriptor_is_freed_when_the_client_leaves() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        await client.request("GET", "/")
        await client.aclose()
        await until(lambda: server.log.connections_open == 0, limit_s=2)


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


async def test_a_client_that_leaves_cancels_even_a_handler_that_does_not_ask_and_plain_hypercorn_lets_it_go_on() -> (
    None
):
    """Of the inline path, which has no task that asks; on the general one our handlers are listened for by Quart."""
    for start, ends in ((serving, True), (plain_hypercorn, False)):
        app = App()
        async with start(app) as server:  # type: ignore[operator]
            client = await RawClient.tcp(server.port)
            await client.send(b"GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda app=app: app.held == 1)
            await client.aclose()
            with trio.move_on_after(10 if ends else 1):
                await until(lambda app=app: app.held == 0)
            assert app.held == (0 if ends else 1)


# A head that is too long.


@both_paths
async def test_a_head_past_its_limit_is_refused_even_in_one_piece() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        reply = await client.request("GET", "/", headers={"X-Long": "x" * 20_000})
        assert (reply.status, reply.headers["content-type"]) == (431, "application/problem+json")
        endless = await RawClient.tcp(server.port)
        await endless.send(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 1_000_000)
        assert (await endless.reply()).status == 431


async def test_plain_hypercorn_takes_a_head_past_its_limit_that_comes_in_one_piece() -> None:
    async with plain_hypercorn(App()) as server:
        client = await RawClient.tcp(server.port)
        assert (await client.request("GET", "/", headers={"X-Long": "x" * 20_000})).status == 200


# HTTP/2 in clear text.


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


# A TLS handshake that drips.


async def test_a_tls_handshake_that_drips_is_cut_off_and_delays_no_shutdown(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "HANDSHAKE_S", bounds.HANDSHAKE_S * PER_S)
    async with serving(App(), listeners=open_tcp(["127.0.0.1:0"], tls=tls.context(identity))) as server:
        assert not await drips(await RawClient.tcp(server.port), HELLO * 4, for_s=5 * bounds.HANDSHAKE_S)
        monkeypatch.setattr(bounds, "HANDSHAKE_S", 60.0)
        slow = await RawClient.tcp(server.port)
        await slow.send(HELLO)
        await until(lambda: server.log.connections_open == 1)
        server.shutdown.set()
        assert await slow.closed()
        with trio.fail_after(GRACE_S / 2):
            await server.ended.wait()


async def test_plain_hypercorn_cuts_such_a_handshake_off_as_well_but_waits_for_it_when_it_ends(
    identity: Identity,
) -> None:
    """Its bound is a minute where ours is ten seconds, and can be set; a shutdown lasts for all of the grace."""
    async with plain_hypercorn(App(), identity=identity, ssl_handshake_timeout=10 * PER_S) as server:
        assert not await drips(await RawClient.tcp(server.port), HELLO * 4, for_s=5 * 10 * PER_S)
    async with plain_hypercorn(App(), identity=identity, graceful_timeout=GRACE_S) as server:
        slow = await RawClient.tcp(server.port)
        await slow.send(HELLO)
        await trio.sleep(GRACE_S / 5)
        server.shutdown.set()
        with trio.move_on_after(0.9 * GRACE_S) as waiting:
            await server.ended.wait()
        assert waiting.cancelled_caught


# An agent that asks often, which is no hostility.


@both_paths
async def test_an_agent_may_ask_more_often_than_hypercorn_would_let_it_on_one_connection() -> None:
    async with serving(App()) as server:
        client = await RawClient.tcp(server.port)
        for _ in range(1_100):
            assert "connection" not in (await client.request("GET", "/")).headers


async def test_plain_hypercorn_closes_a_connection_after_a_thousand_requests() -> None:
    async with plain_hypercorn(App()) as server:
        client = await RawClient.tcp(server.port)
        replies = [await client.request("GET", "/") for _ in range(1_000)]
        assert ["connection" in reply.headers for reply in replies].index(True) == 999
