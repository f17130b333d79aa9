"""Bodies and queries, in and out: msgspec structs on our side, JSON on the wire, a field-exact sentence for what is wrong.

Knows no route.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
import trio
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from edgegc import errors
from edgegc.api.asked import BODILESS, Reply
from edgegc.api.operation import JSON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgegc.api import problem
    from edgegc.api.asked import Asked

T = TypeVar("T", bound=msgspec.Struct)

BODY_PROGRESS_S: Final = 10.0
"""How long the next part of a body may take."""
BODY_S: Final = 60.0
"""How long all of it may take: a megabyte at the speed of a bad mobile link."""
KEPT_QUERIES: Final = 256
KEPT_QUERY_BYTES: Final = 128
"""Query strings up to this long are read once, as many as :data:`KEPT_QUERIES`."""
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

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


async def body(asked: Asked, kind: type[T], *, limit: int) -> T:
    """Read a request's JSON body as a struct: :func:`content`, then :func:`decode`."""
    return decode(await content(asked, limit=limit), kind)


async def content(asked: Asked, *, limit: int) -> bytes:
    """Read a request's body, which must say that it is JSON.

    :param limit: bytes; what is longer is refused before it is read.
    :raises errors.UnsupportedMedia: not ``application/json``, or compressed.
    :raises errors.TooLarge: longer than ``limit``.
    :raises RequestTimeout: it does not arrive.
    """
    if asked.content_type != "application/json":
        raise errors.UnsupportedMedia(
            f"the body must be JSON with Content-Type application/json, not {asked.content_type or 'without one'}"
        )
    if (asked.header("content-encoding") or "identity").lower() != "identity":
        raise errors.UnsupportedMedia("the body must not be compressed")
    return await _received(asked, limit=limit)


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


def query(text: bytes, kind: type[T]) -> T:
    """Read a query string as a struct. :raises errors.Invalid: unknown, repeated or out of bounds, naming it."""
    return _kept_query(text, kind) if len(text) <= KEPT_QUERY_BYTES else _query(text, kind)


def _query(text: bytes, kind: type[T]) -> T:
    pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        ((name, times),) = Counter(name for name, _ in pairs).most_common(1)
        raise errors.Invalid(f"query parameter {name} is given {times} times")
    try:
        found = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        sentence = _sentence(str(error), kind).replace(", not a string", "")
        raise errors.Invalid(f"query parameter {sentence.replace('unknown field', 'unknown:')}") from error
    for name, value in given.items():
        if getattr(found, name) is None:
            # Read leniently, "null" is None too, as if it had not been given.
            raise errors.Invalid(f"query parameter {name}: {value!r} is no value; leave it out instead")
    return found


# The structs are frozen, and many requests ask for the same.
_kept_query: Final = lru_cache(maxsize=KEPT_QUERIES)(_query)


def reply(value: msgspec.Struct, status: int = 200, *, headers: Mapping[str, str] = NO_HEADERS) -> Reply:
    """Answer with a struct as JSON."""
    return raw(encode(value), status, headers=headers)


def raw(
    content: bytes,
    status: int = 200,
    *,
    content_type: str = JSON,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Reply:
    """Answer with bytes as they are."""
    return Reply(
        status=status,
        headers=(*headers.items(), ("content-type", content_type)),
        body=content,
        length=len(content),
    )


def refusal(made: problem.Answer) -> Reply:
    """Answer with an error."""
    return Reply(status=made.status, headers=made.headers, body=made.body, length=len(made.body))


def nothing(status: int = 204, *, headers: Mapping[str, str] = NO_HEADERS) -> Reply:
    """Answer without a body: 202, 204, or 304."""
    return Reply(status=status, headers=tuple(headers.items()), length=None if status in BODILESS else 0)


async def _received(asked: Asked, *, limit: int) -> bytes:
    length = asked.content_length
    if length is not None and length > limit:
        raise errors.TooLarge(f"the body has {length} bytes; the limit is {limit}")
    if isinstance(asked.body, bytes):
        return asked.body
    received = bytearray()
    parts = aiter(asked.body)
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
