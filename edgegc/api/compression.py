"""gzip for JSON, where the client asks for it and it is worth the time. Pure; knows no route."""

from __future__ import annotations

import functools
import re
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from edgegc.api.asked import Asked, Reply

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


def compress(asked: Asked, reply: Reply) -> Reply:
    """Return an answer as the client wants it: JSON of some length gzipped, everything else as it is.

    Bundles are gzip already; text for Prometheus comes from the same machine, as a rule.
    """
    content = reply.body
    if (
        not isinstance(content, bytes)
        or len(content) <= FROM_BYTES
        or dict(reply.headers).get("content-type") not in _JSON
    ):
        return reply
    headers = (*reply.headers, ("vary", "accept-encoding"))
    if not accepts_gzip(asked.headers("accept-encoding")):
        return msgspec.structs.replace(reply, headers=headers)
    # Other answers may hold a token, which is not to stay in memory, and are never the same twice.
    sent = _kept(content) if asked.method == "GET" else _compressed(content)
    return msgspec.structs.replace(
        reply,
        # A strong tag promises the same bytes.
        headers=(
            *((name, f"W/{value}" if name == "etag" else value) for name, value in headers),
            ("content-encoding", "gzip"),
        ),
        body=sent,
        length=len(sent),
    )


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
