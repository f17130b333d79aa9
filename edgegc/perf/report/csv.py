"""A report as comma-separated values, a line for each case, in base units: for spreadsheets and scripts. Knows no statistics.

Figures have their own columns, ``figure:NAME (UNIT)``. What can't be told is empty.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from edgegc.perf.report.summary import PERCENTS, Summary, of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.result import Report


def render(report: Report) -> str:
    """Return the report as CSV with a heading (RFC 4180, but lines end as here)."""
    summaries = [of(case) for case in (*report.references, *report.cases)]
    names = dict.fromkeys(
        f"figure:{name} ({figure.unit})" for s in summaries for name, figure in s.figures.items()
    )
    rows = [dict(_fields(summary)) for summary in summaries]
    fixed = list(dict.fromkeys(name for row in rows for name in row if not name.startswith("figure:")))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*fixed, *names], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _fields(summary: Summary) -> Iterator[tuple[str, object]]:
    yield "case", _safe(summary.name)
    yield "status", summary.status
    yield "model", summary.model
    yield "in_process", int(summary.in_process)
    yield "repetitions", summary.repetitions
    yield "duration_s", round(summary.duration_s, 6)
    yield "requests", summary.requests
    yield "errors", summary.failed
    yield "errors_by_kind", _safe("; ".join(f"{count} {kind}" for kind, count in summary.errors.items()))
    yield "throughput_per_s", summary.throughput
    yield "samples", summary.samples
    yield "mean_s", _seconds(summary.mean_ns)
    for percent in PERCENTS:
        yield f"p{percent:g}_s", _seconds(summary.percentiles_ns[percent])
    yield "max_s", _seconds(summary.max_ns)
    yield "generator_lag_p99_s", _seconds(summary.lag_p99_ns)
    for name in (
        "cpu_s", "cpu_per_request_s", "rss_bytes", "pss_bytes", "private_bytes", "fds", "context_switches",
        "written_bytes", "database_bytes", "wal_bytes", "throttled_s",
    ):  # fmt: skip
        yield name, getattr(summary, name)
    yield "reasons", _safe("; ".join(summary.reasons))
    for name, figure in summary.figures.items():
        yield f"figure:{name} ({figure.unit})", figure.value


def _seconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _safe(text: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
