"""The C library's heaps, which are this very process's."""

from __future__ import annotations

import ctypes
from pathlib import Path

from edgegc import heaps

BLOCK = 2048
BLOCKS = 16_384
"""32 MiB: no other test's garbage comes near."""


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def test_what_is_free_below_something_that_is_not_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    try:
        # glibc gives back what is free at the end by itself: that end stays in use.
        while len(blocks) > 1:
            libc.free(blocks.pop(0))
        before = resident()
        heaps.trim()
        assert before - resident() > BLOCK * BLOCKS * 3 // 4
    finally:
        for block in blocks:
            libc.free(block)
