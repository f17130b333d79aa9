"""A timer of the kernel that wakes a task when it is due, to some ten microseconds. Knows not what for.

Trio's own timeouts are whole milliseconds (``epoll_wait``): as much as what is measured takes.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCK_MONOTONIC: Final = 1
TFD_TIMER_ABSTIME: Final = 1
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_NANO: Final = 1_000_000_000

# Python has os.timerfd_create from 3.13 on.
_libc = ctypes.CDLL(None, use_errno=True)


class _Specification(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Timer:
    """Made by :func:`opened`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def until(self, due_ns: int) -> None:
        """Return at ``due_ns`` of :func:`time.monotonic_ns`, at once where that has passed. Cancellable; always a checkpoint."""
        if due_ns <= time.monotonic_ns():
            await trio.lowlevel.checkpoint()
            return
        wanted = _Specification(0, 0, due_ns // _NANO, due_ns % _NANO)
        if _libc.timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, ctypes.byref(wanted), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await trio.lowlevel.wait_readable(self._descriptor)
        os.read(self._descriptor, 8)


@contextmanager
def opened() -> Iterator[Timer]:
    """Hold a timer."""
    descriptor = _libc.timerfd_create(CLOCK_MONOTONIC, _FLAGS)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    try:
        yield Timer(descriptor)
    finally:
        os.close(descriptor)
