"""The heaps of the C library: few for all threads, and what is free in them is the system's again. Knows only glibc's.

SQLite, OpenSSL and all of Python's larger objects come from there. Elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

import trio

M_ARENA_MAX: Final = -8
"""glibc's number for :func:`mallopt`."""
HEAPS: Final = 2
"""glibc gives every thread a heap of its own, up to eight per core, each with what it once needed. With two, 20 uploads
and 50 downloads of 10 MiB take 35 MiB instead of 55."""
EVERY_S: Final = 60.0


def share() -> None:
    """Let all threads allocate from few heaps."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)


def trim() -> None:
    """Give the system what is free, in whole pages: glibc by itself does so at a heap's end alone (malloc_trim(3)).

    Without that, one page after the other is touched until all that was ever reserved at a time is resident.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


async def run() -> None:
    """Trim every minute, for ever: in a thread, for it looks at all that is free. Cancellation ends it, after a trim."""
    while True:
        await trio.sleep(EVERY_S)
        await trio.to_thread.run_sync(trim)
