"""Request heads of the plain kind, read strictly. Pure; knows no sockets and no routes.

What this takes is a subset of what h11 takes, and h11 reads it the same: one expression for the whole head, of characters
about which no two readers disagree. Everything else is left to h11, untouched (:data:`Unfit.ODD`): it alone says what is
refused, and how. No second general parser (httptools): it would need this check as well, as it takes things that h11 does
not, and after the check there is nothing left for it to do.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple

_HEAD: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.([01])\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]++: ?(?:[!-~][ -~]*+)?+\r\n)++)\r\n"
)
_FIELD: Final = re.compile(rb"([^:\r\n]++): ?([^\r]*+)\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_END: Final = b"\r\n\r\n"

_ONCE: Final = (b"host", b"content-length", b"connection", b"expect", b"x-request-id")
"""Fields that mean something here: twice is odd."""
_NEVER: Final = frozenset({b"transfer-encoding", b"upgrade"})


class Unfit(Enum):
    """Why there is no head to be had."""

    INCOMPLETE = auto()
    """It is not all there; so far it is plain."""
    ODD = auto()
    """It is no plain head, or too long: h11 may make of it what it can."""


class Head(NamedTuple):
    """A request's head."""

    size: int
    """How many bytes it has."""
    method: str
    target: bytes
    minor: str
    """HTTP/1.``minor``."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    length: int
    """How many bytes of body follow."""
    keeps: bool
    """Whether the client would keep the connection."""
    expects: bool
    """Whether it waits for ``100 Continue`` before it sends the body."""
    request_id: bytes | None


def read(received: bytearray, *, limit: int) -> Head | Unfit:
    """Read the head that ``received`` begins with; ``limit`` is how many bytes one may have."""
    end = received.find(_END, 0, limit)
    if end < 0:
        return Unfit.INCOMPLETE if _may_become_plain(received, limit) else Unfit.ODD
    end += len(_END)
    matched = _HEAD.fullmatch(received, 0, end)
    # A space before the end of a line belongs to no value, says h11: nobody sends it.
    if matched is None or received.find(b" \r\n", 0, end) >= 0:
        return Unfit.ODD
    headers = [(name.lower(), value) for name, value in _FIELD.findall(matched[4])]
    fields = dict(headers)
    # The limit counts a separator of two bytes for each field, of which one may be missing here.
    if end + len(headers) > limit or not fields.keys().isdisjoint(_NEVER):
        return Unfit.ODD
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        if any(names.count(name) > 1 for name in _ONCE):
            return Unfit.ODD
    length = fields.get(b"content-length", b"0")
    minor = matched[3].decode()
    connection = fields.get(b"connection", b"").lower()
    expected = fields.get(b"expect", b"").lower()
    if (
        b"host" not in fields
        or _LENGTH.fullmatch(length) is None
        or connection not in ((b"", b"keep-alive", b"close") if minor == "1" else (b"keep-alive",))
        or (expected and (expected != b"100-continue" or minor == "0" or not int(length)))
    ):
        return Unfit.ODD
    return Head(
        size=end,
        method=matched[1].decode(),
        target=matched[2],
        minor=minor,
        headers=headers,
        length=int(length),
        keeps=connection != b"close",
        expects=bool(expected),
        request_id=fields.get(b"x-request-id"),
    )


def _may_become_plain(received: bytearray, limit: int) -> bool:
    """Whether h11 would wait for more as well: it also takes bare line feeds, and refuses what can begin no request."""
    return (
        len(received) <= limit
        and 0x41 <= received[0] <= 0x5A
        and received.count(b"\n") == received.count(b"\r\n")
    )
