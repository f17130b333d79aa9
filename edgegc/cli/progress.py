"""How far something is: on stderr, only on a terminal, only for what takes longer than a second. Knows no command.

A bar where it is known how much there is to do, else a spinner with the time that has passed. A thread draws: what is
waited for may be a call that does not come back to us before it is done.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import ProgressColumn

    from edgegc.cli.options import Common

SHOWN_AFTER_S: Final = 1.0
"""What is done sooner needs none of this, and does not pay for importing it."""
DRAWN_EVERY_S: Final = 0.1

Unit = Literal["bytes", "nodes", "none"]


class _Extent(msgspec.Struct):
    """What is drawn; changed by who does the work, read by who draws. ``total``: None where nobody knows it."""

    done: int = 0
    total: int | None = None
    since: float = msgspec.field(default_factory=time.monotonic)

    @property
    def complete(self) -> bool:
        return self.total is not None and self.done >= self.total


@contextmanager
def bar(
    common: Common, what: str, total: int | None, *, then: str | None = None
) -> Iterator[Callable[[int], None]]:
    """Show how far something is; call what this gives with the bytes that were done since the last call.

    ``total`` in bytes; None where it is not known. ``then``: what goes on when all of them are done, for as long as it
    takes.
    """
    extent = _Extent(total=total)

    def advance(amount: int) -> None:
        extent.done += amount

    def draw(over: threading.Event) -> None:
        _draw(common, over, what, "bytes", extent)
        if then is not None and not over.is_set():
            _draw(common, over, then, "none", _Extent())

    with _beside(common, draw):
        yield advance


@contextmanager
def count(common: Common, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many nodes are done; call what this gives with their number and that of all."""
    extent = _Extent()

    def show(done: int, total: int) -> None:
        extent.done, extent.total = done, total

    with _beside(common, lambda over: _draw(common, over, what, "nodes", extent)):
        yield show


@contextmanager
def spinner(common: Common, what: str) -> Iterator[None]:
    """Show that something is under way, and since when, where nobody knows how far it is."""
    extent = _Extent()
    with _beside(common, lambda over: _draw(common, over, what, "none", extent)):
        yield


@contextmanager
def _beside(common: Common, draw: Callable[[threading.Event], None]) -> Iterator[None]:
    if common.quiet or common.json or not sys.stderr.isatty():
        yield
        return
    over = threading.Event()

    def wait_and_draw() -> None:
        if not over.wait(SHOWN_AFTER_S):
            draw(over)

    drawing = threading.Thread(target=wait_and_draw, daemon=True)
    drawing.start()
    try:
        yield
    finally:
        over.set()
        drawing.join()


def _draw(common: Common, over: threading.Event, what: str, unit: Unit, extent: _Extent) -> None:
    """Draw until it is over, or until all is done that can be counted."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        *_columns(unit),
        console=Console(stderr=True, no_color=common.no_color or None),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(what, total=extent.total, completed=extent.done)
        progress.tasks[0].start_time = extent.since
        while True:
            progress.update(task, completed=extent.done, total=extent.total, refresh=True)
            if extent.complete or over.wait(DRAWN_EVERY_S):
                return


def _columns(unit: Unit) -> tuple[ProgressColumn, ...]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    what = TextColumn("{task.description}", markup=False)
    match unit:
        case "bytes":
            return what, BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn()
        case "nodes":
            return what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        case "none":
            return SpinnerColumn(), what, TimeElapsedColumn()
