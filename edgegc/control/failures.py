"""What was refused, counted in memory and written to the audit log as few rows. Trio thread only; knows no HTTP.

An attack must neither wear out the flash nor push the log's real entries out: alike failures are one row with their
number, and whoever comes from very many addresses at once shares one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.store import audit
from edgegc.store.audit import AUTHENTICATION_FAILED, REQUEST_FORBIDDEN

if TYPE_CHECKING:
    import sqlite3

    from edgegc.clock import Clock
    from edgegc.store.database import Database

__all__ = ["AUTHENTICATION_FAILED", "REQUEST_FORBIDDEN", "Failures"]

MAX_KINDS = 100
"""Rows that one flush can make, beside one for all others of each action."""

OTHERS = "others"
"""The source of what passes :data:`MAX_KINDS`."""


class _Kind(msgspec.Struct, frozen=True):
    actor: str
    action: str
    what: str
    source: str


class _Count:
    __slots__ = ("number", "request_id")

    def __init__(self) -> None:
        self.number = 0
        self.request_id = ""


class Failures:
    """Refused requests since the last flush, by who was refused what."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counts: dict[_Kind, _Count] = {}

    def note(self, *, actor: str, action: str, what: str, source: str, request_id: str) -> None:
        """Count a refusal. ``action`` is one of the two above, ``what`` is a sentence or a route of ours, never anything that the caller made up."""
        self._add(_Kind(actor, action, what, source), 1, request_id)

    async def flush(self) -> None:
        """Write what was counted, a row each with the last request's id. Unavailable: it stays to be written."""
        if not self._counts:
            return
        counts, self._counts = self._counts, {}
        now = self._clock.now()

        def job(connection: sqlite3.Connection) -> None:
            for kind, count in counts.items():
                audit.insert(
                    connection,
                    kind.what if count.number == 1 else f"{kind.what} ({count.number} times)",
                    at=now,
                    actor=kind.actor,
                    action=kind.action,
                    request_id=count.request_id,
                    source=kind.source,
                )

        try:
            await self._database.write(job)
        except BaseException:
            self._keep(counts)
            raise

    def _keep(self, counts: dict[_Kind, _Count]) -> None:
        newer, self._counts = self._counts, counts
        for kind, count in newer.items():
            self._add(kind, count.number, count.request_id)

    def _add(self, kind: _Kind, number: int, request_id: str) -> None:
        if kind not in self._counts and len(self._counts) >= MAX_KINDS:
            kind = _Kind("unknown", kind.action, "various reasons", OTHERS)
        count = self._counts.setdefault(kind, _Count())
        count.number += number
        count.request_id = request_id
