"""Conditional and partial requests (RFC 9110): entity tags and byte ranges, as far as downloads need them. Pure."""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = re.compile(r'\s*(?:W/)?"([^"]*)"\s*(?:,|$)')
_RANGE: Final = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)", re.IGNORECASE)
MAX_DIGITS: Final = 18
"""A position with more digits is beyond any body; ``int`` of a long string is quadratic."""


class Unsatisfiable(Exception):
    """The range lies beyond the body: 416."""


def tags(header: str | None) -> tuple[str, ...]:
    """Return the entity tags of an ``If-None-Match``, without quotes and weakness; ``("*",)`` for any."""
    if header is None:
        return ()
    if header.strip() == "*":
        return ("*",)
    return tuple(_TAG.findall(header))


def none_match(header: str | None, tag: str) -> bool:
    """Whether ``If-None-Match`` names this tag, so that the answer is 304."""
    found = tags(header)
    return tag in found or found == ("*",)


def part(header: str | None, length: int) -> tuple[int, int] | None:
    """Return the part ``[begin, end)`` that a ``Range`` asks for; None for all of it.

    Several ranges, other units and malformed ones are ignored, as RFC 9110 wants: the answer is the whole.

    :raises Unsatisfiable: nothing of the range lies within ``length``.
    """
    found = _RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or not any(found.groups()) or max(map(len, found.groups())) > MAX_DIGITS:
        return None
    first, last = found.groups()
    if not first:
        wanted = int(last)
        if wanted == 0 or length == 0:
            raise Unsatisfiable
        return max(0, length - wanted), length
    begin = int(first)
    end = int(last) + 1 if last else length
    if last and end <= begin:
        return None
    if begin >= length:
        raise Unsatisfiable
    return begin, min(end, length)
