"""What a version check asks and what it is told: the rules that its route and the lane share. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgegc.api import ranges

if TYPE_CHECKING:
    from edgegc.control.held_polls import Answer

PATH: Final = "/api/v1/config/version"
MAX_VERSION: Final = 2**53
"""More than any version, less than what a JSON reader or SQLite gets wrong."""


def awaited(current: int | None, if_none_match: str | None) -> int | None:
    """Return the version that an answer is held for as long as it stays: ``current``, else what ``If-None-Match`` names."""
    if current is not None:
        return current
    for tag in ranges.tags(if_none_match):
        if tag.isascii() and tag.isdecimal() and len(tag) <= ranges.MAX_DIGITS:
            return int(tag)
    return None


def unchanged(version: int, current: int | None, if_none_match: str | None) -> bool:
    """Whether the answer is 304. ``current`` wins: who says that it has another version gets this one, whatever its
    ``If-None-Match`` says.
    """
    return (
        if_none_match is not None
        and current in (None, version)
        and ranges.none_match(if_none_match, str(version))
    )


def headers(answer: Answer) -> dict[str, str]:
    """Return the headers of a 200 or a 304."""
    sent = {"etag": f'"{answer.version}"', "cache-control": "no-store"}
    if answer.spread_s is not None:
        sent["edgegc-spread"] = str(answer.spread_s)
    if answer.interval_s is not None:
        sent["edgegc-interval"] = str(answer.interval_s)
    return sent
