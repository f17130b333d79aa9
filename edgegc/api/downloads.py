"""Answers that are files: entity tag, byte ranges, and a body in one piece or in parts. Knows no product.

A body in parts, or from a file, is never whole in memory: each client holds the part that is being sent to it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import msgspec
from quart_trio.wrappers.response import TrioFileBody

from edgegc.api import codec, problem, ranges
from edgegc.api.asked import Reply, present
from edgegc.api.operation import GZIP
from edgegc.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

TAG_DIGEST_CHARACTERS: Final = 16
"""Of a bundle's digest in its entity tag; the version before it already tells bundles of a node apart."""
FILE_PIECE_BYTES: Final = 256 * 1024
"""What a download keeps in memory of a file."""


def of_bytes(body: bytes, *, tag: str, headers: dict[str, str], known: bool = False) -> Reply:
    """Answer the present request with a body, or the part of it that was asked for; 304 where ``known``."""
    sent, wanted = _wanted(len(body), tag=tag, headers=headers, known=known)
    if wanted is None:
        return sent
    begin, end = wanted
    piece = body if (begin, end) == (0, len(body)) else body[begin:end]
    return msgspec.structs.replace(sent, body=piece, length=len(piece))


def of_parts(
    parts: Callable[[int, int], AsyncIterator[bytes]],
    size: int,
    *,
    tag: str,
    headers: dict[str, str],
    known: bool = False,
) -> Reply:
    """As :func:`of_bytes`, with a body of ``size`` bytes of which ``parts(begin, end)`` yields some."""
    sent, wanted = _wanted(size, tag=tag, headers=headers, known=known)
    if wanted is None:
        return sent
    begin, end = wanted
    return _sending(sent, nullcontext(parts(begin, end)), end - begin)


def of_file(path: Path, size: int, *, tag: str, headers: dict[str, str], content_type: str) -> Reply:
    """As :func:`of_bytes`, with the ``size`` bytes of a file that never changes. NotFound: it is gone."""
    sent, wanted = _wanted(size, tag=tag, headers=headers, content_type=content_type)
    if wanted is None:
        return sent
    try:
        body = TrioFileBody(path, buffer_size=FILE_PIECE_BYTES)
    except FileNotFoundError as error:
        raise NotFound("it was removed just now") from error
    body.begin, body.end = wanted
    return _sending(sent, body, body.end - body.begin)  # type: ignore[arg-type]  # it is one, declared otherwise


def _sending(sent: Reply, body: AbstractAsyncContextManager[AsyncIterable[bytes]], length: int) -> Reply:
    if present.get().method == "HEAD":
        return msgspec.structs.replace(sent, length=length)
    return msgspec.structs.replace(sent, body=body, length=length)


def _wanted(
    size: int, *, tag: str, headers: dict[str, str], known: bool = False, content_type: str = GZIP
) -> tuple[Reply, tuple[int, int] | None]:
    """Return the answer without its body, and which part of that it is to have; None: it is complete."""
    sent = {
        "etag": f'"{tag}"',
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        **headers,
    }
    asked = present.get()
    if known or ranges.none_match(asked.header("if-none-match"), tag):
        return codec.nothing(304, headers=sent), None
    wanted = asked.header("range")
    if asked.header("if-range") not in (None, f'"{tag}"'):
        wanted = None  # What the client has a part of is something else.
    try:
        part = ranges.part(wanted, size)
    except ranges.Unsatisfiable:
        return codec.refusal(
            problem.answer(
                416,
                f"there are {size} bytes, the range {wanted} lies beyond them",
                request_id=asked.request_id,
                headers=(("content-range", f"bytes */{size}"),),
            )
        ), None
    if part is None:
        return codec.raw(b"", content_type=content_type, headers=sent), (0, size)
    begin, end = part
    sent["content-range"] = f"bytes {begin}-{end - 1}/{size}"
    return codec.raw(b"", 206, content_type=content_type, headers=sent), part
