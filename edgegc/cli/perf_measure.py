"""Carries out what a command measures: shows how far it is, and leaves a report in a file, also when Ctrl-C comes at once.

Knows no flag and no scenario.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgegc.cli.options import Common
    from edgegc.perf.result import Report
    from edgegc.perf.run import Options


def carry_out(
    common: Common, options: Options, out: Path | None, *, prepare: Callable[[Options], Options] | None = None
) -> Report:
    """Measure, and return the report, which is in ``out``, too.

    ``prepare`` looks first whether that may be done, for seconds perhaps, and returns what was found out with the
    options. Raises what it raises, and Unavailable where nothing can be measured at all.
    """
    import trio

    from edgegc.cli.perf_progress import watching
    from edgegc.perf import document
    from edgegc.perf import run as running

    written: list[Report] = []

    def write(report: Report) -> None:
        written.append(report)
        if out is not None:
            document.write(out, report)

    try:
        if prepare is not None:
            options = prepare(options)
        with watching(common, options) as observer:
            return trio.run(lambda: running.run(options, observer=observer, write=write))
    except* KeyboardInterrupt:
        # A run takes notice of signals itself: this one came before it began, or when it had ended.
        if not written:
            write(running.unmeasured(options))
    return written[-1]
