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
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import Progress, TaskID
    from rich.progress_bar import ProgressBar

    from edgegc.cli.options import Common
    from edgegc.perf.result import Case
    from edgegc.perf.run import Observer, Options
    from edgegc.perf.scenario import Scenario

DRAWN_PER_S: Final = 2.0
CALIBRATED_AFTER_S: Final = 20.0
"""Only then what was measured says more of this machine's pace than the scenarios' own word."""


class Pace:
    """How much of a run is over, by the scenarios' own estimates and by how well these have held so far."""

    def __init__(self, total_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._total_s = total_s
        self._now = now
        self._began_s = self._turn_s = now()
        self._done_s = 0.0
        self._estimate_s = 0.0
        self._pace = 1.0

    def begins(self, left_s: float, estimate_s: float) -> None:
        """Hear what is left, by the estimates, of which the next turn is a part."""
        self._turn_s = self._now()
        self._done_s = self._total_s - left_s
        self._estimate_s = estimate_s
        if self._done_s >= CALIBRATED_AFTER_S:
            # A slow device needs longer than the scenarios say; how much longer shows as it goes on.
            self._pace = (self._turn_s - self._began_s) / self._done_s

    @property
    def done_s(self) -> float:
        """How much is over, in seconds of the estimates. A turn that takes longer than estimated waits at its end."""
        return self._done_s + min((self._now() - self._turn_s) / max(self._pace, 1e-9), self._estimate_s)

    @property
    def left_s(self) -> float:
        """About how many seconds it will still take."""
        return max(0.0, self._total_s - self.done_s) * self._pace


class _Nobody:
    """Watches a run for nobody."""

    def begins(self, scenario: Scenario, repetition: int, left_s: float) -> None:
        """Say nothing."""

    def ends(self, cases: Sequence[Case]) -> None:
        """Say nothing."""


class _Watching:
    """Says what is being measured, and what went wrong."""

    def __init__(self, progress: Progress, task: TaskID, pace: Pace, options: Options) -> None:
        self._progress = progress
        self._task = task
        self._pace = pace
        self._options = options

    def begins(self, scenario: Scenario, repetition: int, left_s: float) -> None:
        """Draw where it is."""
        self._pace.begins(left_s, self._options.estimate_s(scenario))
        of = f" {repetition + 1}/{self._options.repeat}" if self._options.repeat > 1 else ""
        self._progress.update(self._task, description=f"{scenario.name}{of}")

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
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    total_s = options.repeat * sum(options.estimate_s(each) for each in options.scenarios)
    pace = Pace(total_s)

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"about {duration(pace.left_s)} left")

    class Moving(BarColumn):
        def render(self, task: Task) -> ProgressBar:
            task.completed = pace.done_s
            return super().render(task)

    with Progress(
        TextColumn("{task.description}", markup=False),
        Moving(),
        TimeElapsedColumn(),
        Left(),
        console=Console(stderr=True, no_color=common.no_color or None),
        transient=True,
        refresh_per_second=DRAWN_PER_S,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task("starting", total=total_s)
        yield _Watching(progress, task, pace, options)
