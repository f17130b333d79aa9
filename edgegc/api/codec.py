"""Bodies and queries, in and out: msgspec structs on our side, JSON on the wire, a field-exact sentence for what is wrong.

Knows the web framework's request and response, no route.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from edgegc import errors
from edgegc.api import problem

if TYPE_CHECKING:
    from quart.wrappers import Request, Response

T = TypeVar("T", bound=msgspec.Struct)

BODY_PROGRESS_S: Final = 10.0
"""How long the next part of a body may take."""
BODY_S: Final = 60.0
"""How long all of it may take: a megabyte at the speed of a bad mobile link."""

encode = msgspec.json.Encoder().encode
"""Turns a struct into the JSON we send."""
_NAMES: Final = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_AT: Final = re.compile(r" - at `(?:key in )?\$\.?(?P<field>[^`]*)`$")
_GOT: Final = re.compile(r"^Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`$")
_BOUND: Final = re.compile(
    r"^Expected `(?P<kind>str|array|int|float)`(?P<length> of length)? (?P<bound>[<>]=? \S+)$"
)
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


async def body(request: Request, kind: type[T], *, limit: int) -> T:
    """Read a request's JSON body as a struct: :func:`content`, then :func:`decode`."""
    return decode(await content(request, limit=limit), kind)


async def content(request: Request, *, limit: int) -> bytes:
    """Read a request's body, which must say that it is JSON.

    :param limit: bytes; what is longer is refused before it is read.
    :raises errors.UnsupportedMedia: not ``application/json``, or compressed.
    :raises errors.TooLarge: longer than ``limit``.
    :raises RequestTimeout: it does not arrive.
    """
    if request.mimetype != "application/json":
        raise errors.UnsupportedMedia(
            f"the body must be JSON with Content-Type application/json, not {request.mimetype or 'without one'}"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise errors.UnsupportedMedia("the body must not be compressed")
    return await _received(request, limit=limit)


def decode(content: bytes, kind: type[T]) -> T:
    """Decode JSON as a struct. :raises errors.Invalid: no JSON, or not of this kind; the sentence names the field."""
    if not content.strip():
        raise errors.Invalid("the body is empty; a JSON object is expected")
    try:
        return _decoded(content, kind)
    except msgspec.ValidationError as error:
        raise errors.Invalid(_sentence(str(error), kind)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = str(error).removeprefix("JSON is malformed: ")
        raise errors.Invalid(f"the body is not valid JSON: {_lower(said)}") from error
    except RecursionError as error:
        raise errors.Invalid("the body is nested too deeply") from error


def _decoded(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
    # 1300.0 is a whole number to JSON Schema, and all that some languages can write. Rare, so the others don't pay for it.
    return msgspec.convert(_whole(msgspec.json.decode(content)), kind)


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def query(request: Request, kind: type[T]) -> T:
    """Read a request's query string as a struct. :raises errors.Invalid: unknown, repeated or out of bounds, naming it."""
    given: dict[str, str] = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise errors.Invalid(f"query parameter {name} is given {len(values)} times")
        given[name] = values[0]
    try:
        found = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        sentence = _sentence(str(error), kind).replace(", not a string", "")
        raise errors.Invalid(f"query parameter {sentence.replace('unknown field', 'unknown:')}") from error
    for name, text in given.items():
        if getattr(found, name) is None:
            # Read leniently, "null" is None too, as if it had not been given.
            raise errors.Invalid(f"query parameter {name}: {text!r} is no value; leave it out instead")
    return found


def reply(value: msgspec.Struct, status: int = 200, *, headers: dict[str, str] | None = None) -> Response:
    """Answer with a struct as JSON."""
    return raw(encode(value), status, headers=headers)


def raw(
    content: bytes,
    status: int = 200,
    *,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Response:
    """Answer with bytes as they are."""
    return TrioResponse(content, status, headers, content_type=content_type)


def refusal(made: problem.Answer) -> Response:
    """Answer with an error."""
    return raw(made.body, made.status, content_type=problem.CONTENT_TYPE, headers=dict(made.headers))


def nothing(status: int = 204, *, headers: dict[str, str] | None = None) -> Response:
    """Answer without a body: 204, or 304."""
    response = TrioResponse(b"", status, headers)
    # Neither has one, so neither says of which kind and how long it is.
    response.headers.pop("content-type", None)
    response.headers.pop("content-length", None)
    return response


async def _received(request: Request, *, limit: int) -> bytes:
    length = request.content_length
    if length is not None and length > limit:
        raise errors.TooLarge(f"the body has {length} bytes; the limit is {limit}")
    whole: bytes | None = getattr(request, "whole", None)
    if whole is not None:
        return whole
    received = bytearray()
    parts = aiter(request.body)
    with trio.move_on_after(BODY_S):
        while True:
            with trio.move_on_after(BODY_PROGRESS_S) as waiting:
                try:
                    received += await anext(parts)
                except StopAsyncIteration:
                    return bytes(received)
                except RequestEntityTooLarge as error:
                    raise errors.TooLarge(f"the body is longer than the limit of {limit} bytes") from error
            if waiting.cancelled_caught:
                break
            if len(received) > limit:
                raise errors.TooLarge(f"the body is longer than the limit of {limit} bytes")
    raise RequestTimeout(f"the body did not arrive: {len(received)} bytes of {length or 'unknown'}")


def _sentence(said: str, kind: type[msgspec.Struct]) -> str:
    """Turn msgspec's message into a sentence that begins with the field: ``groups[1]: must be a string, not null``."""
    found = _AT.search(said)
    path = found["field"] if found else ""
    said = said[: found.start()] if found else said
    prefix = f"{path}: " if path else ""
    if got := _GOT.match(said):
        wanted = " or ".join(_NAMES.get(name.strip(), name.strip()) for name in got["wanted"].split("|"))
        what = f"must be {wanted}, not {_NAMES.get(got['got'], got['got'])}"
        return prefix + what if path else f"the body {what}"
    if bound := _BOUND.match(said):
        operator, number = bound["bound"].split(" ")
        number = number.removesuffix(".0")
        if bound["kind"] == "str":
            return f"{prefix}must have {_BOUNDS[operator]} {number} characters"
        if bound["kind"] == "array":
            return f"{prefix}must have {_BOUNDS[operator]} {number} items"
        return f"{prefix}must be {_BOUNDS[operator]} {number}"
    if said.startswith("Object contains unknown field"):
        if not path and _quoted(said) in getattr(kind, "IMMUTABLE", ()):
            return f"{_quoted(said)}: can't be changed"
        return f"{prefix}unknown field {_quoted(said)!r}"
    if said.startswith("Object missing required field"):
        return f"{prefix}{_quoted(said)} is required"
    if said.startswith("Expected `str` matching regex"):
        return f"{prefix}must match {_pattern(said)}"
    if said.startswith("Invalid enum value"):
        allowed = _allowed(kind, path)
        value = said.removeprefix("Invalid enum value ")
        return f"{prefix}{value} is not " + (f"one of {', '.join(allowed)}" if allowed else "allowed")
    return prefix + _lower(said)


def _allowed(kind: type[msgspec.Struct], path: str) -> list[str]:
    """Return the values that a field of Literal type may have, where ``path`` leads to one."""
    from msgspec import inspect  # Only when something is wrong already.

    found: Any = inspect.type_info(kind)
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(found, inspect.Metadata):
            found = found.type
        if isinstance(found, inspect.StructType):
            found = next((field.type for field in found.fields if field.encode_name == step), None)
        else:
            found = getattr(found, "item_type", None)
    members = found.types if isinstance(found, inspect.UnionType) else (found,)
    return [str(v) for member in members if isinstance(member, inspect.LiteralType) for v in member.values]


def _quoted(said: str) -> str:
    return said.partition("`")[2].partition("`")[0]


def _pattern(said: str) -> str:
    return said.partition("regex ")[2].strip("'").replace(r"\\Z", "$")


def _lower(said: str) -> str:
    return said[:1].lower() + said[1:]
