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
from edgegc.api.asked import deliver

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
    from quart.wrappers import Request

    from edgegc.api.asked import Asked

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

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve a request: the handler in the task that is there, which Quart-Trio would start another one for."""
        request = self._create_request_from_scope(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.handle_messages, nursery, request, receive)
            await self.handle_request(nursery, request, send)

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        """Send what a handler answers with, in place of the framework's own kind of answer."""
        await deliver(response, send)

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


class _Whole:
    """A body that is all here, as one part."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def __aiter__(self) -> _Whole:
        return self

    async def __anext__(self) -> bytes:
        part, self._left = self._left, b""
        if not part:
            raise StopAsyncIteration
        return part


class Parts:
    """A body as it comes. UnsupportedMedia where it is encoded once more; RequestTimeout where it does not come.

    No generator: one that is left in the middle has to be closed by whoever took it.
    """

    def __init__(self, asked: Asked) -> None:
        encoding = (asked.header("content-encoding") or "identity").lower()
        if encoding != "identity":
            raise errors.UnsupportedMedia(
                f"the body must not have a Content-Encoding ({encoding}): send the tar.gz itself"
            )
        self._body = aiter(_Whole(asked.body) if isinstance(asked.body, bytes) else asked.body)
        self._received = 0
        self._ends_at: float | None = None

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        # The time runs from the first part that is asked for: before, it was we who let the client wait.
        now = trio.current_time()
        if self._ends_at is None:
            self._ends_at = now + BODY_S
        with trio.move_on_at(min(self._ends_at, now + PROGRESS_S)):
            part = await anext(self._body)
            self._received += len(part)
            return part
        raise RequestTimeout(f"the body did not arrive: {self._received} bytes so far")
