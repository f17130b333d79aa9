"""What the kernel's page cache holds of files, and how it is made to forget them. Knows not whose files they are."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import TYPE_CHECKING

import msgspec

from edgegc.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


class Held(msgspec.Struct, frozen=True):
    """How many bytes files have, and how many of them are in memory, in whole pages."""

    total_bytes: int
    resident_bytes: int

    @property
    def resident_percent(self) -> float:
        """How much of the files is in memory."""
        return 100 * self.resident_bytes / self.total_bytes if self.total_bytes else 0.0


def drop(paths: Iterable[Path]) -> Held:
    """Let the kernel forget what it holds of files, and return what it holds of them still.

    What is dirty is written first. Pages that a process has mapped stay (the interpreter's own, as long as anybody runs
    it), as does everything on a file system that lives in memory. Files that are gone or can't be read are passed over.
    """
    total = resident = 0
    for path in paths:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                # Only a file that was written since can hold something dirty; for others this costs nothing.
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                found = _held(descriptor)
            finally:
                os.close(descriptor)
            total += found.total_bytes
            resident += found.resident_bytes
    return Held(total, resident)


def loaded(paths: Iterable[Path]) -> list[Path]:
    """Return those of some files of which anything is in memory. Files that are gone or can't be read are passed over."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            if held(path).resident_bytes:
                found.append(path)
    return found


def held(path: Path) -> Held:
    """Return how much of a file is in memory. Raises OSError, and Unavailable where the kernel does not tell."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _held(descriptor)
    finally:
        os.close(descriptor)


def _held(descriptor: int) -> Held:
    size = os.fstat(descriptor).st_size
    if not size:
        return Held(0, 0)
    pages = -(-size // mmap.PAGESIZE)
    # A private mapping, of which nothing is touched: mincore(2) then tells of the file's own pages.
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY) as mapped:
        begin = ctypes.c_char.from_buffer(mapped)
        try:
            present = (ctypes.c_ubyte * pages)()
            if _libc.mincore(ctypes.c_void_p(ctypes.addressof(begin)), ctypes.c_size_t(size), present) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise Unavailable(f"the kernel does not tell what its page cache holds: {reason}")
        finally:
            del begin  # or the mapping could not be closed
    return Held(size, min(size, sum(page & 1 for page in present) * mmap.PAGESIZE))
