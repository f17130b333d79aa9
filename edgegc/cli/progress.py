"""Progress bars: on stderr, only on a terminal, only for what takes longer than a second. Knows no command."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgegc.cli.options import Common

SHOWN_AFTER_S: Final = 1.0
"""What is done sooner needs no bar, and does not pay for importing one."""


@contextmanager
def bar(common: Common, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far something is; call what this gives with the bytes that were done since the last call.

    ``total`` in bytes; None where it is not known.
    """
    if common.quiet or common.json or not sys.stderr.isatty():
        yield lambda _: None
        return
    shown = _Bar(what, total, plain=common.no_color)
    try:
        yield shown.advance
    finally:
        shown.close()


class _Bar:
    def __init__(self, what: str, total: int | None, *, plain: bool) -> None:
        self._what = what
        self._total = total
        self._plain = plain
        self._done = 0
        self._started = time.monotonic()
        self._close: Callable[[], None] | None = None
        self._show: Callable[[int], None] = self._perhaps_open

    def advance(self, amount: int) -> None:
        self._done += amount
        self._show(self._done)

    def close(self) -> None:
        if self._close is not None:
            self._close()

    def _perhaps_open(self, done: int) -> None:
        if time.monotonic() - self._started < SHOWN_AFTER_S:
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=Console(stderr=True, no_color=self._plain or None),
            transient=True,
        )
        task = progress.add_task(self._what, total=self._total, completed=done)
        progress.start()
        self._show = lambda done: progress.update(task, completed=done)
        self._close = progress.stop
