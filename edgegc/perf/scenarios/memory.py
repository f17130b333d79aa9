"""A server's memory while something happens, read more often than once a second: for scenarios that are about memory.

Of a server whose process is not seen from here there is nothing to read.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from edgegc.perf import process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.perf.monitor import Watched

EVERY_S: Final = 0.2
"""A reading costs a millisecond or two."""


def private_bytes(of: Watched) -> int:
    """Return the private memory of a server and its children. Raises process.Gone."""
    return process.private_bytes(of.pids())


@asynccontextmanager
async def watched(
    of: Watched | None, *, every_s: float = EVERY_S
) -> AsyncIterator[list[tuple[float, float]]]:
    """Read the server's private memory for as long as the context lasts: (seconds since it began, bytes).

    The first reading is taken before the context is entered, the last one after it is left.
    """
    began = trio.current_time()
    readings: list[tuple[float, float]] = []
    if of is None:
        yield readings
        return
    seen = of

    def read() -> None:
        readings.append((trio.current_time() - began, float(private_bytes(seen))))

    async def watch() -> None:
        while True:
            await trio.sleep(every_s)
            read()

    read()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield readings
        nursery.cancel_scope.cancel()
    read()


def growth(readings: list[tuple[float, float]]) -> float:
    """Return by how much the highest reading is above the first one."""
    return max(value for _, value in readings) - readings[0][1]
