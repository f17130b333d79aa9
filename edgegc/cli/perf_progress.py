"""How far a run of the laboratory is, and how long it will still take: on stderr, only on a terminal. Knows no scenario.

Drawn twice a second by a thread of rich's: more would be seen in what is measured on a single core.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from edgegc.cli.output import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Progress, TaskID

    from edgegc.cli.options import Common
    from edgegc.perf.result import Case
    from edgegc.perf.run import Observer, Options
    from edgegc.perf.scenario import Scenario

DRAWN_PER_S: Final = 2.0
CALIBRATED_AFTER_S: Final = 20.0
"""Only then what was measured says more of this machine's pace than the scenarios' own word."""


class _Nobody:
    """Watches a run for nobody."""

    def begins(self, scenario: Scenario, repetition: int, left_s: float) -> None:
        """Say nothing."""

    def ends(self, cases: Sequence[Case]) -> None:
        """Say nothing."""


class _Bar:
    """Draws a bar: what is being measured, how much of the time is over, how much is left."""

    def __init__(self, progress: Progress, task: TaskID, total_s: float, repeat: int) -> None:
        self._progress = progress
        self._task = task
        self._total_s = total_s
        self._repeat = repeat
        self._began_s = time.monotonic()

    def begins(self, scenario: Scenario, repetition: int, left_s: float) -> None:
        """Draw where it is."""
        done_s = self._total_s - left_s
        passed_s = time.monotonic() - self._began_s
        # A slow device needs longer than the scenarios say; how much longer shows as it goes on.
        pace = passed_s / done_s if done_s >= CALIBRATED_AFTER_S else 1.0
        of = f" {repetition + 1}/{self._repeat}" if self._repeat > 1 else ""
        self._progress.update(
            self._task,
            completed=done_s,
            description=f"{scenario.name}{of}",
            left=duration(left_s * pace),
        )

    def ends(self, cases: Sequence[Case]) -> None:
        """Write a line about each case that is not well."""
        for case in cases:
            if case.status != "ok":
                self._progress.console.print(
                    f"{case.name}: {case.status}: {'; '.join(case.reasons)}", markup=False, highlight=False
                )


@contextmanager
def watching(common: Common, options: Options) -> Iterator[Observer]:
    """Show how far a run is, for as long as the context lasts."""
    if common.quiet or common.json or not sys.stderr.isatty():
        yield _Nobody()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    total_s = options.repeat * sum(options.estimate_s(each) for each in options.scenarios)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("about {task.fields[left]} left"),
        console=Console(stderr=True, no_color=common.no_color or None),
        transient=True,
        refresh_per_second=DRAWN_PER_S,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task("starting", total=total_s, left=duration(total_s))
        yield _Bar(progress, task, total_s, options.repeat)
