"""Errors as HTTP shows them: ``application/problem+json`` (RFC 9457) for every status of 400 and above.

Pure: it knows neither Quart nor Hypercorn, so that what answers below the application answers alike.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from edgegc import errors
from edgegc.model.message import Problem

CONTENT_TYPE: Final = "application/problem+json"
STATUS: Final[dict[errors.Code, int]] = {
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "internal": 500,
    "unavailable": 503,
}
CODE: Final[dict[int, errors.Code]] = {status: code for code, status in STATUS.items()}
UNAUTHORIZED_DETAIL: Final = "authentication failed: the bearer token is missing, unknown, expired or revoked"
"""The same for every reason: the outside must not learn which tokens exist. The reason is in the log."""
INTERNAL_DETAIL: Final = "internal error; the log has it under this request_id"
RETRY_AFTER_S: Final = 5
"""For a 429 or 503 whose error names no time of its own."""

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """An error, ready to be sent: ``headers`` without Content-Length, which who sends it adds."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def answer(
    status: int,
    detail: str,
    *,
    request_id: str,
    code: errors.Code | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    unless: str | None = None,
) -> Answer:
    """Build the answer for a status; the code follows from it where none is given (``invalid_request`` for any that has none).

    ``unless``: see :class:`edgegc.errors.Conflict`.
    """
    if code is None:
        code = CODE.get(status, "invalid_request")
    problem = Problem(
        type="about:blank",
        title=_title(status),
        status=status,
        code=code,
        detail=detail,
        request_id=request_id,
        unless=unless or msgspec.UNSET,
    )
    return Answer(status, (("content-type", CONTENT_TYPE), *headers), _encode(problem))


def of_error(error: errors.Error, *, request_id: str) -> Answer:
    """Build the answer for one of our errors. A 401 never says why; a 429 or 503 always says when to come back."""
    status = STATUS[error.code]
    headers: tuple[tuple[str, str], ...] = ()
    detail = error.message
    if status == 401:
        detail = UNAUTHORIZED_DETAIL
        headers = (("www-authenticate", 'Bearer realm="edgegc"'),)
    elif status in (429, 503):
        retry_after_s = error.retry_after_s if error.retry_after_s is not None else RETRY_AFTER_S
        headers = (("retry-after", str(retry_after_s)),)
    unless = error.unless if isinstance(error, errors.Conflict) else None
    return answer(status, detail, request_id=request_id, code=error.code, headers=headers, unless=unless)


def internal(*, request_id: str) -> Answer:
    """Build the answer for a bug of ours: nothing of it is shown."""
    return answer(500, INTERNAL_DETAIL, request_id=request_id)


def single(error: BaseException) -> BaseException:
    """Return the one error that a group stands for: one of ours before any other, a bug before nothing.

    A nursery between a use case and its handler wraps what it raises; who calls the API must not notice.
    """
    leaves = [error]
    while any(isinstance(leaf, BaseExceptionGroup) for leaf in leaves):
        leaves = [
            inner
            for leaf in leaves
            for inner in (leaf.exceptions if isinstance(leaf, BaseExceptionGroup) else (leaf,))
        ]
    unexpected = [leaf for leaf in leaves if not isinstance(leaf, errors.Error)]
    # A bug beside an error of ours is still a bug: it must reach the log.
    return unexpected[0] if unexpected else leaves[0]


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
