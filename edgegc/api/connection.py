"""One client's connection: at each request the lane first, then the inline path, and for what is odd the general path.

Stands where Hypercorn has its ``TCPServer``. The first two run in the connection's own task, with no other task, channel
or timer for a request; who polls is served by the reactor while that task sleeps; the third is Hypercorn's, takes over with
all bytes that were received, and keeps the connection to its end. Knows when requests begin, how long a client may be silent, and when to close. Knows no routes and no product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edgegc.api import bounds, plain
from edgegc.api.general import General
from edgegc.api.inline import Exchange
from edgegc.api.link import Link
from edgegc.api.plain import Head, Unfit

if TYPE_CHECKING:
    import socket
    import ssl

    from edgegc.api.lane_protocol import Held, Lane
    from edgegc.api.link import Address
    from edgegc.api.service import Service


class Connection:
    """One accepted connection. ``run`` serves it to its end; ``stop`` and ``abort`` may be called from other tasks."""

    __slots__ = (
        "_addresses",
        "_admin",
        "_general",
        "_idle",
        "_lane",
        "_link",
        "_service",
        "_tls",
        "_waiting",
    )

    def __init__(
        self, service: Service, accepted: socket.socket, *, tls: ssl.SSLContext | None, admin: bool
    ) -> None:
        self._service = service
        self._link = Link(accepted, log=service.log)
        self._tls = tls
        self._admin = admin
        # Who asks over the admin socket is somebody else: not the lane's business.
        self._lane: Lane | None = None if admin else service.lane
        self._addresses: tuple[Address, Address] = None, None
        self._waiting = trio.CancelScope()
        """Its deadline is the connection's only timer; cancelled, an idle connection ends."""
        self._idle = True
        """No answer is owed, and none can be before the connection's task has gone on: so it may be cancelled."""
        self._general: General | None = None

    async def run(self) -> None:
        """Serve until the client leaves, a deadline passes, or ``stop``. The socket is closed on return, for certain.

        Cancelling it closes at once; a handler in the middle of a write finishes that write first.
        """
        try:
            self._addresses = self._link.addresses()
            if self._tls is None or await self._handshake(self._tls):
                await self._serve()
        except OSError:
            pass
        finally:
            self._link.close()

    def stop(self) -> None:
        """End the connection as soon as it owes no answer: at once when idle, else after the answer under way."""
        if self._general is not None:
            self._general.stop()
        elif self._idle:
            self._waiting.cancel()
        elif self._service.reactor is not None:
            self._service.reactor.dismiss(self._link)

    def abort(self) -> None:
        """End the connection now: a shielded send is given up. The caller cancels ``run``."""
        self._link.abort()

    async def _handshake(self, context: ssl.SSLContext) -> bool:
        with trio.CancelScope(deadline=trio.current_time() + bounds.HANDSHAKE_S) as self._waiting:
            await self._link.secure(context)
            return True
        return False

    async def _serve(self) -> None:
        patience_s = bounds.HEAD_S
        while not self._service.stopping:
            head = await self._next(patience_s)
            if head is None:
                return
            self._idle = False
            if isinstance(head, Unfit):
                await self._hand_over()
                return
            exchange = Exchange(self._service, self._link, head, addresses=self._addresses, admin=self._admin)
            del head
            keeps = await exchange.run()
            del exchange  # a connection that rests keeps nothing of its last request, its token least of all
            if not keeps:
                return
            if self._link.received:
                # Requests that came together are answered a turn each: others on the box have theirs in between.
                await trio.lowlevel.checkpoint()
            self._idle = True
            patience_s = bounds.KEEP_ALIVE_S

    async def _next(self, patience_s: float) -> Head | Unfit | None:
        """Return the next request that is not the lane's, having answered those that are; None: there will be none."""
        link, lane, reactor = self._link, self._lane, self._service.reactor
        source = self._addresses[0][0] if self._addresses[0] is not None else "socket"
        with trio.CancelScope(deadline=trio.current_time() + patience_s) as self._waiting:
            begun = polls = False
            while True:
                if link.received:
                    taken = lane.take(link.received, source=source) if lane is not None else None
                    if taken is not None:
                        del link.received[: taken.consumed]
                        await self._give(taken.answer)
                        if self._service.stopping or link.lost or link.ended:
                            return None
                        begun, polls = False, isinstance(taken.answer, bytes)
                        del taken  # a connection that rests keeps nothing of its last request
                        continue
                    head = plain.read(link.received, limit=self._service.head_bytes)
                    if head is not Unfit.INCOMPLETE:
                        return head
                    if not begun:
                        begun, polls = True, False
                        soon = trio.current_time() + bounds.HEAD_S
                        self._waiting.deadline = min(self._waiting.deadline, soon)
                if polls and reactor is not None:
                    polls = self._idle = False
                    left = await reactor.serve(link, source=source, resting=self._waiting)
                    self._idle = True
                    if left is not None:
                        await self._give(left)
                    del left
                    if self._service.stopping or link.lost or link.ended:
                        return None
                elif not await link.fill():
                    return None
        return None

    async def _give(self, answer: bytes | Held) -> None:
        """Give the lane's answer, now or when there is news. The client has its time anew then."""
        await (self._link.send(answer) if isinstance(answer, bytes) else self._hold(answer))
        self._waiting.deadline = trio.current_time() + bounds.KEEP_ALIVE_S

    async def _hold(self, held: Held) -> None:
        """Keep a long poll until there is news, its time is over or the client leaves."""
        link = self._link
        self._idle = False
        self._waiting.deadline = float("inf")
        waiting = trio.CancelScope(deadline=held.deadline)
        try:
            held.park(waiting.cancel)
            with waiting:
                # What a client sends now is for later; that it leaves is not.
                while len(link.received) <= bounds.READ_AHEAD_BYTES:
                    if not await link.fill():
                        return
                await trio.sleep_forever()
            await link.send(held.answer())
        finally:
            held.leave()
            self._idle = True

    async def _hand_over(self) -> None:
        self._general = General(self._service, self._link, addresses=self._addresses, admin=self._admin)
        await self._general.run(self._waiting.deadline)
