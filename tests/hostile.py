"""What no decent client does: ask and not read, drip, come by the thousand; and a machine that has run out of files."""

from __future__ import annotations

import os
import resource
import socket
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import trio

from tests.raw_http import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = b"GET / HTTP/1.1\r\nHost: xxxxxxxxxxxxxxx\r\n\r\n"
THOUSAND = 1000
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a TLS handshake begins."""


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def asks_and_reads_nothing(port: int) -> RawClient:
    client = await RawClient.tcp(port)
    await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.stream.receive_some(1)  # type: ignore[call-arg]
    return client


async def drips(client: RawClient, content: bytes, *, for_s: float) -> bool:
    """Send a byte now and then, for so long; return whether the server put up with it."""
    with suppress(trio.BrokenResourceError):
        for byte in content:
            await client.send(bytes([byte]))
            await trio.sleep(for_s / len(content))
        return True
    return False


@contextmanager
def descriptors(*, left: int) -> Iterator[None]:
    """Have this process out of file descriptors but for so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The kernel hands out the lowest number that is free.
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(left + 1)]
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def crowd() -> Iterator[list[socket.socket]]:
    """Have a thousand sockets, and the file descriptors for what they connect to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * THOUSAND
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    clients = [new_socket() for _ in range(THOUSAND)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def new_socket() -> socket.socket:
    return socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def come_at_once(clients: list[socket.socket], port: int) -> int:
    """Connect before the server has a turn; return how many of them the kernel has let in by then."""
    let_in = 0
    for client in clients:
        with suppress(BlockingIOError):
            client.connect(("127.0.0.1", port))
    for client in clients:
        with suppress(OSError):
            client.getpeername()
            let_in += 1
    return let_in
