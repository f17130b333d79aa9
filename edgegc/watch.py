"""Says when files in directories have changed: inotify through Trio, no thread, no polling. Knows no contents.

What changed is not told, on purpose: whoever is woken compares what is there with what it has. So nothing is
lost when the kernel's queue overflows, and a burst of changes is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from inotify_simple import INotify, flags

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

SETTLE_S: Final = 0.2
"""A change is told when nothing has changed for this long: an editor writes twice, a person copies two files."""
AT_MOST_S: Final = 2.0
"""Then it is told although things still change."""

_COMPLETE = (
    flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.CREATE | flags.ONLYDIR
)
"""Not MODIFY: files are looked at when they are complete. CREATE is for links and directories."""


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
