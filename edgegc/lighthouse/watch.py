"""Wakes the supervisor when files of lighthouses change: inotify, or its polling twin. Knows no contents."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import trio

from edgegc.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_S = 2.0
"""Of the polling twin: a handful of directories, each a few microseconds."""

_log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Says that something changed in one of the directories, not what."""

    def add(self, directory: Path) -> None:
        """Watch one more directory; once more is harmless. Raises OSError."""

    async def changed(self) -> None:
        """Wait until something has changed since the last return, and things are quiet again (at most 2 s)."""


class Polling:
    """The twin where inotify does not exist or its instances are used up: compares listings."""

    def __init__(self, *, interval_s: float = POLL_S) -> None:
        self._interval_s = interval_s
        self._seen: dict[Path, frozenset[tuple[str, int, int]]] = {}

    def add(self, directory: Path) -> None:
        """Watch one more directory."""
        if directory not in self._seen:
            self._seen[directory] = _listing(directory)

    async def changed(self) -> None:
        """Wait until a listing differs."""
        while True:
            await trio.sleep(self._interval_s)
            now = {directory: _listing(directory) for directory in self._seen}
            if now != self._seen:
                self._seen = now
                return


@contextmanager
def open_watcher() -> Iterator[Watcher]:
    """Return the best watcher that this machine offers."""
    watch = Watch()
    try:
        watch.__enter__()
    except OSError as error:
        _log.warning("files of lighthouses are polled, since inotify can't be used: %s", error.strerror)
        yield Polling()
        return
    try:
        yield watch
    finally:
        watch.__exit__(None, None, None)


def _listing(directory: Path) -> frozenset[tuple[str, int, int]]:
    try:
        with os.scandir(directory) as entries:
            # Not the log, which grows all the time.
            return frozenset(
                (entry.name, status.st_mtime_ns, status.st_ino)
                for entry in entries
                if not entry.name.endswith(".log")
                for status in (entry.stat(follow_symlinks=False),)
            )
    except OSError:
        return frozenset()
