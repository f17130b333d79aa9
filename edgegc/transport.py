"""Requests to one control plane and their answers, over kept-alive connections. Knows no endpoint and no body's meaning.

Failures are the :class:`~edgegc.errors.Error` that the server raised, rebuilt from its ``application/problem+json``; or
Unreachable, Untrusted, PinMismatch of :mod:`edgegc.connection`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlencode

import msgspec
import trio

from edgegc import __version__, errors, problem
from edgegc.connection import Connection, Head, Unreachable, connect, parse_target

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
"""From sending a request to the head of its answer, unless the call says otherwise (long polls do)."""
SLOWEST_BODY_BYTES_PER_S: Final = 8192
"""A body has ``timeout_s`` plus its limit at this rate: a slow radio link may finish, a stalled server may not."""
BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Of an answer kept in memory: 500 nodes with 256 routes each are < 5 MB."""
IDLE_CONNECTIONS: Final = 4
"""Kept for reuse per client. A TLS one costs 21 KiB on either side."""

Query = Mapping[str, str | int | float | bool | None]
Body = msgspec.Struct | bytes | None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Transport:
    """The way to one control plane. Use as a context manager, or call :meth:`close`.

    ``url``: ``https://…``, ``http://…``, or ``unix:///path/admin.sock``. ``token``: sent as bearer. ``pin``: see
    :mod:`edgegc.connection`. Connections are kept alive and reused; concurrent calls open more. Every call may be
    cancelled: its connection is closed, and whether a write was done is unknown.
    """

    def __init__(self, url: str, *, token: str | None = None, pin: str | None = None) -> None:
        self.target = parse_target(url, pin=pin)
        self._headers = [("User-Agent", f"edgegc/{__version__}"), ("Accept", "application/json")]
        if token is not None:
            self._headers.append(("Authorization", f"Bearer {token}"))
        self._idle: list[Connection] = []
        self._keeps = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. It remains usable, but keeps none from now on."""
        self._keeps = False
        while self._idle:
            self._idle.pop().close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Body = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        limit_bytes: int = BODY_LIMIT_BYTES,
        accept: Container[int] = (),
        sent: Callable[[int], None] | None = None,
    ) -> Response:
        """Ask, and return the complete answer.

        ``body``: a Struct goes as JSON, bytes as they are (set ``Content-Type``). A query value None is left out.
        ``headers`` take the place of those that it would send by itself. ``accept``: statuses ≥ 400 that are returned
        instead of raised. ``sent`` is told of the bytes of the body as they go out. Raises errors.Error as the server said
        it, TooLarge where the answer passes ``limit_bytes``, Unreachable, Untrusted.
        """
        received = bytearray()
        head = await self.download(
            method,
            path,
            received.extend,
            body=body,
            query=query,
            headers=headers,
            timeout_s=timeout_s,
            limit_bytes=limit_bytes,
            accept=accept,
            sent=sent,
        )
        return Response(status=head.status, headers=head.headers, body=bytes(received))

    async def download(
        self,
        method: str,
        path: str,
        write: Callable[[bytes], object],
        *,
        body: Body = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        limit_bytes: int = BODY_LIMIT_BYTES,
        accept: Container[int] = (),
        sent: Callable[[int], None] | None = None,
    ) -> Head:
        """Ask, give the answer's body piece by piece to ``write``, and return its head; otherwise as :meth:`request`."""
        own = headers or {}
        fields = [*(each for each in self._headers if each[0] not in own), *own.items()]
        payload = None
        if isinstance(body, msgspec.Struct):
            payload = msgspec.json.encode(body)
            fields.append(("Content-Type", "application/json"))
        elif body is not None:
            payload = body
        connection, head = await self._ask(method, _with_query(path, query), fields, payload, timeout_s, sent)
        refused = head.status >= 400 and head.status not in accept
        refusal = bytearray()
        finished = False
        try:
            with trio.move_on_after(timeout_s + limit_bytes / SLOWEST_BODY_BYTES_PER_S) as scope:
                await _copy_body(connection, head, refusal.extend if refused else write, limit_bytes)
            if scope.cancelled_caught:
                raise Unreachable(f"{self.target} sends its answer too slowly")
            finished = True
        finally:
            if not (finished and self._keep(connection)):
                connection.close()
        if refused:
            raise problem.rebuild(head, bytes(refusal))
        return head

    async def call(self, answer: type[T], method: str, path: str, **options: Any) -> T:
        """Make a :meth:`request` and return its JSON body as ``answer``."""
        response = await self.request(method, path, **options)
        try:
            return msgspec.json.decode(response.body, type=answer)
        except msgspec.DecodeError as error:
            raise errors.Error(
                f"the answer of {self.target} to {method} {path} is not understood: {error}"
            ) from error

    async def _ask(
        self,
        method: str,
        path: str,
        fields: list[tuple[str, str]],
        payload: bytes | None,
        timeout_s: float,
        sent: Callable[[int], None] | None,
    ) -> tuple[Connection, Head]:
        """Send a request, over an idle connection where one is still quiet, and wait for the head of the answer."""
        idle = self._take_idle()
        if idle is not None:
            try:
                return idle, await _exchange(idle, method, path, fields, payload, timeout_s, sent)
            except Unreachable:
                # The server closed it just while we asked. Asking again is safe only where nothing can be done twice.
                if not idle.closed_unanswered or method != "GET":
                    raise
        fresh = await connect(self.target)
        return fresh, await _exchange(fresh, method, path, fields, payload, timeout_s, sent)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> bool:
        if not self._keeps or len(self._idle) >= IDLE_CONNECTIONS or not connection.recycle():
            return False
        self._idle.append(connection)
        return True


async def _exchange(
    connection: Connection,
    method: str,
    path: str,
    fields: list[tuple[str, str]],
    payload: bytes | None,
    timeout_s: float,
    sent: Callable[[int], None] | None,
) -> Head:
    try:
        with trio.move_on_after(timeout_s):
            await connection.send(method, path, fields, payload, sent=sent)
            return await connection.head()
        raise Unreachable(f"{connection.target} does not answer within {timeout_s:g} s")
    except BaseException:
        connection.close()
        raise


async def _copy_body(
    connection: Connection, head: Head, write: Callable[[bytes], object], limit_bytes: int
) -> None:
    declared = head.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise errors.TooLarge(
            f"{connection.target} answers with {declared} bytes; at most {limit_bytes} are taken"
        )
    received = 0
    while piece := await connection.chunk():
        received += len(piece)
        if received > limit_bytes:
            raise errors.TooLarge(
                f"{connection.target} answers with more than the {limit_bytes} bytes that are taken"
            )
        write(piece)


def _with_query(path: str, query: Query | None) -> str:
    given = [(name, _plain(value)) for name, value in (query or {}).items() if value is not None]
    return f"{path}?{urlencode(given)}" if given else path


def _plain(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
