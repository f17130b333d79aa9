"""The document and the page say what the declarations and structs say, and nothing that does not hold."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from edgegc.api import operation
from edgegc.api.app import create_app
from edgegc.api.document import document
from edgegc.api.page import page
from tests.control_plane import control_plane

if TYPE_CHECKING:
    from collections.abc import Iterator


async def described() -> tuple[dict[str, Any], dict[str, type[msgspec.Struct]]]:
    """Return the document, as who fetches it reads it, and the structs that its schemas are made of, by name."""
    async with control_plane() as plane:
        app = create_app(plane.control)
        made = document(app)
        kinds: dict[str, type[msgspec.Struct]] = {}
        for _, _, found in operation.operations(app):
            given = [one.kind if isinstance(one, operation.Content) else one for one in found.gives.values()]
            kinds |= {kind.__name__: kind for kind in (found.takes, *given) if isinstance(kind, type)}
    return json.loads(msgspec.json.encode(made)), kinds


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def examples(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        if "example" in part and "$ref" in part.get("schema", {}):
            yield part["schema"]["$ref"].rpartition("/")[2], part["example"]
        for inner in part.values():
            yield from examples(inner)


async def test_whatever_the_document_refers_to_is_in_it() -> None:
    found, _ = await described()
    for reference in references(found):
        part: Any = found
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]


async def test_every_example_of_a_body_is_one() -> None:
    found, kinds = await described()
    shown = list(examples(found["paths"]))
    assert len(shown) > 50
    for name, example in shown:
        assert msgspec.json.decode(msgspec.json.encode(example), type=kinds[name]), name


async def test_every_time_is_a_date_time_and_nothing_else_is() -> None:
    found, kinds = await described()
    for name, kind in kinds.items():
        for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            schema = found["components"]["schemas"][name]["properties"][field.encode_name]
            members = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
            is_time = any(isinstance(member, inspect.DateTimeType) for member in members)
            formats = [one.get("format") for one in schema.get("anyOf", [schema])]
            assert ("date-time" in formats) == is_time, f"{name}.{field.encode_name}"


async def test_no_pattern_is_written_in_a_way_that_only_python_reads() -> None:
    found, _ = await described()
    assert r"\Z" not in json.dumps(found)


async def test_operations_that_need_a_token_say_which_and_how_they_refuse() -> None:
    found, _ = await described()
    for path, methods in found["paths"].items():
        for method, one in methods.items():
            assert ("401" in one["responses"]) == bool(one["security"]), f"{method} {path}"
            assert {"500", "503"} <= one["responses"].keys(), f"{method} {path}"


async def test_the_page_shows_every_path_and_needs_nothing_from_elsewhere() -> None:
    found, _ = await described()
    shown = page(found).decode()
    for path in found["paths"]:
        assert path.replace("/", "/<wbr>") in shown
    assert "<script" not in shown
    assert not re.search(r"(src|href|url)\s*[=(]\s*['\"]?(https?:)?//", shown)
    anchors = set(re.findall(r"href='#([^']*)'", shown))
    assert anchors <= set(re.findall(r"id='([^']*)'", shown))


async def test_what_is_made_does_not_change_between_builds() -> None:
    first, _ = await described()
    second, _ = await described()
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
