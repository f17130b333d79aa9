"""One plain request and its answer: the application is called in the connection's own task, and reads from the link itself.

What the application gets and what the client sees is as on the general path; there each request has a task, two channels
and a dozen events of its own, which cost more than the application's work does. Knows ASGI, and no product.
"""

from __future__ import annotations

import logging
from time import time
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

import trio

from edgegc.api import bounds, dates, problem
from edgegc.api.access import request_id_of
from edgegc.api.asked import BODILESS
from edgegc.api.service import WATCHED
from edgegc.api.vigil import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, HTTPResponseStartEvent, HTTPScope

    from edgegc.api.link import Address, Link
    from edgegc.api.plain import Head
    from edgegc.api.service import Service

logger = logging.getLogger(__name__)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
ASGI: Final = {"spec_version": "2.1", "version": "3.0"}
JOINED_BYTES: Final = 65_536
"""A body up to this long, a page of a hundred nodes, goes out together with its head: the copy costs less than another call."""

_NO_BODY: Final[ASGIReceiveEvent] = {"type": "http.request", "body": b"", "more_body": False}
_DISCONNECT: Final[ASGIReceiveEvent] = {"type": "http.disconnect"}


class Exchange:
    """A request of which the head was read, and its answer. ``run`` it once."""

    __slots__ = (
        "_began",
        "_bodiless",
        "_chunked",
        "_expects",
        "_head",
        "_keeps",
        "_link",
        "_over",
        "_owed",
        "_receiving",
        "_request_id",
        "_scope",
        "_service",
        "_started",
        "_told",
        "_unread",
        "_unsent",
        "_watch",
    )

    def __init__(
        self,
        service: Service,
        link: Link,
        head: Head,
        *,
        addresses: tuple[Address, Address],
        admin: bool,
    ) -> None:
        self._service = service
        self._link = link
        self._head = head
        self._request_id = request_id_of(head.request_id)
        path, _, query = head.target.partition(b"?")
        client, server = addresses
        self._scope: HTTPScope = {
            "type": "http",
            "http_version": f"1.{head.minor}",
            "asgi": ASGI,  # type: ignore[typeddict-item]
            "method": head.method,
            "scheme": "https" if link.tls else "http",
            "path": unquote(path.decode()),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers,
            "client": client,
            "server": server,
            "state": {"admin": admin, "request_id": self._request_id},  # type: ignore[typeddict-item]
            "extensions": {},
        }
        self._began = time()
        del link.received[: head.size]
        self._watch: Watch | None = None
        """Of a request that is all here: who looks out for the client's end, until the application does."""
        if head.length <= len(link.received):
            self._watch = Watch(self._end)
            self._scope["extensions"][WATCHED] = {}
        self._unread = head.length
        """How much of the body the application has not had."""
        self._told = False
        """The application was told that the body has ended."""
        self._expects = head.expects
        self._receiving: trio.CancelScope | None = None
        """What the application waits in, for more of the client."""
        self._started: HTTPResponseStartEvent | None = None
        self._unsent = b""
        """The answer's head, until there is something to send with it."""
        self._owed: int | None = None
        """How many bytes of the answer's body are still to come; None while that is not known."""
        self._bodiless = False
        self._chunked = False
        self._over = False
        """The answer is complete."""
        self._keeps = head.keeps

    async def run(self) -> bool:
        """Call the application. Return whether the connection can go on with the next request.

        Cancelling it cancels the application; an answer then ends in the middle, and the connection can only be closed.
        """
        link, service = self._link, self._service
        try:
            if self._watch is None:
                await self._handle()
            else:
                with self._watch.handling:
                    service.vigil.begin(self._watch)
                    try:
                        await self._handle()
                    finally:
                        await self._unwatch()
        except Exception:
            # The application turns its own errors into answers; this is one in Quart or below.
            logger.exception(
                "request failed below the application",
                extra={"request_id": self._request_id, "path": self._scope["path"]},
            )
        if (self._started is None or self._unsent) and not link.ended and not link.lost:
            await self._internal_error()
        if not self._over:
            # With its whole answer, or without: the client had left before the application had said its last word.
            await service.log.access(
                self._scope, self._started if self._owed == 0 else None, time() - self._began
            )
        if 0 < self._unread <= len(link.received):
            # All there, but the application did not care for it.
            del link.received[: self._unread]
            self._unread = 0
        if self._unread:
            await link.linger()
            return False
        return self._over and self._keeps and not link.ended and not link.lost

    async def _handle(self) -> None:
        await self._service.app(self._scope, self._receive, self._send)

    async def _unwatch(self) -> None:
        if self._watch is not None:
            watch, self._watch = self._watch, None
            await self._service.vigil.end(watch)

    async def _receive(self) -> ASGIReceiveEvent:
        """Give the application the next part of the body, read from the socket now; then wait until the client leaves."""
        if self._is_over():
            return _DISCONNECT
        if not self._unread and not self._told:
            self._told = True
            return _NO_BODY
        if not self._unread:
            # From now on it is the application that looks out for the client's end.
            await self._unwatch()
            if self._is_over():
                return _DISCONNECT
        if self._unread and self._link.received:
            return await self._part()  # what is here is not waited for
        with trio.CancelScope() as self._receiving:
            return await (self._part() if self._unread else self._end())
        return _DISCONNECT

    def _is_over(self) -> bool:
        return self._over or self._link.lost

    async def _part(self) -> ASGIReceiveEvent:
        link = self._link
        part = bytes(link.received[: self._unread])
        if part:
            del link.received[: len(part)]
        else:
            if self._expects and self._started is None:
                link.interject(CONTINUE)
            received = await link.receive()
            if not received:
                return _DISCONNECT
            part = received[: self._unread]
            link.received += received[len(part) :]
        self._expects = False
        self._unread -= len(part)
        self._told = not self._unread
        return {"type": "http.request", "body": part, "more_body": not self._told}

    async def _end(self) -> ASGIReceiveEvent:
        link = self._link
        while not link.ended:
            if len(link.received) > bounds.READ_AHEAD_BYTES:
                await trio.sleep_forever()
            await link.fill()
        return _DISCONNECT

    async def _send(self, message: ASGISendEvent) -> None:
        """Take a part of the answer from the application. What comes after the client was cut off is dropped."""
        kind = message["type"]
        if kind == "http.response.start" and self._started is None:
            self._start(cast("HTTPResponseStartEvent", message))
        elif kind == "http.response.body" and self._started is not None and not self._over:
            body = cast("dict[str, Any]", message)
            await self._body(body.get("body", b""), more=bool(body.get("more_body", False)))
        else:
            raise RuntimeError(f"the application sent {kind} where there is no place for it")

    def _start(self, message: HTTPResponseStartEvent) -> None:
        status = int(message["status"])
        asked_for_head = self._head.method == "HEAD"
        lines = [b"HTTP/1.1 %d " % status]
        for name, value in message.get("headers", ()):
            match name.lower():
                case b"content-length":
                    self._owed = int(value)
                case b"connection":
                    self._keeps = self._keeps and b"close" not in value.lower()
                    continue
                case b"x-request-id" | b"transfer-encoding":
                    continue
            lines.append(b"%b: %b" % (name.strip(), value.strip()))
        lines.append(b"x-request-id: " + self._request_id.encode())
        lines.append(dates.line(int(time())))
        if self._owed is None and status not in BODILESS:
            if self._head.minor == "0":
                # Only the end of the connection tells where the answer ends.
                self._keeps = self._keeps and asked_for_head
            else:
                self._chunked = not asked_for_head
                lines.append(b"transfer-encoding: chunked")
        self._bodiless = asked_for_head or status in BODILESS
        if self._bodiless:
            self._owed = 0
        if self._service.stopping:
            self._keeps = False
        if not self._keeps:
            lines.append(b"connection: close")
        elif self._head.minor == "0":
            lines.append(b"connection: keep-alive")
        head = b"\r\n".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1 or b"\0" in head:
            raise RuntimeError("the application sent a header that would end its line")
        self._unsent = head + b"\r\n\r\n"
        self._started = message

    async def _body(self, part: bytes, *, more: bool) -> None:
        if self._bodiless:
            part = b""
        elif self._owed is not None:
            self._owed -= len(part)
            if self._owed < 0 or (self._owed and not more):
                raise RuntimeError("the application's answer is not as long as its Content-Length says")
        elif self._chunked:
            part = (b"%x\r\n%b\r\n" % (len(part), part) if part else b"") + (b"" if more else b"0\r\n\r\n")
        if not more:
            self._owed = 0
        link, head = self._link, self._unsent
        if head:
            self._unsent = b""
            if len(part) <= JOINED_BYTES:
                part = head + part
            else:
                await link.send(head)
        if part:
            await link.send(part)
        if link.lost:
            # Who makes a long answer for nobody is to notice: there is no other checkpoint for it here.
            if more and self._watch is not None:
                self._watch.handling.cancel()
            await trio.lowlevel.checkpoint()
        if not more:
            self._over = True
            await self._service.log.access(
                self._scope, None if link.lost else self._started, time() - self._began
            )
        if self._receiving is not None and (self._over or link.lost):
            self._receiving.cancel()

    async def _internal_error(self) -> None:
        """Answer for an application that ended, and nothing of its answer was sent: a bug, or it was cancelled."""
        self._started, self._owed, self._chunked = None, None, False
        made = problem.internal(request_id=self._request_id)
        headers: Iterable[tuple[str, str]] = (
            *made.headers,
            ("content-length", str(len(made.body))),
            ("connection", "close"),
        )
        await self._send(
            {
                "type": "http.response.start",
                "status": made.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers],
                "trailers": False,
            }
        )
        await self._send({"type": "http.response.body", "body": made.body, "more_body": False})
