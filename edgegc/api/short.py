"""The short way through the framework, for a request that is all there. Knows ASGI and Quart's connection, and no product.

Quart gives each request a task that takes its body and looks out for the client's end, and another for the handler. A body
that is here needs no task, and who called us may look out for the client: then the handler runs in the caller's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart.utils import encode_headers
from quart.wrappers.response import DataBody

from edgegc.api.service import WATCHED
from edgegc.api.streamed import StreamedConnection

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable


class ShortConnection(StreamedConnection):
    """One request, by the short way where the server offers it."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request. Cancelled, the handler is."""
        if WATCHED not in self.scope["extensions"]:
            await super().__call__(receive, send)
            return
        request = self._create_request_from_scope(send)
        message = await receive()
        if message["type"] != "http.request":
            return
        request.body.append(message["body"])
        request.body.set_complete()
        request.whole = message["body"]  # type: ignore[attr-defined]  # a StreamedRequest
        response = await self.app.handle_request(request)
        body = response.response
        if not isinstance(body, DataBody):
            await self._send_response(send, response)
            return
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": encode_headers(response.headers),
                "trailers": False,
            }
        )
        content = body.data[body.begin : body.end]
        await send({"type": "http.response.body", "body": content, "more_body": False})
