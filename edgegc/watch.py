"""Says when files in directories have changed: inotify through Trio, or its polling twin. Knows no contents.

What changed is not told, on purpose: whoever is woken compares what is there with what it has. So nothing is
lost when the kernel's queue overflows, and a burst of changes is one.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import trio
from inotify_simple import INotify, flags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

SETTLE_S: Final = 0.2
"""A change is told when nothing has changed for this long: an editor writes twice, a person copies two files."""
AT_MOST_S: Final = 2.0
"""Then it is told although things still change."""

POLL_S: Final = 2.0
"""Of the polling twin: a handful of directories, each a few microseconds."""

_log = logging.getLogger(__name__)
_COMPLETE = (
    flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.CREATE | flags.ONLYDIR
)
"""Not MODIFY: files are looked at when they are complete. CREATE is for links and directories."""


class Watcher(Protocol):
    """Says that something changed in one of the directories, not what."""

    def add(self, directory: Path) -> None:
        """Watch one more directory; once more is harmless. Raises OSError."""

    async def changed(self) -> None:
        """Wait until something has changed since the last return, and things are quiet again (at most 2 s)."""


class Watch:
    """A watch on directories (not on what is below them). A context manager; cancelling :meth:`changed` loses nothing."""

    def __init__(self, *, settle_s: float = SETTLE_S, at_most_s: float = AT_MOST_S) -> None:
        self._settle_s = settle_s
        self._at_most_s = at_most_s
        self._inotify: INotify | None = None

    def __enter__(self) -> Watch:
        self._inotify = INotify()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inotify is not None:
            trio.lowlevel.notify_closing(self._inotify)
            self._inotify.close()
            self._inotify = None

    def add(self, directory: Path) -> None:
        """Watch one more directory; adding one twice is harmless, and one that is removed is forgotten. Raises OSError."""
        assert self._inotify is not None, "not entered"
        self._inotify.add_watch(directory, _COMPLETE)

    async def changed(self) -> None:
        """Wait until something has changed since the last return, and then until things are quiet."""
        assert self._inotify is not None, "not entered"
        await trio.lowlevel.wait_readable(self._inotify)
        with trio.move_on_after(self._at_most_s):
            while self._inotify.read(timeout=0):
                with trio.move_on_after(self._settle_s):
                    await trio.lowlevel.wait_readable(self._inotify)
        self._inotify.read(timeout=0)


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
def open_watcher(*directories: Path) -> Iterator[Watcher]:
    """Return the best watcher that this machine offers, on these directories and those that are added later."""
    with ExitStack() as stack:
        watcher: Watcher
        try:
            watcher = stack.enter_context(Watch())
            for directory in directories:
                watcher.add(directory)
        except OSError as error:
            _log.warning("files are polled, since inotify can't be used: %s", error.strerror)
            watcher = Polling()
            for directory in directories:
                watcher.add(directory)
        yield watcher


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
