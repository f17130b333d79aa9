"""The copies of the database that this box keeps: makes one at a time, remembers their digests, lets old ones go."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from edgegc.errors import NotFound, Unavailable
from edgegc.model.message import BackupView, rfc3339
from edgegc.store import backups, room

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.store.backups import Copy
    from edgegc.store.database import Database

logger = logging.getLogger(__name__)


class KeptBackups:
    """``<data>/backups``. ``keep``: how many copies of each kind stay."""

    def __init__(self, database: Database, directory: Path, *, keep: int) -> None:
        self._database = database
        self._directory = directory
        self._keep = keep
        self.turn = trio.Lock()
        """Whoever makes a copy, and says so, holds it meanwhile."""
        # By name, size and time: reading a copy through once is enough, unless it was replaced.
        self._digests: dict[tuple[str, int, int], str] = {}

    async def make(self, *, now: int) -> BackupView:
        """Copy the database as of now, and let the oldest copy go, in one's turn. Unavailable without room for it.

        Cancellation stops it, and leaves nothing.
        """
        stats = self._database.stats()
        size = stats.database_bytes + stats.wal_bytes
        path = await trio.to_thread.run_sync(self._prepare, size, now)
        await self._database.backup(path)
        (made,) = [copy for copy in await self._all() if copy.path == path]
        view = await self._view(made)
        await self._prune()
        return view

    async def newest_first(self) -> tuple[BackupView, ...]:
        """Return the copies there are."""
        return tuple([await self._view(copy) for copy in await self._all()])

    async def newest_at(self) -> int | None:
        """Return when the newest copy was made, in Unix seconds; None while there is none. Reads no copy."""
        return next((copy.created_at for copy in await self._all()), None)

    async def find(self, name: str) -> Copy:
        """Return a copy by its name; NotFound."""
        for copy in await self._all() if backups.is_name(name) else ():
            if copy.name == name:
                return copy
        raise NotFound("no such backup")

    async def prune(self) -> None:
        """Let go what is beyond the number to keep."""
        async with self.turn:
            await self._prune()

    async def _prune(self) -> None:
        gone = await trio.to_thread.run_sync(lambda: backups.prune(self._directory, keep=self._keep))
        if gone:
            self._digests = {key: digest for key, digest in self._digests.items() if key[0] not in gone}
            logger.info("removed backups beyond backup.keep = %d: %s", self._keep, ", ".join(gone))

    async def _all(self) -> list[Copy]:
        return await trio.to_thread.run_sync(backups.all_, self._directory)

    async def _view(self, copy: Copy) -> BackupView:
        key = (copy.name, copy.size, copy.written_ns)
        digest = self._digests.get(key)
        if digest is None:
            try:
                digest = await trio.to_thread.run_sync(backups.sha256, copy.path)
            except OSError as error:
                raise Unavailable(f"the backup {copy.path} can't be read: {error.strerror}") from error
            self._digests[key] = digest
        return BackupView(name=copy.name, size=copy.size, sha256=digest, created_at=rfc3339(copy.created_at))

    def _prepare(self, size: int, now: int) -> Path:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            room.require(self._directory, size, what="a backup")
        except OSError as error:
            raise Unavailable(f"{self._directory} can't be used: {error.strerror}") from error
        return backups.new_path(self._directory, now=now)
