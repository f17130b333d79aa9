"""A client and a connection of the server's on two ends of a socket pair: no listener, no port, nothing to wait for."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.trio.worker_context import WorkerContext
from trio.testing import wait_all_tasks_blocked

from edgegc.api.access import AccessLog
from edgegc.api.connection import Connection
from edgegc.api.reactor import Reactor
from edgegc.api.server import hypercorn_config
from edgegc.api.service import Service
from edgegc.api.vigil import Vigil

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from edgegc.api.lane_protocol import Lane

HEAD_BYTES = 16_384


class Client:
    """What sits at the other end."""

    def __init__(self, sock: socket.socket, service: Service, connection: Connection) -> None:
        self._socket = sock
        self.service = service
        self.connection = connection
        self.closed = False

    async def say(self, content: bytes) -> None:
        """Send, and wait until the server has done with it what it can."""
        self._socket.sendall(content)
        await wait_all_tasks_blocked()

    def push(self, content: bytes) -> None:
        """Send, and wait for nothing."""
        self._socket.sendall(content)

    async def pour(self, content: bytes) -> int:
        """Send as much as there is room for; return how much that was."""
        sent = 0
        while sent < len(content):
            try:
                sent += self._socket.send(content[sent : sent + 65_536])
            except BlockingIOError:
                before = sent
                await wait_all_tasks_blocked()
                with suppress(BlockingIOError):
                    sent += self._socket.send(content[sent : sent + 65_536])
                if sent == before:
                    break
        return sent

    async def end(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()

    async def leave(self) -> None:
        """Close."""
        self._socket.close()
        await wait_all_tasks_blocked()

    async def heard(self) -> bytes:
        """Return what has arrived since the last time; ``closed`` says whether the server has closed."""
        arrived = b""
        while True:
            await wait_all_tasks_blocked()
            try:
                part = self._socket.recv(1 << 20)
            except BlockingIOError:
                return arrived
            except ConnectionResetError:
                part = b""
            arrived += part
            if not part:
                self.closed = True
                return arrived

    def stream(self) -> trio.SocketStream:
        """Return the client's end, for whoever wants to speak TLS over it; nothing else here can be used then."""
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=self._socket.detach())))

    @property
    def counted(self) -> dict[tuple[str, str, int], int]:
        """What the access log has counted, by method, route and status."""
        return {kind: tally.count for kind, tally in self.service.log.tallies.items()}


@asynccontextmanager
async def connected(
    app: Any, *, lane: Lane | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """Run a connection until the context ends."""
    log = AccessLog()
    service = Service(
        app=app,
        log=log,
        head_bytes=HEAD_BYTES,
        lane=lane,
        reactor=Reactor(lane) if lane is not None else None,
        config=hypercorn_config(log, head_bytes=HEAD_BYTES),
        context=WorkerContext(None),
        vigil=Vigil(),
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        connection = Connection(service, theirs, tls=tls, admin=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.vigil.run)
            if service.reactor is not None:
                nursery.start_soon(service.reactor.run)
            nursery.start_soon(connection.run)
            await wait_all_tasks_blocked()
            yield Client(ours, service, connection)
            connection.abort()
            nursery.cancel_scope.cancel()
