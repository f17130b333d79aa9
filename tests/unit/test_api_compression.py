"""Compressed answers: once for those that are asked for again and again, and nothing secret is kept for that."""

from __future__ import annotations

import pytest

from edgegc.api import codec, compression
from tests.asking import asked

CONTENT = b"[" + b"1, " * compression.FROM_BYTES + b"1]"


def compressed(method: str, content: bytes = CONTENT) -> bytes:
    request = asked(method, headers=(("accept-encoding", "gzip"),))
    reply = compression.compress(request, codec.raw(content))
    assert ("content-encoding", "gzip") in reply.headers
    assert isinstance(reply.body, bytes)
    assert reply.length == len(reply.body)
    return reply.body


def test_the_same_answer_to_a_get_is_compressed_once() -> None:
    first = compressed("GET")
    assert compressed("GET") is first
    assert compressed("GET", CONTENT + b" ") != first


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_answer_that_may_hold_a_token_is_not_kept(method: str) -> None:
    before = compression._kept.cache_info()
    assert compressed(method) is not compressed(method)
    assert compression._kept.cache_info() == before
