"""A client's socket: receives when there is something, sends within bounds, closes for certain. Knows no HTTP.

Clear text and TLS alike: TLS runs in the socket object itself, not in memory buffers beside it as Trio's does, which keep
for each idle client what its handshake once needed. Nothing is allocated for a client that is waited for.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from edgegc.api import bounds

if TYPE_CHECKING:
    from edgegc.api.access import AccessLog

RECEIVE_BYTES: Final = 65_536
OFFERED_BYTES: Final = 262_144
"""How much is offered to a socket at a time, of which it takes what it has room for. TLS takes all or nothing, so it is
offered no more than is timed.
"""
RENEWAL_S: Final = 0.1
"""How often to try again where TLS must send before it can receive."""
SNDBUF_USER_TIMEOUT_MS: Final = 30_000
"""TCP_USER_TIMEOUT: the kernel gives up on a peer that acknowledges nothing for so long."""
KEEPALIVE_IDLE_S: Final = 60
"""TCP keep-alive: finds the peers of held polls that vanished without a word."""
NOTSENT_BYTES: Final = 16_384
"""TCP_NOTSENT_LOWAT: a socket with more than this to send yet is not asked to take more, which bounds what the kernel
keeps for each slow client; Trio's own streams set the same.
"""

Address = tuple[str, int] | None


class Link:
    """One accepted, non-blocking socket. One task at a time may receive, and one send."""

    __slots__ = ("_log", "_sending", "_socket", "ended", "lost", "received", "renews")

    def __init__(self, accepted: socket.socket, *, log: AccessLog) -> None:
        self._socket = accepted
        self._log = log
        self._sending: trio.CancelScope | None = None
        self.received = bytearray()
        """What was received and nobody has taken yet."""
        self.ended = False
        """The client has sent its last byte."""
        self.lost = False
        """Nothing can be sent any more, and what still is is dropped."""
        self.renews = False
        """TLS must send before it can receive, which only a change of keys makes it do."""

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS."""
        return isinstance(self._socket, ssl.SSLSocket)

    def addresses(self) -> tuple[Address, Address]:
        """Return the client's address and ours; None where they are not of the Internet. :raises OSError: it has left."""
        if self._socket.family not in (socket.AF_INET, socket.AF_INET6):
            return None, None
        theirs, ours = self._socket.getpeername(), self._socket.getsockname()
        return (theirs[0], theirs[1]), (ours[0], ours[1])

    async def secure(self, context: ssl.SSLContext) -> None:
        """Do the TLS handshake. Cancelled, the link can only be closed. :raises OSError: it failed."""
        secured = self._socket = context.wrap_socket(
            self._socket, server_side=True, do_handshake_on_connect=False
        )
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
            else:
                return

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def read(self) -> bytes | None:
        """Return what has come, not looking at ``received``; none: the client has left; None: there is nothing yet."""
        try:
            received = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except ssl.SSLWantWriteError:
            self.renews = True
            return None
        except OSError:
            # A reset, or TLS that broke off: the client left in a hurry, which is no crash of ours.
            received = b""
        self.ended = not received
        return received

    async def receive(self) -> bytes:
        """Wait for bytes and return them as :meth:`read` does. Cancelling loses none."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._socket)
        while (received := self.read()) is None:
            if self.renews:
                self.renews = False
                await trio.sleep(RENEWAL_S)
            else:
                await trio.lowlevel.wait_readable(self._socket)
        return received

    async def fill(self) -> bool:
        """Wait for bytes and add them to ``received``; False: the client has left. Cancelling loses none."""
        self.received += await self.receive()
        return not self.ended

    def offer(self, content: bytes) -> int:
        """Send what the kernel takes at once, and return how much; all of it counts as sent where the link is ``lost``."""
        try:
            # What TLS did not take has to be offered again as it was: :meth:`send` offers as much.
            return self._socket.send(content[: bounds.SEND_BYTES])
        except (BlockingIOError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            self.lost = True
            return len(content)

    async def send(self, content: bytes) -> None:
        """Send all of it, shielded: half an answer is of no use. A client that stops reading is cut off (``lost``).

        No checkpoint where the kernel takes it at once.
        """
        view = memoryview(content)
        offered = bounds.SEND_BYTES if self.tls else OFFERED_BYTES
        offset = due = 0
        deadline = 0.0
        while offset < len(view) and not self.lost:
            try:
                offset += self._socket.send(view[offset : offset + offered])
            except (BlockingIOError, ssl.SSLWantWriteError):
                if offset >= due:
                    due = offset + bounds.SEND_BYTES
                    deadline = trio.current_time() + bounds.SEND_S
                with trio.CancelScope(deadline=deadline, shield=True) as self._sending:
                    await trio.lowlevel.wait_writable(self._socket)
                if self._sending.cancelled_caught and not self.lost:
                    self._log.clients_dropped += 1
                    self.lost = True
                self._sending = None
            except OSError:
                self.lost = True

    def interject(self, content: bytes) -> None:
        """Send a few bytes if there is room for them. Not while somebody sends."""
        if 0 < self.offer(content) < len(content):
            self.lost = True

    def abort(self) -> None:
        """Give up a send that is under way, and all that would follow."""
        self.lost = True
        if self._sending is not None:
            self._sending.cancel()

    async def linger(self) -> None:
        """Say that nothing more comes, and let the client finish what it sends, for a moment."""
        if self.lost or self.ended:
            return
        # Below TLS: the client needs no close_notify to know that an answer with a length has ended.
        with suppress(OSError), trio.move_on_after(bounds.LINGER_S):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                with suppress(BlockingIOError):
                    if not socket.socket.recv(self._socket, RECEIVE_BYTES):
                        return

    def close(self) -> None:
        """Close the socket, whoever still waits on it."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


def prepare(sock: socket.socket) -> None:
    """Set a TCP socket's options so that a peer which is gone, or does not read, is noticed by the kernel too."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SNDBUF_USER_TIMEOUT_MS)
    # An answer is sent whole: there is nothing that Nagle's algorithm could wait for.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_BYTES)
