"""A request as handlers see it, and what they answer with: the same whichever way the request came.

Knows ASGI, and no framework.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from hypercorn.typing import ASGISendCallable, HTTPScope

    from edgegc.api.operation import Operation

BODILESS: Final = frozenset({204, 304})
"""Statuses whose answer has no body, and so does not say how long one is."""


class Asked:
    """One request. ``operation`` is what its handler says of itself; None where there is no handler for it."""

    __slots__ = ("_fields", "body", "method", "operation", "path", "query", "scope", "state")

    def __init__(
        self, scope: HTTPScope, *, operation: Operation | None, body: bytes | AsyncIterable[bytes]
    ) -> None:
        self.scope = scope
        self.operation = operation
        self.body = body
        """All of it, where all of it is here; else it comes in parts."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.state: dict[str, Any] = scope["state"]
        """What the server wrote beside the request, and what it is to read for its log."""
        # Of several with one name the first.
        self._fields: dict[bytes, bytes] = dict(reversed(list(scope["headers"])))

    @property
    def request_id(self) -> str:
        """The id that the answer carries as ``X-Request-ID``."""
        return str(self.state.get("request_id", ""))

    @property
    def is_admin_socket(self) -> bool:
        """Whether it came over the admin socket."""
        return bool(self.state.get("admin"))

    def header(self, name: str) -> str | None:
        """Return a header's value; the first where there are several. ``name`` in lower case, as below."""
        value = self._fields.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def headers(self, name: str) -> list[str]:
        """Return the values of all headers with a name."""
        wanted = name.encode()
        if wanted not in self._fields:
            return []
        return [value.decode("latin-1") for given, value in self.scope["headers"] if given == wanted]

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters; empty where there is none."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """How long the body is, where the request says it."""
        given = self.header("content-length")
        return int(given) if given is not None and self.header("transfer-encoding") is None else None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. ``headers`` are without ``Content-Length``."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | AbstractAsyncContextManager[AsyncIterable[bytes]] = b""
    length: int | None = None
    """What ``Content-Length`` says; None: the status has no body."""


async def deliver(reply: Reply, send: ASGISendCallable) -> None:
    """Send an answer. Cancelled, it ends in the middle."""
    headers = [(name.encode(), value.encode()) for name, value in reply.headers]
    if reply.length is not None:
        headers.append((b"content-length", b"%d" % reply.length))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers, "trailers": False})
    body = reply.body
    if not isinstance(body, bytes):
        async with body as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body, "more_body": False})


present: Final[ContextVar[Asked]] = ContextVar("present")
"""The request that is being handled."""
