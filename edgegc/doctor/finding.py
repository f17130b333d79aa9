"""What a check finds: a state, what was seen, what to do about it. Knows no check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from edgegc import errors

if TYPE_CHECKING:
    from collections.abc import Callable

State = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True, kw_only=True):
    """The answer to one question. ``remedy``: what to do; None where it is ok."""

    check: str
    state: State
    detail: str
    remedy: str | None = None


def ok(check: str, detail: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, state="ok", detail=detail)


def warn(check: str, detail: str, remedy: str) -> Finding:
    """It works, and will not always, or not as well as it could."""
    return Finding(check=check, state="warn", detail=detail, remedy=remedy)


def fail(check: str, detail: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check=check, state="fail", detail=detail, remedy=remedy)


def of_error(check: str, error: errors.Error | OSError) -> Finding:
    """Return the finding for an error whose sentence says what is wrong and, after a colon, what to do."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return fail(check, f"{where}{error.strerror or error}", "run it as root, or as who runs edgegc")
    detail, _, remedy = error.message.partition(": ")
    return fail(check, detail, remedy or "'edgegc --help' and the README say more")


def guarded(check: str, examine: Callable[[], Finding]) -> Finding:
    """Run a check; one that can't be made is a finding as well."""
    try:
        return examine()
    except (errors.Error, OSError) as error:
        return of_error(check, error)
