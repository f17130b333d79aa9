"""Rebuilds the :class:`~edgegc.errors.Error` that a server raised from its answer. Pure; the inverse is api/'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from edgegc import errors
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.connection import Head

MAX_RETRY_AFTER_S: Final = 86_400
"""A server that asks for more than a day is asking for less."""

_BY_CODE: dict[str, type[errors.Error]] = {
    kind.code: kind
    for kind in (
        errors.Invalid,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.TooLarge,
        errors.UnsupportedMedia,
        errors.TooMany,
        errors.Unavailable,
    )
}
_BY_STATUS: dict[int, type[errors.Error]] = {
    400: errors.Invalid,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    429: errors.TooMany,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
"""For answers that are not ours: of a proxy, or of something else that listens there."""


def rebuild(head: Head, body: bytes) -> errors.Error:
    """Return the error that an answer with a status ≥ 400 stands for."""
    retry_after = head.headers.get("retry-after", "")
    retry_after_s = min(int(retry_after), MAX_RETRY_AFTER_S) if retry_after.isdecimal() else None
    try:
        problem = msgspec.json.decode(body, type=message.Problem)
    except msgspec.DecodeError:
        kind = _BY_STATUS.get(head.status, errors.Error)
        return kind(
            f"HTTP status {head.status} from something that is not edgegc", retry_after_s=retry_after_s
        )
    kind = _BY_CODE.get(problem.code, errors.Error)
    text = problem.detail or problem.title
    if kind is errors.Error:
        text = f"{text} (request {problem.request_id})"
    if kind is errors.Conflict:
        return errors.Conflict(text, retry_after_s=retry_after_s, unless=problem.unless or None)
    return kind(text, retry_after_s=retry_after_s)
