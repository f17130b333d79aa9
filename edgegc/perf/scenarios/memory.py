"""A server's memory while something happens, read more often than once a second: for scenarios that are about memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from edgegc.perf import process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.perf.server import Server

EVERY_S: Final = 0.2
"""A reading costs a millisecond or two."""


def private_bytes(server: Server) -> int:
    """Return the private memory of a server and its children. Raises process.Gone."""
    return process.usage(server.pids()).private_bytes


@asynccontextmanager
async def watched(server: Server, *, every_s: float = EVERY_S) -> AsyncIterator[list[tuple[float, float]]]:
    """Read the server's private memory for as long as the context lasts: (seconds since it began, bytes)."""
    began = trio.current_time()
    readings: list[tuple[float, float]] = []

    def read() -> None:
        readings.append((trio.current_time() - began, float(private_bytes(server))))

    async def watch() -> None:
        while True:
            read()
            await trio.sleep(every_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield readings
        nursery.cancel_scope.cancel()
    read()


def peak(readings: list[tuple[float, float]]) -> float:
    """Return the highest reading."""
    return max(value for _, value in readings)
