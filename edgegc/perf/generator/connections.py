"""One connection: opened without waiting, TLS where wanted, one request at a time, and what went wrong by its kind.

Knows no plan and counts nothing: its owner is told. Everything happens in calls from the loop; nothing here waits.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, Protocol

from edgegc.perf.generator.framing import Malformed, Reader

if TYPE_CHECKING:
    from edgegc.perf.generator.loop import Loop

READ_BYTES: Final = 65_536
"""Read at once: four TLS records; most answers are 300 bytes."""
PORTS_PER_SOURCE: Final = 20_000
"""Connections from one of our addresses to one of theirs: Linux has 28,232 ephemeral ports, some of them in TIME_WAIT."""
IP_BIND_ADDRESS_NO_PORT: Final = 24
"""``linux/in.h``; Python has no name for it before 3.12. The port is chosen by connect, which knows both ends."""

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_WOULD_WAIT: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_KINDS: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EMFILE: "generator out of files",
    errno.ENFILE: "generator out of files",
    errno.EADDRNOTAVAIL: "generator out of ports",
}


class Owner(Protocol):
    """Who is told. None of these may raise."""

    def opened(self, connection: Connection) -> None:
        """It can be asked."""

    def answered(self, connection: Connection) -> None:
        """The answer to what was sent last is complete: see its ``reader``."""

    def failed(self, connection: Connection, kind: str) -> None:
        """It broke and is closed. ``asked`` tells whether a request was out."""

    def left(self, connection: Connection) -> None:
        """The other side closed it while it had nothing to do; it is closed."""


class Place:
    """Where to connect, and how. Made once for all connections."""

    def __init__(self, *, family: socket.AddressFamily, address: tuple[object, ...], tls: bool) -> None:
        self.family = family
        self.address = address
        self.tls = _unverified() if tls else None

    def source(self, index: int) -> str | None:
        """Return our own address for a connection, or None for any: beyond 20,000 one address has too few ports.

        Every address of 127.0.0.0/8 is this machine; elsewhere there is but one.
        """
        block = index // PORTS_PER_SOURCE
        if not block or not str(self.address[0]).startswith("127."):
            return None
        return f"127.0.{block >> 8}.{(block & 255) + 1}"


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The suite knows its own server, and measures it: nothing secret goes this way.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """One connection of many, at times open. The fields up to ``asked`` are its owner's."""

    __slots__ = (
        "_begun_ns",
        "_loop",
        "_owner",
        "_place",
        "_socket",
        "_unsent",
        "answers",
        "asked",
        "due_ns",
        "etags",
        "failures",
        "fresh",
        "idle",
        "index",
        "kind",
        "opened_in_ns",
        "queued",
        "reader",
        "resting",
    )

    def __init__(self, index: int, *, place: Place, loop: Loop, owner: Owner) -> None:
        self.index = index
        self.answers = 0
        self.due_ns = 0
        self.kind = 0
        self.etags: dict[int, bytes] = {}
        """By kind of request, where it is asked conditionally."""
        self.failures = 0
        self.fresh = True
        """It was not asked yet since it was opened."""
        self.queued = False
        self.resting = False
        self.asked = False
        """A request is out."""
        self.idle = False
        """It is open, and none is."""
        self.opened_in_ns = 0
        """How long it took to be open, TLS included."""
        self.reader = Reader()
        self._begun_ns = 0
        self._loop = loop
        self._owner = owner
        self._place = place
        self._socket: socket.socket | None = None
        self._unsent: memoryview | None = None

    def open(self) -> None:
        """Begin to connect; the owner is told how it ended. To be called by a timer (see :meth:`Loop.forget`)."""
        place = self._place
        self._begun_ns = monotonic_ns()
        self.reader = Reader()
        try:
            self._socket = plain = socket.socket(place.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            source = place.source(self.index)
            if source is not None:
                plain.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                plain.bind((source, 0))
            code = plain.connect_ex(place.address)
        except OSError as error:
            self._fail(_kind(error))
            return
        if code not in (0, errno.EINPROGRESS):
            self._fail(_KINDS.get(code) or errno.errorcode.get(code, str(code)))
            return
        self._loop.watch(plain.fileno(), _OUT, self._connected)

    def send(self, request: bytes) -> None:
        """Send a request; it must be idle. What can't be sent at once follows."""
        assert self._socket is not None
        self.asked = True
        self.idle = False
        try:
            sent = self._socket.send(request)
        except _WOULD_WAIT:
            sent = 0
        except OSError as error:
            self._fail(_kind(error))
            return
        if sent != len(request):
            self._unsent = memoryview(request)[sent:]
            self._loop.change(self._socket.fileno(), _IN | _OUT, self._busy)

    def close(self) -> None:
        """Close it, whatever it does. The owner is not told."""
        self.asked = self.idle = False
        self._unsent = None
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def give_up(self) -> None:
        """What was waited for took too long."""
        self._fail("timeout")

    def _fail(self, kind: str) -> None:
        asked = self.asked
        self.close()
        self.asked = asked
        self._owner.failed(self, kind)
        self.asked = False

    def _connected(self, mask: int) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(_KINDS.get(code) or errno.errorcode.get(code, str(code)))
            return
        if self._place.tls is None:
            self._ready()
            return
        self._loop.forget(self._socket.fileno())
        try:
            self._socket = self._place.tls.wrap_socket(self._socket, do_handshake_on_connect=False)
        except OSError as error:
            self._fail(_kind(error))
            return
        self._loop.watch(self._socket.fileno(), _OUT, self._handshake)

    def _handshake(self, mask: int) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.change(self._socket.fileno(), _IN, self._handshake)
        except ssl.SSLWantWriteError:
            self._loop.change(self._socket.fileno(), _OUT, self._handshake)
        except OSError as error:
            self._fail(_kind(error))
        else:
            self._ready()

    def _ready(self) -> None:
        assert self._socket is not None
        self._loop.change(self._socket.fileno(), _IN, self._readable)
        self.opened_in_ns = monotonic_ns() - self._begun_ns
        self.idle = True
        self._owner.opened(self)

    def _busy(self, mask: int) -> None:
        """While a request is not sent completely: a server may well answer before it has read it all."""
        assert self._socket is not None
        if mask & ~_OUT:
            self._readable(mask)
        # An answer to half a request ends it and its connection; then another socket, or none, is here.
        unsent = self._unsent
        if unsent is None or self._socket is None:
            return
        try:
            sent = self._socket.send(unsent)
        except _WOULD_WAIT:
            return
        except OSError as error:
            self._fail(_kind(error))
            return
        if sent < len(unsent):
            self._unsent = unsent[sent:]
            return
        self._unsent = None
        self._loop.change(self._socket.fileno(), _IN, self._readable)

    def _readable(self, mask: int) -> None:
        try:
            piece = self._socket.recv(READ_BYTES)  # type: ignore[union-attr]  # open while it is watched
            if not piece:
                self._ended()
            elif self.reader.feed(piece):
                self._complete()
        except _WOULD_WAIT:
            return
        except OSError as error:
            self._fail(_kind(error))
        except Malformed:
            self._fail("malformed")

    def _complete(self) -> None:
        if not self.asked:
            # A server that is full says so before it has read anything.
            self._fail(f"status {self.reader.status}")
            return
        if self._unsent is not None:
            # What is left of the request would be read as the next one.
            self._unsent = None
            self.reader.keeps = False
        self.asked = False
        self.idle = True
        self._owner.answered(self)

    def _ended(self) -> None:
        if self.reader.end() and self.asked:
            self._complete()
        elif self.asked:
            self._fail("closed")
        else:
            self.close()
            self._owner.left(self)


def _kind(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "tls"
    code = error.errno or 0
    return _KINDS.get(code) or errno.errorcode.get(code, "error").lower()
