"""Warnings before anything expires: authorities, certificates that were not renewed, nodes that do not fetch theirs.

Renewal needs nobody; what is said here is what it can't mend. Knows not how anything is renewed.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from edgegc.store import expiry

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control

logger = logging.getLogger(__name__)

AUTHORITY_WARNING_S = 180 * 86_400
"""A rotation waits for the last node that is away, and certificates of the default length get shorter from here on."""

AGAIN_S = 86_400.0
"""A warning that stays true is repeated once a day."""


class Said:
    """Which warnings were logged, and when, on trio's clock: each of them once a day."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def news(self, sentences: list[str]) -> list[str]:
        """Return those that are to be logged now; those that are not true any more are forgotten."""
        now = trio.current_time()
        found = [each for each in sentences if now - self._at.get(each, -AGAIN_S) >= AGAIN_S]
        self._at = {each: now if each in found else self._at[each] for each in sentences}
        return found


async def warn(control: Control, said: Said) -> None:
    """Log what is about to expire, and say it on the health board."""
    now = control.clock.now()
    sentences = await control.database.read(lambda connection: warnings(connection, now))
    for sentence in said.news(sentences):
        logger.warning("%s", sentence)
    if not sentences:
        control.health.set("certificates")
        return
    more = f" (and {len(sentences) - 1} more, see the log)" if len(sentences) > 1 else ""
    control.health.set("certificates", sentences[0] + more)


def warnings(connection: sqlite3.Connection, now: int) -> list[str]:
    """Return a sentence for each thing that is about to expire, or has, the worst first."""
    return [
        *(
            f"the CA of the cluster {each.cluster!r} {_ends(each.not_after, now)}: replace it with"
            f" 'edgegc cluster rotate-ca {each.cluster} --step prepare'"
            for each in expiry.authorities(connection, before=now + AUTHORITY_WARNING_S)
        ),
        *(
            f"the certificate of {_whose(each)} {_ends(each.not_after, now)} and could not be renewed:"
            " see the check 'clock' and the log"
            for each in expiry.overdue(connection, now)
        ),
        *(
            f"{_whose(each)} has not fetched its renewed certificate; the one it runs {_ends(each.not_after, now)}:"
            " see 'edgegc node show' and the agent's log there"
            for each in expiry.unfetched(connection, now)
        ),
    ]


def _whose(each: expiry.Ending) -> str:
    if each.node is None:
        return f"the box's own lighthouse of the cluster {each.cluster!r}"
    return f"the node {each.node!r} of the cluster {each.cluster!r}"


def _ends(at: int, now: int) -> str:
    verb = "ends" if at >= now else "ended"
    return f"{verb} at {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
