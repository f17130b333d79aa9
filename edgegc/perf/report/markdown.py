"""A report as Markdown tables, for ``perf/REPORT.md``, an issue or a chat. Knows no statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.perf import units
from edgegc.perf.report import text
from edgegc.perf.report.layout import plain
from edgegc.perf.report.summary import Summary, of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgegc.perf.result import Report

LOAD_TITLES = ("case", "load", "per s", "mean", "p50", "p90", "p95", "p99", "p99.9", "max", "errors")
COST_TITLES = (
    "case",
    "CPU/request",
    "CPU",
    "RSS",
    "PSS",
    "private",
    "fds",
    "written",
    "database",
    "WAL",
    "throttled",
)


def render(report: Report) -> str:
    """Return the report as Markdown; sections are of the third level, so that it fits into a document."""
    return "\n".join(_lines(report)) + "\n"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right_from: int = 1) -> Iterator[str]:
    """Iterate over the lines of a table whose columns from ``right_from`` on hold numbers."""
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "|".join(" --- " if i < right_from else " ---: " for i in range(len(titles))) + "|"
    for row in rows:
        yield "| " + " | ".join(_escaped(cell) for cell in row) + " |"


def _lines(report: Report) -> Iterator[str]:
    for line in (text.versions(report), text.machine(report), text.device(report), text.made(report)):
        if line:
            yield f"- {_escaped(line)}"
    yield ""
    if report.partial:
        yield from ("> This run was interrupted: what is missing was not measured.", "")
    for warning in report.warnings:
        yield from (f"> {_escaped(plain(warning))}", "")
    for kind, heading in text.HEADINGS.items():
        some = [v for v in report.verdicts if v.kind == kind]
        if some:
            yield from (f"### {heading}", "")
            yield from table(
                ("", "threshold", "found"),
                ((text.MARKS[v.held][0], v.name, v.found) for v in some),
                right_from=2,
            )
            yield ""
    for heading, cases in (
        ("References, measured in the same run", report.references),
        ("Cases", report.cases),
    ):
        if cases:
            yield from (f"### {heading}", "")
            yield from _cases([of(case) for case in cases])


def _cases(summaries: Sequence[Summary]) -> Iterator[str]:
    shown = [s for s in summaries if s.repetitions and s.status in ("ok", "invalid")]
    loads = [s for s in shown if s.samples or s.requests]
    if loads:
        yield from table(LOAD_TITLES, map(_load, loads), right_from=2)
        yield ""
    with_figures = [s for s in shown if s.figures]
    if with_figures:
        yield from table(
            ("case", "figure", "value", "note"),
            (
                (s.name if first else "", name, value, note)
                for s in with_figures
                for first, (name, value, note) in zip(
                    (True, *[False] * len(s.figures)), text.figures(s), strict=False
                )
            ),
            right_from=4,
        )
        yield ""
    watched = [s for s in shown if s.rss_bytes is not None or s.cpu_s is not None]
    if watched:
        yield from table(COST_TITLES, map(_costs, watched))
        yield ""
    for summary in summaries:
        told = [*summary.reasons, *([f"errors: {text.errors(summary)}"] if summary.errors else [])]
        if summary.status != "ok" or told:
            yield f"- **{summary.name}** {text.BROKEN.get(summary.status, '')} {_escaped(plain('; '.join(told)))}".rstrip()
    yield ""


def _load(s: Summary) -> tuple[str, ...]:
    p = [s.mean_ns, *s.percentiles_ns.values(), s.max_ns]
    return (
        s.name,
        "INVALID" if s.status == "invalid" else text.load(s),
        "-" if s.throughput is None else units.significant(s.throughput),
        *(units.of_ns(value) if s.samples else "-" for value in p),
        f"{s.failed:,}",
    )


def _costs(s: Summary) -> tuple[str, ...]:
    return (
        s.name,
        "-" if s.cpu_per_request_s is None else units.duration(s.cpu_per_request_s),
        "-" if s.cpu_share is None else units.percent(s.cpu_share),
        *(
            "-" if value is None else units.size(value)
            for value in (s.rss_bytes, s.pss_bytes, s.private_bytes)
        ),
        "-" if s.fds is None else str(s.fds),
        *(
            "-" if value is None else units.size(value)
            for value in (s.written_bytes, s.database_bytes, s.wal_bytes)
        ),
        units.duration(s.throttled_s) if s.throttled_s else "-",
    )


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
