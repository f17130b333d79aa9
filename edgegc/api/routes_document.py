"""What the API says of itself: the OpenAPI document, and the same as a page for people. Made when first asked for, then kept."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from edgegc.api import codec, ranges
from edgegc.api.asked import present
from edgegc.api.operation import JSON, Content, declare

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

HTML: Final = "text/html; charset=utf-8"
TAG_CHARACTERS: Final = 16

describe: Final = partial(declare, tag="This document")


def add(app: Application) -> None:
    """Add the routes. The modules that make the content are loaded by the first who asks."""

    @cache
    def document() -> bytes:
        from edgegc.api.document import document as make

        return codec.encode(make(app))

    @cache
    def shown() -> tuple[bytes, str]:
        from edgegc.api.document import document as make
        from edgegc.api.page import SECURITY_POLICY, page

        return page(make(app)), SECURITY_POLICY

    @app.get("/openapi.json")
    @describe(
        "This API as an OpenAPI 3.1 document",
        who="open",
        headers=("If-None-Match",),
        gives={
            200: Content(kind=JSON, headers=("ETag",)),
            304: Content(kind=None, headers=("ETag",), says="Nothing changed."),
        },
    )
    async def openapi() -> Reply:
        return _answer(document(), JSON, {})

    @app.get("/docs")
    @describe(
        "This API as a page for people",
        who="open",
        headers=("If-None-Match",),
        gives={
            200: Content(kind=HTML, headers=("ETag",)),
            304: Content(kind=None, headers=("ETag",), says="Nothing changed."),
        },
    )
    async def docs() -> Reply:
        content, policy = shown()
        return _answer(content, HTML, {"content-security-policy": policy})


def _answer(content: bytes, content_type: str, headers: dict[str, str]) -> Reply:
    tag = hashlib.sha256(content).hexdigest()[:TAG_CHARACTERS]
    sent = {"etag": f'"{tag}"', "cache-control": "no-cache", **headers}
    if ranges.none_match(present.get().header("if-none-match"), tag):
        return codec.nothing(304, headers=sent)
    return codec.raw(content, content_type=content_type, headers=sent)
