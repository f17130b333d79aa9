"""gzip for JSON, where the client asks for it and it is worth the time. Knows no route."""

from __future__ import annotations

import functools
import re
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from quart.wrappers import Request, Response

FROM_BYTES: Final = 1024
"""What is shorter fits one packet anyhow."""
LEVEL: Final = 1
"""A page of 500 nodes shrinks to a tenth at any level; on a small box the higher ones take ten times as long."""
KEPT: Final = 8
"""Answers to GETs that are kept compressed: what is asked for all the time is the same bytes each time."""
GZIP_WINDOW: Final = 31
"""What zlib calls a gzip header around the widest window."""
_JSON: Final = frozenset({"application/json", "application/problem+json"})
_CODING: Final = re.compile(r"\s*([^\s;,]+)\s*(?:;\s*[qQ]\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?")


async def compress(request: Request, response: Response) -> Response:
    """Return a response as the client wants it: JSON of some length gzipped, everything else as it is.

    Bundles are gzip already; text for Prometheus comes from the same machine, as a rule.
    """
    if response.mimetype not in _JSON or "content-encoding" in response.headers:
        return response
    if (response.content_length or 0) <= FROM_BYTES:
        return response
    response.headers["vary"] = "accept-encoding"
    if not accepts_gzip(request.headers.getlist("accept-encoding")):
        return response
    content = await response.get_data(as_text=False)
    # Other answers may hold a token, which is not to stay in memory, and are never the same twice.
    response.set_data(_kept(content) if request.method == "GET" else _compressed(content))
    response.headers["content-encoding"] = "gzip"
    etag = response.headers.get("etag")
    if etag is not None and not etag.startswith("W/"):
        # A strong tag promises the same bytes.
        response.headers["etag"] = f"W/{etag}"
    return response


def _compressed(content: bytes) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    return compressor.compress(content) + compressor.flush()


# Bytes that are the same object are found by their address: their hash is kept with them.
_kept: Final = functools.lru_cache(maxsize=KEPT)(_compressed)


def accepts_gzip(headers: list[str]) -> bool:
    """Whether ``Accept-Encoding`` asks for gzip: by name, or by ``*``, and not with a quality of 0."""
    qualities: dict[str, float] = {}
    for part in ",".join(headers).split(","):
        found = _CODING.fullmatch(part)
        if found is not None:
            qualities[found[1].lower()] = float(found[2]) if found[2] else 1.0
    named = [qualities[name] for name in ("gzip", "x-gzip") if name in qualities]
    return max(named) > 0 if named else qualities.get("*", 0.0) > 0
