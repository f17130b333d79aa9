"""The way past the framework beside the framework: the same handler gets the same, and whoever asks is answered the same."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegc import errors
from edgegc.api import codec, operation
from edgegc.api.app import create_app
from edgegc.api.asked import Reply, present
from edgegc.settings import Limits, Settings
from tests.asking import scope
from tests.control_plane import control_plane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.api.application import Application
    from edgegc.control.control import Control
    from tests.control_plane import Plane

ID = "0192f0c1-2a3b-7c4d-8e5f-0123456789ab"
UNPLAIN = ["", ".", "..", "a b", "a\nb", "%41", "é", "<node_id>", "batch", "cluster", "a" * 300]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


async def told(app: Application, asked: Any, body: bytes) -> tuple[Any, ...]:
    """Return all that an application says to a request, and what it has noted of it."""
    said: list[Any] = []
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if given:
            return given.pop()
        return await trio.sleep_forever()

    async def send(message: Any) -> None:
        said.append(message)

    with trio.fail_after(10):
        await app(asked, receive, send)
    start, *parts = said
    assert not parts[-1]["more_body"]
    return start["status"], start["headers"], b"".join(part["body"] for part in parts), asked["state"]


async def both(
    app: Application, method: str, target: str, *, body: bytes = b"", **more: Any
) -> tuple[Any, ...]:
    """Have a request answered by both ways, and return the answer."""
    direct, framework = [
        await told(app, scope(method, target, watched=watched, **more), body) for watched in (True, False)
    ]
    assert direct == framework
    return direct


def repeated(name: str, declared: operation.Operation) -> Any:
    """Return a handler that says what it was called with, or fails, as the body says."""

    async def repeat(**arguments: str) -> Reply:
        asked = present.get()
        assert asked.operation is declared
        content = await codec.content(asked, limit=1000) if asked.method == "POST" else b""
        match content:
            case b"refuse":
                raise errors.Conflict("taken", unless="force")
            case b"break":
                raise RuntimeError("a bug")
            case b"group":
                raise BaseExceptionGroup("of a nursery", [errors.NotFound("no such node")])
        seen = (name, arguments, asked.method, asked.path, asked.query, asked.headers("x"), content)
        return codec.raw(repr(seen).encode(), 201, headers={"etag": '"1"'})

    repeat.operation = declared  # type: ignore[attr-defined]
    return repeat


@cache
def repeating() -> Application:
    """Return the application with such handlers in the place of its own."""
    app = create_app(cast("Control", SimpleNamespace(settings=Settings())))
    for rule, _, declared in operation.operations(app):
        app.view_functions[rule.endpoint] = repeated(rule.endpoint, declared)
    app.routes.learn(app)
    return app


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Make a path of the application's, or one that is nearly."""
    parts = draw(st.sampled_from(sorted({rule.rule for rule in repeating().url_map.iter_rules()}))).split("/")
    for at, part in enumerate(parts):
        if part.startswith("<"):
            parts[at] = draw(st.sampled_from([ID, "7", *UNPLAIN]))
    if draw(st.integers(0, 4)) == 0:
        parts.insert(draw(st.integers(1, len(parts))), draw(st.sampled_from(UNPLAIN)))
    return "/".join(parts)


HEADERS = [
    ("x", "1"),
    ("x", "2"),
    ("content-type", "application/json; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-encoding", "gzip"),
    ("content-length", "5"),
    ("content-length", "5000"),
    ("accept-encoding", "gzip"),
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(METHODS),
    paths(),
    st.sampled_from(["", "?", "?a=b", "?a=%20"]),
    st.lists(st.sampled_from(HEADERS), max_size=4),
    st.sampled_from([b"", b"{}", b"refuse", b"break", b"group"]),
)
async def test_the_same_handler_is_called_with_the_same(
    method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    await both(repeating(), method, path + query, headers=tuple(headers), body=body)


async def test_what_the_handler_was_called_with_is_what_was_asked() -> None:
    status, _, content, state = await both(
        repeating(), "PATCH", f"/api/v1/nodes/{ID}?a=b", headers=(("x", "1"),)
    )
    assert status == 201
    assert (
        content
        == repr(("update_node", {"node_id": ID}, "PATCH", f"/api/v1/nodes/{ID}", b"a=b", ["1"], b"")).encode()
    )
    assert state["route"] == "/api/v1/nodes/<node_id>"


async def test_every_route_is_found_without_the_framework_and_nothing_else_is() -> None:
    app = repeating()
    for rule, method, declared in operation.operations(app):
        path = "/".join(ID if part.startswith("<") else part for part in rule.rule.split("/"))
        found = app.routes.find(method, path)
        assert found is not None
        assert (found.route.rule, found.route.operation) == (rule.rule, declared)
        assert set(found.arguments) == rule.arguments
        assert app.routes.find("HEAD", path) == (found if method == "GET" else app.routes.find("GET", path))
        for other in (f"{path}/", f"/{path}", path.upper(), f"{path}/x/y/z"):
            assert app.routes.find(method, other) is None
        assert app.routes.find("OPTIONS", path) is None


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with control_plane(limits=Limits(enabled=False)) as running:
        yield running


async def test_real_handlers_answer_the_same(plane: Plane) -> None:
    app = create_app(plane.control)
    node = await plane.add_node("pi-7", role="admin")
    bearer = ("authorization", f"Bearer {node.node_token}")
    await both(app, "GET", "/api/v1/nodes", headers=(bearer,))
    asks = [
        ("GET", "/api/v1/topology"),
        ("GET", "/api/v1/nodes?page_size=50"),
        ("GET", "/api/v1/nodes?page_size=0"),
        ("GET", "/api/v1/nodes?page_size=1&page_size=2"),
        ("GET", "/api/v1/nodes?unknown=1"),
        ("GET", f"/api/v1/nodes/{ID}"),
        ("GET", f"/api/v1/nodes/{ID}?unknown=1"),
        ("HEAD", "/api/v1/topology"),
        ("GET", "/api/v1/config/version"),
        ("GET", "/health/live"),
        ("GET", "/openapi.json"),
        ("GET", "/api/v1/resources"),
        ("POST", "/api/v1/nodes"),
        ("PATCH", f"/api/v1/nodes/{ID}"),
        ("DELETE", f"/api/v1/nodes/{ID}"),
        ("PUT", "/api/v1/policy?dry_run=maybe"),
        ("POST", "/api/v1/config/bundle"),
    ]
    json = ("content-type", "application/json")
    extras: list[tuple[tuple[str, str], ...]] = [
        (),
        (bearer,),
        (bearer, bearer),
        (bearer, ("accept-encoding", "gzip")),
        (bearer, ("if-none-match", "*")),
        (bearer, json),
        (bearer, ("idempotency-key", "k"), json),
        (bearer, ("idempotency-key", ""), json),
        (("authorization", "Basic x"),),
    ]
    statuses = set()
    for method, target in asks:
        for headers in extras:
            statuses.add((await both(app, method, target, headers=headers, body=b'{"name":5}'))[0])
    assert statuses >= {200, 304, 400, 401, 403, 404, 415}
