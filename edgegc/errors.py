"""The one error family: a machine code, and a sentence for a person. Knows no HTTP and no exit codes.

``api/`` maps a code to an HTTP status, ``cli/`` to an exit code. What is not an :class:`Error` is a bug:
"internal error" to the outside, a traceback in the log.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Code = Literal[
    "invalid_request",
    "unauthorized",
    "forbidden",
    "not_found",
    "method_not_allowed",
    "conflict",
    "payload_too_large",
    "unsupported_media_type",
    "rate_limited",
    "unavailable",
    "internal",
]


class Error(Exception):
    """Something a caller can act on.

    ``message`` is one sentence that names the field and the limit that was broken; it never holds a secret.
    ``retry_after_s`` (whole seconds) is set where trying again later can help.
    """

    code: ClassVar[Code] = "internal"

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class Invalid(Error):
    """The request itself is wrong; the same request will never succeed."""

    code = "invalid_request"


class Unauthorized(Error):
    """Who is asking could not be established. The outside learns nothing more; ``message`` is for the log.

    ``presented``: a credential was shown, and was not good. Who shows none has tried nothing.
    """

    code = "unauthorized"

    def __init__(self, message: str, *, retry_after_s: int | None = None, presented: bool = True) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.presented = presented


class Forbidden(Error):
    """Who is asking is known, and may not."""

    code = "forbidden"


class NotFound(Error):
    """No such thing, or none that the caller may know of."""

    code = "not_found"


class Conflict(Error):
    """The request is right in itself, but not in the present state.

    ``unless``: the field of the request that, when true, has it done all the same. ``message`` says what that would do,
    and leaves the name to whoever shows it: a command calls it a flag.
    """

    code = "conflict"

    def __init__(self, message: str, *, retry_after_s: int | None = None, unless: str | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.unless = unless


class TooLarge(Error):
    """A body or value passes its limit."""

    code = "payload_too_large"


class UnsupportedMedia(Error):
    """The body is not of a kind that is understood."""

    code = "unsupported_media_type"


class TooMany(Error):
    """A rate limit was passed; ``retry_after_s`` says when to come back."""

    code = "rate_limited"


class Unavailable(Error):
    """Not now: the store is full, busy or stopping, or the clock is wrong. Nothing was changed."""

    code = "unavailable"
