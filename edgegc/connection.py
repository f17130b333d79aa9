"""One HTTP/1.1 connection to a control plane: TCP, TLS with a pinned key, or a Unix socket; h11 over a Trio stream.

Knows nothing of our API: it carries heads and bytes. Light to import on purpose: agents and every CLI command pay.
"""

from __future__ import annotations

import hashlib
import ipaddress
import select
import socket
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from edgegc.errors import Error, Invalid

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_TIMEOUT_S: Final = 10.0
"""A box that does not complete TCP and TLS in this time is not there; agents go on to the next address."""
KEEPALIVE_IDLE_S: Final = 20
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 2
LOSS_LIMIT_MS: Final = 30_000
"""A held question over a path that is gone is given up after half a minute (TCP_USER_TIMEOUT says the same for what was
sent). Without, a link that came back after 40 s was noticed 39 s later: the answer waits for its retransmission."""
MAX_HEAD_BYTES: Final = 65_536
"""Our heads are < 2 KB; proxies in between add to them."""
READ_BYTES: Final = 65_536
SEND_BYTES: Final = 65_536
"""Sent between two words on how far an upload is."""


class Unreachable(Error):
    """No answer could be had: name, network, TLS, or a connection that broke off.

    ``sent`` False: nothing was sent; else whether the server did what it was asked to is unknown.
    """

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: int | None = None, sent: bool = True) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.sent = sent


class Untrusted(Error):
    """Somebody answers, but is not provably the server that was meant. Nothing was sent."""

    code = "forbidden"


class PinMismatch(Untrusted):
    """The server's public key is not the pinned one. Nothing was sent."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect. ``pin``: lower-case hex SHA-256 of the SubjectPublicKeyInfo; ``prefix``: path before ours."""

    scheme: Literal["http", "https", "unix"]
    host: str
    port: int
    prefix: str
    pin: str | None

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """The ``Host`` header: without the port where it is the scheme's own."""
        if self.scheme == "unix":
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def readable(self) -> bool:
        """Whether all that is said can be read on the way: clear text that leaves this machine."""
        return self.scheme == "http" and not _is_loopback(self.host)


_DEFAULT_PORTS = {"http": 80, "https": 443}


def refuse_readable(target: Target) -> None:
    """Raise Invalid for a target whose tokens could be read on the way; the remedy is in the sentence."""
    if target.readable:
        raise Invalid(
            f"{target} is clear text: whoever listens on the way could read every token; use https:// (with --pin for"
            " a server's own certificate), or say --insecure-http"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def parse_target(url: str, *, pin: str | None = None) -> Target:
    """Return the target of ``http://``, ``https://`` or ``unix:///path``; raise Invalid naming what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Invalid(f"url {url!r}: {error}") from error
    if parts.scheme == "unix":
        if not parts.path.startswith("/"):
            raise Invalid(f"url {url!r}: a Unix socket is unix:///absolute/path")
        scheme: Literal["http", "https", "unix"] = "unix"
    elif parts.scheme == "https":
        scheme = "https"
    elif parts.scheme == "http":
        scheme = "http"
    else:
        raise Invalid(f"url {url!r} must start with https://, http:// or unix://")
    if pin is not None:
        pin = pin.lower()
        if len(pin) != 64 or set(pin) - set("0123456789abcdef"):
            raise Invalid("pin must be 64 hexadecimal digits: the SHA-256 of the server's public key")
        if scheme != "https":
            raise Invalid(f"url {url!r}: a pin can only be checked with https://")
    if scheme == "unix":
        return Target(scheme=scheme, host=parts.path, port=0, prefix="", pin=None)
    if not parts.hostname:
        raise Invalid(f"url {url!r} names no host")
    if parts.username is not None or parts.query or parts.fragment:
        raise Invalid(f"url {url!r} must be scheme, host, port and at most a path")
    return Target(
        scheme=scheme,
        host=parts.hostname,
        port=_DEFAULT_PORTS[scheme] if port is None else port,
        prefix=parts.path.rstrip("/"),
        pin=pin,
    )


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The head of an answer; header names in lower case."""

    status: int
    headers: dict[str, str]


class Connection:
    """A connection in use by one request at a time. Every failure is raised as :class:`Unreachable`."""

    def __init__(self, target: Target, socket_stream: trio.SocketStream, stream: trio.abc.Stream) -> None:
        self.target = target
        self.closed_unanswered = False
        """Whether the other side closed it before the first byte of an answer."""
        self._answered = False
        self._socket_stream = socket_stream
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def send(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes | None = None,
        *,
        sent: Callable[[int], None] | None = None,
    ) -> None:
        """Send one request. ``headers`` come without ``Host`` and ``Content-Length``.

        ``sent`` is told how many bytes of the body went out since it was told last.
        """
        self._answered = False
        fields = [("Host", self.target.authority), *headers]
        if body is not None:
            fields.append(("Content-Length", str(len(body))))
        try:
            request = h11.Request(method=method, target=self.target.prefix + path, headers=fields)
        except h11.LocalProtocolError as error:
            raise Invalid(f"not a request that can be sent: {error}") from error
        payload = self._http.send(request) or b""
        if body:
            payload += self._http.send(h11.Data(data=body)) or b""
        payload += self._http.send(h11.EndOfMessage()) or b""
        try:
            if body is None or sent is None:
                await self._stream.send_all(payload)
                return
            # With a Content-Length h11 adds nothing after the head but the body itself.
            head_bytes = len(payload) - len(body)
            await self._stream.send_all(payload[:head_bytes])
            for begin in range(head_bytes, len(payload), SEND_BYTES):
                piece = payload[begin : begin + SEND_BYTES]
                await self._stream.send_all(piece)
                sent(len(piece))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The server may have answered before it had read everything (413) and then closed: its answer says why.
            return

    async def head(self) -> Head:
        """Wait for the head of the final answer (1xx are skipped)."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
                return Head(status=event.status_code, headers=headers)
            if not isinstance(event, h11.InformationalResponse):
                self.closed_unanswered = True
                raise Unreachable(f"{self.target} closed the connection without an answer")

    async def chunk(self) -> bytes:
        """Return the next bytes of the body; empty at its end."""
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return b""
        raise Unreachable(f"{self.target} broke off its answer")

    def recycle(self) -> bool:
        """Make ready for the next request; False where the connection cannot carry another one."""
        try:
            self._http.start_next_cycle()
        except h11.LocalProtocolError:
            return False
        return True

    def is_quiet(self) -> bool:
        """Whether nothing came in since the last answer.

        A server says nothing unasked, except goodbye: reusing a connection that is readable would lose the request.
        """
        poll = select.poll()
        poll.register(self._socket_stream.socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close at once, without TLS's goodbye: no checkpoint, so it also works while being cancelled."""
        self._socket_stream.socket.close()

    async def _event(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                received = await self._stream.receive_some(READ_BYTES)
                self._answered = self._answered or bool(received)
                self._http.receive_data(bytes(received))
        except h11.RemoteProtocolError as error:
            if not self._answered:
                self.closed_unanswered = True
                raise Unreachable(f"{self.target} closed the connection without an answer") from error
            raise Unreachable(
                f"{self.target} broke off its answer, or does not speak HTTP: {error}"
            ) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.closed_unanswered = not self._answered
            raise Unreachable(f"the connection to {self.target} broke: {_reason(error)}") from error
        return event


async def connect(target: Target, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Connection:
    """Open a connection; TLS and the pin are done before this returns, and before the first byte is sent.

    With a pin, names and dates of the certificate are not checked: the key is the identity, and a box without a
    clock must still be found. Raises Unreachable, PinMismatch, or Untrusted; cancellation leaves nothing open.
    """
    raw: trio.SocketStream | None = None
    try:
        with trio.fail_after(timeout_s):
            if target.scheme == "unix":
                raw = await trio.open_unix_socket(target.host)
            else:
                raw = await trio.open_tcp_stream(target.host, target.port)
                _notice_loss(raw)
            if target.scheme != "https":
                return Connection(target, raw, raw)
            secured: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
                raw, _tls_context(target.pin is not None), server_hostname=target.host, https_compatible=True
            )
            await secured.do_handshake()
            _check_pin(target, secured)
            return Connection(target, raw, secured)
    except BaseException as error:
        if raw is not None:
            raw.socket.close()
        if isinstance(error, trio.TooSlowError):
            raise Unreachable(f"{target} does not answer within {timeout_s:g} s", sent=False) from error
        if isinstance(error, OSError | trio.BrokenResourceError):
            reason = _reason(error)
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise Untrusted(
                    f"{target} shows a certificate that is not trusted ({reason}); give its pin if it is your own"
                ) from error
            raise Unreachable(f"{target} cannot be reached: {reason}", sent=False) from error
        raise


def _notice_loss(stream: trio.SocketStream) -> None:
    """Have the kernel find out that nobody is there any more, while we wait in silence for an answer."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOSS_LIMIT_MS)


def spki_pin(certificate: bytes) -> str:
    """Return the pin of a DER certificate: SHA-256 over its SubjectPublicKeyInfo, lower-case hex.

    Walks RFC 5280's TBSCertificate by hand: importing an X.509 library would cost an agent 9 MiB and the CLI 60 ms.
    """
    tbs = _Der(_Der(certificate).next_content()).next_content()
    fields = _Der(tbs)
    if fields.peek_tag() == _EXPLICIT_VERSION:
        fields.next_element()
    for _ in ("serialNumber", "signature", "issuer", "validity", "subject"):
        fields.next_element()
    return hashlib.sha256(fields.next_element()).hexdigest()


_EXPLICIT_VERSION = 0xA0


class _Der:
    """A cursor over DER elements with one-byte tags; ValueError where they do not fit."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self._at = 0

    def peek_tag(self) -> int:
        return self._encoded[self._at] if self._at < len(self._encoded) else -1

    def next_element(self) -> bytes:
        start, _, end = self._bounds()
        self._at = end
        return self._encoded[start:end]

    def next_content(self) -> bytes:
        _, content, end = self._bounds()
        self._at = end
        return self._encoded[content:end]

    def _bounds(self) -> tuple[int, int, int]:
        start = self._at
        if start + 2 > len(self._encoded):
            raise ValueError("certificate is cut short")
        length = self._encoded[start + 1]
        content = start + 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(self._encoded[content : content + octets])
            content += octets
        end = content + length
        if end > len(self._encoded):
            raise ValueError("certificate is cut short")
        return start, content, end


def _check_pin(target: Target, secured: trio.SSLStream[trio.abc.Stream]) -> None:
    if target.pin is None:
        return
    certificate = secured.getpeercert(binary_form=True)
    try:
        shown = spki_pin(certificate) if isinstance(certificate, bytes) else "none"
    except ValueError:
        shown = "unreadable"
    if shown != target.pin:
        raise PinMismatch(
            f"{target} shows the public key {shown}, not the pinned {target.pin}: "
            "another server answers there, or its key was replaced"
        )


@lru_cache(maxsize=2)
def _tls_context(pinned: bool) -> ssl.SSLContext:
    # One context of each kind for the whole process: the system's authorities cost about a megabyte.
    if pinned:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: BaseException) -> str:
    """Return the innermost sentence: Trio wraps what the system said, once per address that was tried."""
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
