"""Pieces of uploaded bodies: one load for many askers, in bounded memory however many download. Knows not who asks."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import NotFound
from edgegc.store import bundles

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    from edgegc.store.database import Database

PIECE_BYTES: Final = 262_144
"""What a download holds at a time. SQLite walks to a place in a BLOB page by page, so smaller pieces cost more reads:
a body of 10 MiB takes 40, which together pass 50,000 pages (100 ms; with pieces of 64 KiB 380)."""
CACHE_BYTES: Final = 12 * 1024 * 1024
"""The largest body there is, and some of another one."""


class Parts:
    """Some bytes of a body, a part at a time. No generator: one that is left in the middle would have to be closed."""

    def __init__(self, load: Callable[[int], Awaitable[bytes]], begin: int, end: int) -> None:
        self._load = load
        self._begin = begin
        self._end = end

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        if self._begin >= self._end:
            raise StopAsyncIteration
        number, offset = divmod(self._begin, PIECE_BYTES)
        piece = await self._load(number)
        stop = min(len(piece), offset + self._end - self._begin)
        if stop <= offset:
            raise NotFound("the bundle is shorter than it should be")
        self._begin += stop - offset
        return piece if (offset, stop) == (0, len(piece)) else piece[offset:stop]


class Bodies:
    """Pieces of uploaded bodies by digest and number, least recently used out first."""

    def __init__(self, database: Database, *, capacity_bytes: int = CACHE_BYTES) -> None:
        self._database = database
        self._capacity = capacity_bytes
        self._pieces: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._loading: dict[tuple[str, int], trio.Event] = {}
        self.loaded = 0
        """How many pieces were read since the start."""

    @property
    def size_bytes(self) -> int:
        """How much the cache holds."""
        return self._bytes

    def parts(self, body_id: int, digest: str, begin: int, end: int) -> Parts:
        """Return the bytes ``[begin, end)`` of a body, to be iterated over. NotFound when it is deleted meanwhile."""
        return Parts(functools.partial(self._piece, body_id, digest), begin, end)

    async def _piece(self, body_id: int, digest: str, number: int) -> bytes:
        """Return a piece; whoever asks while it is loaded waits for that. A failed load is taken over by one who waits."""
        key = (digest, number)
        while True:
            piece = self._pieces.get(key)
            if piece is not None:
                self._pieces.move_to_end(key)
                return piece
            loading = self._loading.get(key)
            if loading is None:
                break
            await loading.wait()
        done = self._loading[key] = trio.Event()
        try:
            piece = await self._load(body_id, digest, number)
        finally:
            del self._loading[key]
            done.set()
        self._pieces[key] = piece
        self._bytes += len(piece)
        while self._bytes > self._capacity:
            _, oldest = self._pieces.popitem(last=False)
            self._bytes -= len(oldest)
        return piece

    async def _load(self, body_id: int, digest: str, number: int) -> bytes:
        def job(connection: sqlite3.Connection) -> bytes | None:
            return bundles.read_piece(
                connection, body_id, digest=digest, offset=number * PIECE_BYTES, size=PIECE_BYTES
            )

        piece = await self._database.read(job)
        if piece is None:
            raise NotFound("the bundle was deleted")
        self.loaded += 1
        return piece
