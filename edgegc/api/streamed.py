"""Bodies that are read as they come instead of being gathered: uploads. Knows their path, and no product.

Quart takes a body in as fast as the client sends it, whether anybody reads it or not, so it can only be bounded by being
refused. Of a streamed one a part is taken from the connection when the one before it was read; what is beyond stays
in the socket, and with its sender.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import RequestTimeout

from edgegc import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hypercorn.typing import ASGIReceiveCallable
    from quart.wrappers import Request

PATHS: Final = frozenset({"/api/v1/config/bundle"})
"""Where a POST is streamed."""
PROGRESS_S: Final = 10.0
"""How long the next part of a body may take."""
BODY_S: Final = 300.0
"""How long all of it may take: 10 MiB at the speed of a bad mobile link."""


class _StreamedBody(TrioBody):
    """A body of which one part is held at a time."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self._read = trio.Event()

    async def __anext__(self) -> bytes:
        part = await super().__anext__()
        self._read.set()
        return part

    async def read(self) -> None:
        """Wait until the part that was appended last has been read."""
        await self._read.wait()
        self._read = trio.Event()


class StreamedRequest(TrioRequest):
    """A request; of the streamed kind where its path says so."""

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **more: Any) -> None:
        super().__init__(method, scheme, path, *args, **more)
        if method == "POST" and path in PATHS:
            self.body = _StreamedBody()


class StreamedConnection(TrioASGIHTTPConnection):
    """Hands the parts of a body on: all at once, or each when the one before it was read."""

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        """Take what the connection has for a request until it ends, then cancel the handler."""
        body = request.body
        if not isinstance(body, _StreamedBody):
            await super().handle_messages(nursery, request, receive)
            return
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            part = message.get("body", b"")
            body.append(part)
            if not message.get("more_body", False):
                body.set_complete()
            elif part:
                await body.read()
        nursery.cancel_scope.cancel()


async def parts_of(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes. RequestTimeout where it does not; UnsupportedMedia where it is encoded once more."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise errors.UnsupportedMedia(
            f"the body must not have a Content-Encoding ({encoding}): send the tar.gz itself"
        )
    parts = aiter(request.body)
    ends_at = trio.current_time() + BODY_S
    received = 0
    while True:
        part: bytes | None = None
        with trio.move_on_at(min(ends_at, trio.current_time() + PROGRESS_S)) as waiting:
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                return
        if waiting.cancelled_caught or part is None:
            raise RequestTimeout(f"the body did not arrive: {received} bytes so far")
        received += len(part)
        yield part
