"""The general path of a connection: Hypercorn's protocol over a link of ours, for what is too odd to be answered inline.

Takes over with whatever was received, and stays to the connection's end. It is no subclass of Hypercorn's ``TCPServer``
because each of its methods had to differ: that one keeps a file descriptor until a timer ends although the client left,
waits for ever (shielded) on a client that does not read, and starts a task per request for its timer. Here one cancel
scope around the reader is the timer. Knows no routes and no product.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
from hypercorn.events import Closed, Event, RawData, Updated

from edgegc.api import bounds
from edgegc.api.http1 import Http1

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, Scope

    from edgegc.api.link import Address, Link
    from edgegc.api.service import Service

logger = logging.getLogger(__name__)

APP_QUEUE: Final = 4
"""Body parts between the socket and the application."""


class General:
    """What is left of one connection."""

    def __init__(
        self, service: Service, link: Link, *, addresses: tuple[Address, Address], admin: bool
    ) -> None:
        self._app = service.app
        self._link = link
        client, server = addresses
        self._protocol = Http1(
            service.app,  # type: ignore[arg-type]  # only handed back to spawn_app
            service.config,
            service.context,
            self,  # type: ignore[arg-type]  # stands in for Hypercorn's TaskGroup
            state={"admin": admin},
            ssl=link.tls,
            client=client,
            server=server,
            send=self.send,
            log=service.log,
            head_bytes=service.head_bytes,
        )
        self._nursery: trio.Nursery
        self._send_lock = trio.Lock()
        self._reading = trio.CancelScope()
        """Its deadline is the connection's only timer; cancelled, the connection ends."""
        self._receiving = trio.CancelScope()
        """Around a single receive, so that pipelined requests can go on when the one before them is answered."""
        self._idle = True

    async def run(self, deadline: float) -> None:
        """Serve until the client leaves, a deadline passes, or ``stop``; ``deadline`` is that of a head in the middle."""
        async with trio.open_nursery() as self._nursery:
            self._reading.deadline = min(deadline, trio.current_time() + bounds.HEAD_S)
            with self._reading:
                await self._read()
            # Tells the application, which cancels the handler at its next checkpoint.
            await self._protocol.handle(Closed())
        if self._protocol.mid_request:
            await self._link.linger()

    def stop(self) -> None:
        """End as soon as no answer is owed: at once when idle, else after the answer under way."""
        if self._idle:
            self._reading.cancel()

    async def send(self, event: Event) -> None:
        """Take an event from the protocol: bytes for the client, the end, or that a request began or is over."""
        if isinstance(event, RawData):
            # Shielded where it waits for its turn, too: half an answer is of no use.
            with trio.CancelScope(shield=True):
                async with self._send_lock:
                    await self._link.send(event.data)
            if self._link.lost:
                self._reading.cancel()
        elif isinstance(event, Closed):
            # Only marks the end: this is often called by a task that is being cancelled. `run` ends.
            self._reading.cancel()
        elif isinstance(event, Updated):
            self._idle = event.idle
            if event.idle:
                self._rest(bounds.KEEP_ALIVE_S)
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
        if not self._link.lost:
            await send(None)

    async def _read(self) -> None:
        received: bytes | None = bytes(self._link.received)
        self._link.received.clear()
        while True:
            if received is not None:
                resting = self._idle
                await self._protocol.handle(RawData(received))
                if resting and self._idle and self._reading.deadline > trio.current_time() + bounds.HEAD_S:
                    self._rest(bounds.HEAD_S)
            # Looked at each time round: the wake-up may have lost its race against bytes that arrived.
            while self._protocol.paused and self._idle:
                await self._protocol.resume()
            received = None
            with trio.CancelScope() as self._receiving:
                if self._protocol.full:
                    await trio.sleep_forever()
                received = await self._link.receive()
                if not received:
                    return

    def _rest(self, seconds: float) -> None:
        self._reading.deadline = trio.current_time() + seconds
