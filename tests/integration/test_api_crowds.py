"""Clients of which there are too many, or all kinds at once: what they get from us, and from plain Hypercorn."""

from __future__ import annotations

import logging
import os
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.api import server as server_module
from edgegc.api import tls
from edgegc.api.listeners import BACKLOG, open_admin, open_tcp
from edgegc.settings import Api, Limits, Settings
from tests.hostile import HEAD, HELLO, THOUSAND, come_at_once, crowd, descriptors, drips, new_socket, trusting
from tests.raw_http import RawClient
from tests.serving import GRACE_S, App, both_paths, plain_hypercorn, serving, until

if TYPE_CHECKING:
    from edgegc.api.tls import Identity


# No file descriptors left.


@pytest.mark.alone
async def test_running_out_of_file_descriptors_is_logged_once_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(App()) as server:
        with new_socket() as client:
            with descriptors(left=0):
                come_at_once([client], server.port)
                await until(lambda: server.log.accept_errors >= 3)
            client.send(HEAD)
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(client)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "file descriptor limit" in line.getMessage()
    assert line.exc_info is None


@pytest.mark.alone
async def test_plain_hypercorn_logs_a_traceback_for_each_time_that_it_runs_out_of_file_descriptors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def tracebacks() -> int:
        return sum(record.exc_info is not None for record in caplog.records)

    async with plain_hypercorn(App()) as server:
        with new_socket() as client, descriptors(left=0):
            come_at_once([client], server.port)
            await until(lambda: tracebacks() >= 3)


# More clients than may be.


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


@pytest.mark.alone
async def test_plain_hypercorn_gives_clients_the_last_file_descriptor() -> None:
    """It has no cap: there is not even one descriptor left for whatever the application would open."""
    async with plain_hypercorn(App()) as server:
        with new_socket() as client, descriptors(left=1):
            come_at_once([client], server.port)
            client.send(HEAD)
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(client)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)


# A thousand clients in the same moment.


@both_paths
async def test_a_thousand_clients_that_come_at_once_are_let_in_at_once_and_all_served() -> None:
    room = min(BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text()))  # noqa: ASYNC240
    with crowd() as clients:
        async with serving(App(), settings=Settings(limits=Limits(connections=2 * THOUSAND))) as server:
            assert come_at_once(clients, server.port) >= min(THOUSAND, room)
            with trio.fail_after(30):
                for client in clients:
                    await trio.lowlevel.wait_writable(client)
                    client.send(HEAD)
                for client in clients:
                    await trio.lowlevel.wait_readable(client)
                    assert client.recv(1000).startswith(b"HTTP/1.1 200")


async def test_plain_hypercorn_has_most_of_a_thousand_clients_try_again_after_a_second() -> None:
    """Its backlog takes a hundred; who finds it full is not heard by the kernel, and TCP tries again a second later."""
    with crowd() as clients:
        async with plain_hypercorn(App()) as server:
            assert come_at_once(clients, server.port) < THOUSAND / 2
            began = time.monotonic()
            for client in clients:
                with trio.fail_after(30):
                    await trio.lowlevel.wait_writable(client)
            assert time.monotonic() - began > 0.9


# All of them.


@pytest.mark.alone
@both_paths
async def test_no_client_of_any_kind_delays_shutdown_beyond_the_grace(identity: Identity) -> None:
    app = App()
    listeners = [
        *open_tcp(["127.0.0.1:0"], tls=None),
        *open_tcp(["127.0.0.1:0"], tls=tls.context(identity)),
    ]
    said = [
        b"",
        b"GET / HTTP/1.1\r\nHo",
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 1_000_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
        b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun",
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun",
    ]
    settings = Settings(api=Api(graceful_timeout_s=GRACE_S), limits=Limits(connections=THOUSAND // 2))
    with crowd() as clients:
        async with (
            serving(app, listeners=listeners, settings=settings) as server,
            trio.open_nursery() as nursery,
        ):
            for content in said:
                for listener, context in zip(listeners, (None, trusting()), strict=True):
                    client = await RawClient.tcp(listener.port, tls=context)
                    nursery.start_soon(_says, client, content)
            leaves = await RawClient.tcp(server.port)
            await leaves.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: app.held == 5)
            await leaves.aclose()
            for listener, content in zip(listeners, (HEAD, HELLO), strict=True):
                nursery.start_soon(_drips, await RawClient.tcp(listener.port), content)
            # Half of them are past the cap; the kernel has all of the others while no file descriptor is left for them.
            come_at_once(clients[: THOUSAND // 2], server.port)
            await until(lambda: server.log.connections_refused > 0)
            with descriptors(left=0):
                come_at_once(clients[THOUSAND // 2 :], server.port)
                await until(lambda: server.log.accept_errors > 0)
                server.shutdown.set()
                with trio.fail_after(GRACE_S + 1):
                    await server.ended.wait()
            assert server.log.connections_open == 0
            nursery.cancel_scope.cancel()


async def _says(client: RawClient, content: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await client.send(content)


async def _drips(client: RawClient, content: bytes) -> None:
    await drips(client, content, for_s=10)
