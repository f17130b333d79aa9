"""When API tokens were last used, in memory; written to the store when told. Knows no token's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.store import api_tokens

if TYPE_CHECKING:
    from edgegc.store.database import Database


class TokenUses:
    """When tokens were last used, in memory until it is flushed with the nodes' reports."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: dict[str, int] = {}
        self._unwritten: set[str] = set()

    def note(self, token_id: str, at: int) -> None:
        """Note that a token is used now."""
        self._used[token_id] = at
        self._unwritten.add(token_id)

    def last_used(self, token_id: str) -> int | None:
        """Return when a token was last used since the start, or None."""
        return self._used.get(token_id)

    def forget(self, token_id: str) -> None:
        """Forget a token that is gone."""
        self._used.pop(token_id, None)
        self._unwritten.discard(token_id)

    async def flush(self) -> None:
        """Write what is not written yet. Unavailable: it stays to be written."""
        if not self._unwritten:
            return
        used = [(token_id, self._used[token_id]) for token_id in self._unwritten]
        self._unwritten.clear()
        try:
            await self._database.write(lambda connection: api_tokens.set_last_used(connection, used))
        except BaseException:
            self._unwritten.update(token_id for token_id, _ in used if token_id in self._used)
            raise
