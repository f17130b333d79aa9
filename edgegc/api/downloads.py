"""Answers that are files: entity tag, byte ranges, and a body in one piece or in parts. Knows no product.

A body in parts, or from a file, is never whole in memory: each client holds the part that is being sent to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quart import request
from quart.wrappers.response import ResponseBody
from quart_trio.wrappers import TrioResponse
from quart_trio.wrappers.response import TrioFileBody

from edgegc.api import auth, codec, problem, ranges
from edgegc.api.operation import GZIP
from edgegc.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from quart.wrappers import Response

TAG_DIGEST_CHARACTERS: Final = 16
"""Of a bundle's digest in its entity tag; the version before it already tells bundles of a node apart."""
FILE_PIECE_BYTES: Final = 256 * 1024
"""What a download keeps in memory of a file."""


def of_bytes(body: bytes, *, tag: str, headers: dict[str, str], known: bool = False) -> Response:
    """Answer the present request with a body, or the part of it that was asked for; 304 where ``known``."""
    sent, wanted = _wanted(len(body), tag=tag, headers=headers, known=known)
    if wanted is None:
        return sent
    begin, end = wanted
    piece = body if (begin, end) == (0, len(body)) else body[begin:end]
    sent.set_data(piece)
    return sent


def of_parts(
    parts: Callable[[int, int], AsyncIterator[bytes]],
    size: int,
    *,
    tag: str,
    headers: dict[str, str],
    known: bool = False,
) -> Response:
    """As :func:`of_bytes`, with a body of ``size`` bytes of which ``parts(begin, end)`` yields some."""
    sent, wanted = _wanted(size, tag=tag, headers=headers, known=known)
    if wanted is None:
        return sent
    begin, end = wanted
    if request.method != "HEAD":
        sent.response = _Parts(parts(begin, end))
    sent.headers["content-length"] = str(end - begin)
    return sent


def of_file(path: Path, size: int, *, tag: str, headers: dict[str, str], content_type: str) -> Response:
    """As :func:`of_bytes`, with the ``size`` bytes of a file that never changes. NotFound: it is gone."""
    sent, wanted = _wanted(size, tag=tag, headers=headers, content_type=content_type)
    if wanted is None:
        return sent
    try:
        body = TrioFileBody(path, buffer_size=FILE_PIECE_BYTES)
    except FileNotFoundError as error:
        raise NotFound("it was removed just now") from error
    body.begin, body.end = wanted
    if request.method != "HEAD":
        sent.response = body
    sent.headers["content-length"] = str(body.end - body.begin)
    return sent


class _Parts(ResponseBody):
    """A body in parts, as Quart wants it."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self._parts

    async def __aexit__(self, *error: object) -> None:
        pass


def _wanted(
    size: int, *, tag: str, headers: dict[str, str], known: bool = False, content_type: str = GZIP
) -> tuple[Response, tuple[int, int] | None]:
    """Return the answer without its body, and which part of that it is to have; None: it is complete."""
    sent = {
        "etag": f'"{tag}"',
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        **headers,
    }
    if known or ranges.none_match(request.headers.get("if-none-match"), tag):
        return codec.nothing(304, headers=sent), None
    wanted = request.headers.get("range")
    if request.headers.get("if-range", f'"{tag}"') != f'"{tag}"':
        wanted = None  # What the client has a part of is something else.
    try:
        part = ranges.part(wanted, size)
    except ranges.Unsatisfiable:
        return codec.refusal(
            problem.answer(
                416,
                f"there are {size} bytes, the range {wanted} lies beyond them",
                request_id=auth.request_id_of(request),
                headers=(("content-range", f"bytes */{size}"),),
            )
        ), None
    if part is None:
        return TrioResponse(b"", 200, sent, content_type=content_type), (0, size)
    begin, end = part
    sent["content-range"] = f"bytes {begin}-{end - 1}/{size}"
    return TrioResponse(b"", 206, sent, content_type=content_type), part
