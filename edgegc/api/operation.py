"""What a route says of itself: who may, what it takes, what it answers. Stands beside each handler; the OpenAPI
document and the page for people are made from it, and an application with a route that says nothing does not start.

Pure declarations: it knows no handler, and checks no request (:mod:`edgegc.api.codec` does, with the same structs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quart import Quart
    from werkzeug.routing import Rule

Who = Literal["open", "metrics", "enrolment key", "node", "cluster reader", "cluster admin", "operator"]
"""Who may call: anybody; a scrape from the box itself or with a token for it; a machine that enrols; a node for itself;
whoever may read the cluster; whoever may change it; who owns the box.
"""
Schema = Mapping[str, Any]
Handler = Callable[..., Any]
"""What it returns is not said here: the framework's decorators would have it be an answer of the framework's."""

GZIP: Final = "application/gzip"
JSON: Final = "application/json"
PROBLEM_JSON: Final = "application/problem+json"
OWN_METHODS: Final = frozenset({"HEAD", "OPTIONS"})
"""The framework answers them for every path, so no route declares them."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A header of requests or answers; ``schema`` is JSON Schema, as what it holds is text."""

    says: str
    schema: Schema
    example: str


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A body that is not a struct, or an answer with headers of its own. ``kind`` is a struct, a media type, or None for
    no body.
    """

    kind: type[msgspec.Struct] | str | None
    headers: tuple[str, ...] = ()
    says: str = ""


Given = type[msgspec.Struct] | Content | None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. See :func:`declare`."""

    summary: str
    tag: str
    who: Who
    takes: type[msgspec.Struct] | str | None
    query: type[msgspec.Struct] | None
    headers: tuple[str, ...]
    gives: Mapping[int, Given]
    refuses: tuple[int, ...]
    says: str


REQUEST_HEADERS: Final[dict[str, Header]] = {
    "Edgegc-Applied": Header(
        says="The version that the node runs. A malformed one is ignored.",
        schema={"type": "string"},
        example="6",
    ),
    "Edgegc-Nebula": Header(
        says="The version of nebula that the node runs.", schema={"type": "string"}, example="1.9.3"
    ),
    "Edgegc-State": Header(
        says="How the node is: ok, applying or failed. Anything else is ignored.",
        schema={"type": "string"},
        example="ok",
    ),
    "Idempotency-Key": Header(
        says="A name that the sender gives the request, so that it can be sent again: for 24 hours it is answered as "
        "the first time and makes nothing new. With another body: 409. Only what creates something takes one; other "
        "requests that change something are refused with one: 400.",
        schema={"type": "string", "pattern": "^[!-~]{1,255}$"},
        example="7f9c2ba4-e88f-4d12-b8c6-0a1b2c3d4e5f",
    ),
    "If-None-Match": Header(
        says="The entity tag of what the caller has; answers 304 where nothing changed.",
        schema={"type": "string"},
        example='"7"',
    ),
    "If-Range": Header(
        says="The entity tag of what the caller has a part of; a range of anything else is answered whole.",
        schema={"type": "string"},
        example='"7-9f86d081884c7d65"',
    ),
    "Range": Header(
        says="One range of bytes. Several, other units and malformed ones are ignored.",
        schema={"type": "string"},
        example="bytes=0-1023",
    ),
}
"""What a route may read of a request besides path, query and body. Authorization is the security scheme's."""

RESPONSE_HEADERS: Final[dict[str, Header]] = {
    "Accept-Ranges": Header(
        says="Parts may be asked for.", schema={"type": "string", "const": "bytes"}, example="bytes"
    ),
    "Allow": Header(
        says="The methods that this path has.", schema={"type": "string"}, example="GET, HEAD, OPTIONS"
    ),
    "Content-Range": Header(
        says="Which part this is.", schema={"type": "string"}, example="bytes 0-1023/4096"
    ),
    "ETag": Header(says="The entity tag of this content.", schema={"type": "string"}, example='"7"'),
    "Edgegc-Digest": Header(
        says="SHA-256 of the complete bundle, in lower-case hex.",
        schema={"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
        example="sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ),
    "Edgegc-Interval": Header(
        says="The server is short of room: do not hold a poll, ask again after so many seconds.",
        schema={"type": "string", "pattern": "^[0-9.]+$"},
        example="30",
    ),
    "Edgegc-Signature": Header(
        says="Base64 Ed25519 signature over the bundle's ids, version and digest.",
        schema={"type": "string", "pattern": "^[A-Za-z0-9+/]{86}==$"},
        example="q" * 86 + "==",
    ),
    "Edgegc-Spread": Header(
        says="Many woke at once: wait a random part of so many seconds before downloading.",
        schema={"type": "string", "pattern": "^[0-9.]+$"},
        example="2.5",
    ),
    "Edgegc-Version": Header(
        says="The version of this bundle.", schema={"type": "string", "pattern": "^[0-9]+$"}, example="7"
    ),
    "Retry-After": Header(
        says="Seconds after which to try again.",
        schema={"type": "string", "pattern": "^[0-9]+$"},
        example="5",
    ),
    "WWW-Authenticate": Header(
        says="How to authenticate.", schema={"type": "string"}, example='Bearer realm="edgegc"'
    ),
    "X-Request-ID": Header(
        says="The request's id, as the log has it; the client's own where it sent a sane one.",
        schema={"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        example="3f1c9a7be2d04c55",
    ),
}


def declare(
    summary: str,
    *,
    tag: str,
    who: Who,
    gives: Mapping[int, Given],
    takes: type[msgspec.Struct] | str | None = None,
    query: type[msgspec.Struct] | None = None,
    headers: tuple[str, ...] = (),
    refuses: tuple[int, ...] = (),
    says: str = "",
) -> Callable[[Handler], Handler]:
    """Say what a handler does. It goes under the route's decorator, with the structs that the handler itself decodes:

    .. code-block:: python

        describe = partial(declare, tag="Tenants")

        @app.post("/api/v1/tenants")
        @describe("Create a tenant", who="operator", takes=message.TenantCreate, gives={201: message.TenantView}, refuses=(409,))
        async def create_tenant() -> Reply: ...

    :param summary: a few words, as in a list.
    :param tag: the chapter of the page.
    :param gives: per status below 400 the struct of the answer, None for no body, or a :class:`Content`.
    :param takes: the struct of the body, or its media type where it is no JSON.
    :param query: the struct of the query string; a ``cluster_id`` in it is "the cluster".
    :param headers: names in :data:`REQUEST_HEADERS`.
    :param refuses: statuses of 400 and above beyond those that follow from the rest (see :func:`refusals`).
    :param says: what else a caller must know; plain sentences.
    """
    found = Operation(
        summary=summary,
        tag=tag,
        who=who,
        takes=takes,
        query=query,
        headers=headers,
        gives=gives,
        refuses=refuses,
        says=says,
    )

    def attach(handler: Handler) -> Handler:
        handler.operation = found  # type: ignore[attr-defined]
        return handler

    return attach


def refusals(operation: Operation, rule: Rule) -> list[int]:
    """Return every status of 400 and above that an operation may answer, in order."""
    found = {500, 503, *operation.refuses}
    if operation.who != "open":
        found |= {400, 401, 403, 429}
    if operation.query is not None:
        found.add(400)
        if "cluster_id" in operation.query.__struct_fields__:
            found.add(404)
    if operation.takes is not None:
        found |= {400, 408, 413, 415}
    if rule.arguments:
        found.add(404)
    return sorted(found)


def of(app: Quart, rule: Rule | None) -> Operation:
    """Return what the handler of a rule says of itself. :raises LookupError: nothing."""
    found = getattr(app.view_functions[rule.endpoint], "operation", None) if rule is not None else None
    if not isinstance(found, Operation):
        path = rule.rule if rule is not None else "a request without a route"
        raise LookupError(f"{path} has no declaration: put edgegc.api.operation.declare on its handler")
    return found


def operations(app: Quart) -> Iterator[tuple[Rule, str, Operation]]:
    """Yield every route of an application with its method (upper case) and its declaration, in the order they were added.

    :raises LookupError: a route has none; it names it.
    """
    for rule in app.url_map.iter_rules():
        found = getattr(app.view_functions[rule.endpoint], "operation", None)
        if not isinstance(found, Operation):
            raise LookupError(
                f"{rule.rule} has no declaration: put edgegc.api.operation.declare on its handler"
            )
        for method in sorted((rule.methods or set()) - OWN_METHODS):
            yield rule, method, found


def check(app: Quart) -> None:
    """Refuse an application with a route that says nothing of itself, or something impossible. :raises LookupError:"""
    for rule, method, operation in operations(app):
        route = f"{method} {rule.rule}"
        unknown = set(operation.headers) - REQUEST_HEADERS.keys()
        for given in operation.gives.values():
            if isinstance(given, Content):
                unknown |= set(given.headers) - RESPONSE_HEADERS.keys()
        if unknown:
            raise LookupError(f"{route}: edgegc.api.operation knows no header {', '.join(sorted(unknown))}")
        if not operation.gives:
            raise LookupError(f"{route} never answers")
