"""Compressed answers: once for those that are asked for again and again, and nothing secret is kept for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from werkzeug.datastructures import Headers

from edgegc.api import codec, compression

if TYPE_CHECKING:
    from quart.wrappers import Request, Response

CONTENT = b"[" + b"1, " * compression.FROM_BYTES + b"1]"


class Asked:
    """As much of a request as compressing looks at."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.headers = Headers({"accept-encoding": "gzip"})


async def compressed(method: str, content: bytes = CONTENT) -> bytes:
    asked: Any = Asked(method)
    answer: Response = await compression.compress(cast("Request", asked), codec.raw(content))
    assert answer.headers["content-encoding"] == "gzip"
    return await answer.get_data(as_text=False)


async def test_the_same_answer_to_a_get_is_compressed_once() -> None:
    first = await compressed("GET")
    assert await compressed("GET") is first
    assert await compressed("GET", CONTENT + b" ") != first


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_answer_that_may_hold_a_token_is_not_kept(method: str) -> None:
    before = compression._kept.cache_info()
    assert await compressed(method) is not await compressed(method)
    assert compression._kept.cache_info() == before
