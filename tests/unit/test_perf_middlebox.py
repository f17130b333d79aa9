"""A box in the way, on loopback: it passes everything on, and cuts what is silent."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.errors import Unavailable
from edgegc.perf.middlebox import Middlebox
from edgegc.perf.network import Host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SAFE_S = 20.0
LONG = b"x" * 300_000


class Loopback(Host):
    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return socket.socket(family, kind, protocol)


def free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        port: int = attempt.getsockname()[1]
        return port


async def _echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for piece in stream:
            await stream.send_all(piece)


@asynccontextmanager
async def through(*, silent_s: float) -> AsyncIterator[trio.SocketStream]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, _echo, 0)
        target = listeners[0].socket.getsockname()[1]
        port = free_port()
        between = Middlebox(
            Loopback("here", address="127.0.0.1"), port=port, target_port=target, silent_s=silent_s
        )
        await nursery.start(between.run)
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_everything_comes_through_both_ways() -> None:
    with trio.fail_after(SAFE_S):
        async with through(silent_s=SAFE_S) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, LONG)
            received = bytearray()
            while len(received) < len(LONG):
                received += await client.receive_some()
            assert received == LONG


async def test_what_is_silent_is_cut() -> None:
    with trio.fail_after(SAFE_S):
        async with through(silent_s=0.05) as client:
            await client.send_all(b"hello")
            assert await client.receive_some() == b"hello"
            assert await client.receive_some() == b""


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = Loopback("here", address="127.0.0.1")
        with pytest.raises(Unavailable, match="nobody can listen"):
            await Middlebox(host, port=taken.getsockname()[1], target_port=1).run()
