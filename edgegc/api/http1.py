"""The HTTP/1.1 we accept: Hypercorn's protocol and stream, less what we refuse, plus what every answer of ours has.

Owns the request id, the problem answers for what never reaches the application, and the check of heads.
Knows no sockets: bytes come in through ``handle`` and leave through the ``send`` it was given.

Hypercorn's ``protocol`` package is not public API: it is pinned, and ``tests/`` holds what is assumed of it.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Any

import h11
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ConnectionState
from hypercorn.utils import suppress_body

from edgegc.api import bounds, problem
from edgegc.api.access import AccessLog, request_id_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper, ASGISendEvent, TaskGroup


class _Refused(Exception):
    """The request is answered here, and the connection closed."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class _NoWait:
    """Stands in for Hypercorn's ``can_read`` event, on which it would wait, deaf to the socket, for as long as a
    request takes: a client that pipelined behind a long poll and left would keep its file descriptor. Instead the
    reader goes on, and :meth:`Http1.resume` continues where it stopped.
    """

    async def clear(self) -> None:
        pass

    async def wait(self) -> None:
        raise _PausedError

    async def set(self) -> None:
        pass


class _PausedError(Exception):
    """A further request has begun to arrive before the answer to the one before it was sent."""


class _Connection(h11.Connection):
    """Drops what a client sends after a request that it called its last. h11 takes it for an error, so that the request
    itself would be refused where the two arrive together.
    """

    def receive_data(self, data: bytes) -> None:
        if self.their_state is not h11.MUST_CLOSE:
            super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        return h11.NEED_DATA if self.their_state is h11.MUST_CLOSE else super().next_event()


class Stream(HTTPStream):
    """One request and its answer. Differs from Hypercorn's where the application leaves without an answer, and where
    the client leaves with one.
    """

    _owed: int | None = None
    """How many bytes of the answer are still to be given to the client; None while that is not known."""

    async def app_send(self, message: ASGISendEvent | None) -> None:
        """Take a message of the application, or None when it has ended."""
        if message is not None:
            self._count(message)
        await super().app_send(message)

    async def handle(self, event: StreamEvent) -> None:
        """Take what the connection has read, or its end."""
        if isinstance(event, StreamClosed) and self._owed == 0 and self.state is not ASGIHTTPState.CLOSED:
            # The client had its whole answer and left, before the application had said its last word.
            await self.config.log.access(self.scope, self.response, time.time() - self.start_time)
        await super().handle(event)

    def _count(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            lengths = [value for name, value in message["headers"] if name.lower() == b"content-length"]
            if suppress_body(self.scope["method"], int(message["status"])):
                self._owed = 0
            elif lengths:
                self._owed = int(lengths[0])
        elif message["type"] == "http.response.body":
            if not message.get("more_body", False):
                self._owed = 0
            elif self._owed is not None:
                self._owed -= len(message["body"])

    async def _send_error_response(self, status_code: int) -> None:
        # Only reached when the application ended without having answered: a bug, or it was cancelled.
        made = problem.answer(
            status_code,
            problem.INTERNAL_DETAIL if status_code == 500 else "not found",
            request_id=self.scope["state"]["request_id"],
        )
        headers = [(name.encode(), value.encode()) for name, value in made.headers]
        await self.app_send(
            {
                "type": "http.response.start",
                "status": made.status,
                "headers": [
                    *headers,
                    (b"content-length", b"%d" % len(made.body)),
                    (b"connection", b"close"),
                ],
            }
        )
        await self.app_send({"type": "http.response.body", "body": made.body, "more_body": False})


class Http1(H11Protocol):
    """HTTP/1.1 of one connection: no HTTP/2, no WebSockets, heads within their limit, errors as problem+json."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        *,
        state: dict[str, Any],
        ssl: bool,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Event], Awaitable[None]],
        log: AccessLog,
        head_bytes: int,
    ) -> None:
        super().__init__(app, config, context, task_group, ConnectionState(state), ssl, client, server, send)
        self.connection = _Connection(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)
        self.can_read = _NoWait()  # type: ignore[assignment]
        self._log = log
        self._head_bytes = head_bytes
        self._request_id = ""
        self._head_only = False
        self._refused = False
        self._ahead = 0
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether a further request waits for the answer to the one before it."""
        return self._paused

    @property
    def full(self) -> bool:
        """Whether so much was pipelined that nothing more should be read for now."""
        return self._ahead > bounds.READ_AHEAD_BYTES

    @property
    def mid_request(self) -> bool:
        """Whether the client may still be sending what it began, of which nobody will read the rest."""
        return self._refused or self.connection.their_state is h11.SEND_BODY

    async def handle(self, event: Event) -> None:
        """Take bytes from the client, or its end. Never waits for the answer to a request."""
        if isinstance(event, RawData) and self._paused:
            self._ahead += len(event.data)
            self.connection.receive_data(event.data)
            return
        await self._guarded(super().handle(event))

    async def resume(self) -> None:
        """Go on with what was pipelined, now that the request before it is answered."""
        self._paused, self._ahead = False, 0
        await self._guarded(self._handle_events())

    async def _guarded(self, step: Awaitable[None]) -> None:
        try:
            await step
        except _PausedError:
            self._paused = True
        except _Refused as refusal:
            await self._refuse(refusal.status, refusal.detail)

    async def stream_send(self, event: StreamEvent) -> None:
        """Add to every answer its ``X-Request-ID``, and ``Connection: close`` while the server stops."""
        if isinstance(event, Response):
            headers = [
                *(header for header in event.headers if header[0] != b"x-request-id"),
                (b"x-request-id", self._request_id.encode()),
            ]
            if self.context.terminated.is_set():
                headers.append((b"connection", b"close"))
            event = Response(stream_id=event.stream_id, headers=headers, status_code=event.status_code)
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Refuse what Hypercorn would take for HTTP/2, and heads past their limit (h11's own limit is soft: a head
        that arrives in one piece passes it).
        """
        given = next((value for name, value in event.headers if name == b"x-request-id"), None)
        self._request_id = request_id_of(given)
        self._head_only = event.method == b"HEAD"
        if event.http_version not in (b"1.1", b"1.0"):
            raise _Refused(505, "only HTTP/1.1 is spoken here")
        head = len(event.method) + len(event.target) + sum(len(n) + len(v) + 4 for n, v in event.headers)
        if head > self._head_bytes:
            raise _Refused(431, f"the request head is longer than {self._head_bytes} bytes")
        if not event.target.startswith(b"/"):
            raise _Refused(400, "the request target is not a path")
        # `Upgrade: h2c` and `websocket` are ignored, as RFC 9110 allows: the answer is HTTP/1.1.

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = Stream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=ConnectionState({**self.connection_state, "request_id": self._request_id}),
            )
        )
        self.keep_alive_requests += 1

    async def _send_error_response(self, status_code: int) -> None:
        """Answer what h11 could not read: its hint is 400, 431 for a head that never ends, or 501."""
        self._request_id = request_id_of(None)
        self._head_only = False
        details = {
            431: f"the request head is longer than {self._head_bytes} bytes",
            501: "this transfer coding is not understood",
        }
        await self._send_problem(
            status_code, details.get(status_code, "this is not a valid HTTP/1.1 request")
        )

    async def _refuse(self, status: int, detail: str) -> None:
        await self._send_problem(status, detail)
        await self.send(Closed())

    async def _send_problem(self, status: int, detail: str) -> None:
        self._refused = True
        made = problem.answer(status, detail, request_id=self._request_id)
        headers = [
            *((name.encode(), value.encode()) for name, value in made.headers),
            (b"content-length", b"%d" % len(made.body)),
            (b"x-request-id", self._request_id.encode()),
            (b"connection", b"close"),
        ]
        self._log.record(
            method="OTHER",
            path="-",
            route="-",
            status=status,
            seconds=0.0,
            request_id=self._request_id,
            source=self.client[0] if self.client else "socket",
        )
        head = h11.Response(
            status_code=status, headers=list(chain(headers, self.config.response_headers("h11")))
        )
        body = () if self._head_only else (h11.Data(data=made.body),)
        try:
            parts = [self.connection.send(each) for each in (head, *body, h11.EndOfMessage())]
        except h11.LocalProtocolError:
            # The application began its answer before the request turned out to be none: that one it is.
            if self.connection.their_state is not h11.ERROR:
                raise
        else:
            # At once: between two parts the application could still begin its own answer.
            await self.send(RawData(data=b"".join(part for part in parts if part)))
