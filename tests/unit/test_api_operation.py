"""Every route says what it takes and answers, or the application does not start."""

from __future__ import annotations

import pytest
from quart import Quart

from edgegc.api import operation
from edgegc.api.app import create_app
from tests.control_plane import control_plane


def an_app(**changes: object) -> Quart:
    app = Quart("test", static_folder=None)

    @app.get("/things/<thing_id>")
    async def show_thing(thing_id: str) -> str:
        return thing_id

    if changes:
        fields: dict[str, object] = {"tag": "Things", "who": "operator", "gives": {200: None}}
        operation.declare("Show a thing", **(fields | changes))(show_thing)  # type: ignore[arg-type]
    return app


def test_a_route_without_a_declaration_is_refused_by_name() -> None:
    with pytest.raises(LookupError, match="/things/<thing_id> has no declaration"):
        operation.check(an_app())


def test_a_declaration_with_a_header_that_nobody_described_is_refused() -> None:
    with pytest.raises(LookupError, match=r"GET /things/<thing_id>: .* no header X-Thing"):
        operation.check(an_app(headers=("X-Thing",)))
    with pytest.raises(LookupError, match="no header X-Thing"):
        operation.check(an_app(gives={200: operation.Content(kind=None, headers=("X-Thing",))}))


def test_a_route_that_never_answers_is_refused() -> None:
    with pytest.raises(LookupError, match="never answers"):
        operation.check(an_app(gives={}))


def test_refusals_follow_from_what_an_operation_takes() -> None:
    ((rule, method, found),) = operation.operations(an_app(takes="application/gzip", refuses=(409,)))
    assert method == "GET"
    assert operation.refusals(found, rule) == [400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503]


async def test_every_route_has_a_declaration_and_a_chapter() -> None:
    async with control_plane() as plane:
        found = list(operation.operations(create_app(plane.control)))
    assert len(found) > 40
    assert all(one.summary and one.tag and not one.summary.endswith(".") for _, _, one in found)
