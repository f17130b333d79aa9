"""One client's connection: reads with deadlines, sends with bounds, and closes for certain.

Stands where Hypercorn has its ``TCPServer``, and drives the same protocol. It is no subclass because each of its
methods had to differ: that one keeps a file descriptor until a timer ends although the client left, waits for
ever (shielded) on a client that does not read, and starts a task per request for its timer. Here one cancel
scope around the reader is the timer. Knows no routes and no product.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.events import Closed, Event, RawData, Updated

from edgegc.api.http1 import Http1

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ASGIFramework, ASGIReceiveEvent, ASGISendEvent, Scope

    from edgegc.api.access import AccessLog

logger = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 65_536
HANDSHAKE_S: Final = 10.0
"""How long a TLS handshake may take."""
HEAD_S: Final = 10.0
"""How long a request head may take, from its first byte or, for the first one, from the connection's beginning: what
a slow or hostile client can hold cheaply.
"""
KEEP_ALIVE_S: Final = 75.0
"""How long a connection may rest between requests: longer than the usual 60 s between polls of an agent."""
SEND_S: Final = 30.0
"""How long a client may take to accept the next :data:`SEND_BYTES`. Per piece, not per answer: a 10 MiB bundle over a
slow mobile link may take minutes, a client that does not read at all may not.
"""
SEND_BYTES: Final = 65_536
LINGER_S: Final = 2.0
"""How long to go on receiving after an answer that came before the whole request: closing at once would reset the
connection, and with it the answer that the client has not read yet.
"""
APP_QUEUE: Final = 4
"""Body parts between the socket and the application."""
SNDBUF_USER_TIMEOUT_MS: Final = 30_000
"""TCP_USER_TIMEOUT: the kernel gives up on a peer that acknowledges nothing for so long."""
KEEPALIVE_IDLE_S: Final = 60
"""TCP keep-alive: finds the peers of held polls that vanished without a word."""


class Connection:
    """One accepted connection. ``run`` serves it to its end; ``stop`` and ``abort`` may be called from other tasks."""

    def __init__(
        self,
        app: ASGIFramework,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        *,
        tls: ssl.SSLContext | None,
        state: dict[str, Any],
        log: AccessLog,
        head_bytes: int,
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._transport = stream
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = (
            stream if tls is None else trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        )
        self._state = state
        self._log = log
        self._head_bytes = head_bytes
        self._protocol: Http1
        self._nursery: trio.Nursery
        self._send_lock = trio.Lock()
        self._reading = trio.CancelScope()
        """Its deadline is the connection's only timer; cancelled, the connection ends."""
        self._handshaking = trio.CancelScope()
        self._receiving = trio.CancelScope()
        """Around a single receive, so that pipelined requests can go on when the one before them is answered."""
        self._sending: trio.CancelScope | None = None
        self._idle = True
        self._dead = False
        self._eof = False

    async def run(self) -> None:
        """Serve until the client leaves, a deadline passes, or ``stop``. The socket is closed on return, for certain.

        Cancelling it closes at once; a handler in the middle of a write finishes that write first.
        """
        try:
            if not await self._handshake():
                return
            sock = self._transport.socket
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._protocol = Http1(
                    self._app,  # type: ignore[arg-type]  # only handed back to spawn_app
                    self._config,
                    self._context,
                    self,  # type: ignore[arg-type]  # stands in for Hypercorn's TaskGroup
                    state=self._state,
                    ssl=self._stream is not self._transport,
                    client=_address(sock, sock.getpeername()),
                    server=_address(sock, sock.getsockname()),
                    send=self.send,
                    log=self._log,
                    head_bytes=self._head_bytes,
                )
                self._rest(HEAD_S)
                if self._context.terminated.is_set():
                    self._reading.cancel()
                with self._reading:
                    await self._read()
                # Tells the application, which cancels the handler at its next checkpoint.
                await self._protocol.handle(Closed())
            await self._linger()
        except (OSError, trio.BrokenResourceError):
            pass
        finally:
            self._dead = True
            await trio.aclose_forcefully(self._stream)

    def stop(self) -> None:
        """End the connection as soon as it owes no answer: at once when idle, else after the answer under way."""
        if self._idle:
            self._handshaking.cancel()
            self._reading.cancel()

    def abort(self) -> None:
        """End the connection now: a shielded send is given up. The caller cancels ``run``."""
        self._dead = True
        self._reading.cancel()
        if self._sending is not None:
            self._sending.cancel()

    async def send(self, event: Event) -> None:
        """Take an event from the protocol: bytes for the client, the end, or that a request began or is over."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Closed):
            # Only marks the end: this is often called by a task that is being cancelled. `run` closes.
            self._reading.cancel()
        elif isinstance(event, Updated):
            self._idle = event.idle
            if event.idle:
                self._rest(KEEP_ALIVE_S)
                if self._protocol.paused:
                    self._receiving.cancel()
            else:
                self._reading.deadline = float("inf")

    async def spawn_app(
        self,
        app: object,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the application on a request (Hypercorn's ``TaskGroup.spawn_app``).

        Unlike Hypercorn's, what is put to an application that has answered or ended is dropped: there, a client that
        goes on sending a body in small parts that nobody reads blocks the connection for good.
        """
        to_app, from_connection = trio.open_memory_channel["ASGIReceiveEvent"](APP_QUEUE)
        self._nursery.start_soon(self._run_app, scope, from_connection, send)

        async def put(event: ASGIReceiveEvent) -> None:
            if event["type"] == "http.disconnect":
                # Never waits for room, and wakes a reader that does: see `receive` in `_run_app`.
                to_app.close()
                return
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await to_app.send(event)

        return put

    async def _run_app(
        self,
        scope: Scope,
        from_connection: trio.MemoryReceiveChannel[ASGIReceiveEvent],
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> None:
        async def receive() -> ASGIReceiveEvent:
            try:
                return await from_connection.receive()
            except trio.EndOfChannel:
                return {"type": "http.disconnect"}

        try:
            with from_connection:
                await self._app(scope, receive, send)
        except Exception:
            # The application turns its own errors into answers; this is one in Quart or below.
            logger.exception(
                "request failed below the application",
                extra={"request_id": scope["state"]["request_id"], "path": scope.get("path")},
            )
        if not self._dead:
            await send(None)

    async def _handshake(self) -> bool:
        if isinstance(self._stream, trio.SSLStream):
            with self._handshaking, trio.move_on_after(HANDSHAKE_S):
                await self._stream.do_handshake()
                return True
            return False
        return True

    async def _read(self) -> None:
        while True:
            received: bytes | bytearray | None = None
            with trio.CancelScope() as self._receiving:
                if self._protocol.full:
                    await trio.sleep_forever()
                try:
                    received = await self._stream.receive_some(RECEIVE_BYTES)
                except trio.BrokenResourceError:
                    # A reset, or TLS that broke off: the client left in a hurry, which is no crash of ours.
                    received = b""
            if received is not None:
                if not received:
                    self._eof = True
                    return
                resting = self._idle
                await self._protocol.handle(RawData(bytes(received)))
                if resting and self._idle and self._reading.deadline > trio.current_time() + HEAD_S:
                    self._rest(HEAD_S)
            # Looked at each time round: the wake-up may have lost its race against bytes that arrived.
            while self._protocol.paused and self._idle:
                await self._protocol.resume()

    async def _send(self, content: bytes) -> None:
        """Send all of it, shielded: half an answer is of no use. A client that stops reading is cut off."""
        async with self._send_lock:
            view = memoryview(content)
            for offset in range(0, len(view), SEND_BYTES):
                if self._dead:
                    return
                try:
                    with trio.move_on_after(SEND_S, shield=True) as self._sending:
                        await self._stream.send_all(view[offset : offset + SEND_BYTES])
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._drop()
                else:
                    if self._sending.cancelled_caught:
                        self._log.clients_dropped += 1
                        self._drop()
                finally:
                    self._sending = None

    def _drop(self) -> None:
        self._dead = True
        self._reading.cancel()

    def _rest(self, seconds: float) -> None:
        self._reading.deadline = trio.current_time() + seconds

    async def _linger(self) -> None:
        if self._dead or self._eof or not self._protocol.mid_request:
            return
        with trio.move_on_after(LINGER_S):
            # Below TLS: the client needs no close_notify to know that an answer with a length has ended.
            await self._transport.send_eof()
            while await self._transport.receive_some(RECEIVE_BYTES):
                pass


def prepare(sock: socket.socket) -> None:
    """Set a TCP socket's options so that a peer which is gone, or does not read, is noticed by the kernel too."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SNDBUF_USER_TIMEOUT_MS)


def _address(sock: trio.socket.SocketType, address: Any) -> tuple[str, int] | None:
    return (address[0], address[1]) if sock.family in (socket.AF_INET, socket.AF_INET6) else None
