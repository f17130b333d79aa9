"""A report as plain text: thresholds first, then a row for each case. Knows no terminal: whoever prints says what it can.

Sparklines and colours are for terminals; without them every line can be cut, sorted and searched.
"""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgegc.perf import units
from edgegc.perf.report.layout import GAP, clipped, columns, plain, sparkline, styled
from edgegc.perf.report.summary import Summary, of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgegc.perf.result import Report, Verdict

MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}
HEADINGS = {"floor": "Floors: what must hold", "goal": "Goals: what we are out for"}
TITLES = ("CASE", "LOAD", "PER S", "MEAN", "P50", "P99", "P99.9", "MAX", "ERRORS", "CPU/REQ", "MEMORY")
RIGHT = frozenset(range(2, len(TITLES)))
DISPENSABLE = ("MAX", "MEAN", "P99.9", "CPU/REQ", "MEMORY")
"""Columns that go, in this order, where a terminal has no room for all."""
LESS_THAN_SPARKS = 3
"""So many of them go for the sake of the sparklines."""
BROKEN = {"invalid": "INVALID", "failed": "FAILED", "unavailable": "not measured"}


def render(report: Report, *, color: bool = False, sparklines: bool = False, room: int | None = None) -> str:
    """Return the report as lines. ``room``: columns of the terminal, None for no limit; ``color`` is ANSI's."""
    lines = [*_head(report, room=room, color=color)]
    for line in (
        *report.warnings,
        *(["this run was interrupted: what is missing was not measured"] * report.partial),
    ):
        lines += _wrapped(f"! {plain(line)}", room, style="yellow", color=color)
    lines += verdicts(report.verdicts, color=color, room=room)
    if report.references:
        lines += ["", styled("References, measured in the same run", "bold", color=color)]
        lines += _rows(
            [of(case) for case in report.references], color=color, sparklines=sparklines, room=room
        )
    if report.cases:
        lines += ["", styled("Cases", "bold", color=color)]
        lines += _rows([of(case) for case in report.cases], color=color, sparklines=sparklines, room=room)
    return "\n".join(lines) + "\n"


def verdicts(found: Sequence[Verdict], *, color: bool = False, room: int | None = None) -> list[str]:
    """Return a line for each threshold, floors first: ``✓ api.version p99 < 10ms  3.1ms``."""
    lines: list[str] = []
    longest = max((len(v.name) for v in found), default=0)
    for kind, heading in HEADINGS.items():
        some = [v for v in found if v.kind == kind]
        if some:
            lines += ["", styled(heading, "bold", color=color)]
        for each in some:
            mark, style = MARKS[each.held]
            line = clipped(f"{each.name:<{longest}}  {plain(each.found)}", None if room is None else room - 2)
            lines.append(f"{styled(mark, style, color=color)} {line}")
    return lines


def told(found: Sequence[Verdict]) -> str:
    """Return the thresholds in one sentence."""
    parts = []
    for kind, name in (("floor", "floors"), ("goal", "goals")):
        some = [v for v in found if v.kind == kind]
        if some:
            open_ones = sum(v.held is None for v in some)
            parts.append(
                f"{sum(v.held is True for v in some)} of {len(some)} {name} held"
                + (f", {open_ones} not measured" if open_ones else "")
            )
    return "; ".join(parts)


def machine(report: Report) -> str:
    """Return what it was measured on, in one line."""
    host = report.host
    parts = [
        f"{host.cores} × {host.cpu_model}" if host.cpu_model else f"{host.cores} cores",
        f"{units.size(host.memory_bytes)} RAM",
        f"{host.filesystem}, fsync p99 {units.duration(host.fsync_p99_s)}",
        f"governor {host.governor}" if host.governor else "",
        f"{host.temperature_c:.0f} °C" if host.temperature_c is not None else "",
        f"host {host.fingerprint[:8]}",
    ]
    return plain(" · ".join(part for part in parts if part))


def device(report: Report) -> str:
    """Return the emulated device in one line, or nothing."""
    found = report.device
    if found is None:
        return ""
    return (
        f"emulated device: {units.size(found.memory_bytes)} of memory, {units.significant(found.cpu_percent)} % of one core "
        f"({units.duration(found.period_us / 1e6)} period, control group {found.cgroup})"
    )


def versions(report: Report) -> str:
    """Return what was measured, and with what, in one line."""
    return plain(" · ".join(f"{name} {version}" for name, version in report.versions.items()))


def made(report: Report) -> str:
    """Return when and how it was measured, in one line."""
    at = datetime.fromtimestamp(report.made_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    repeat = f"{report.repeat} repetitions" if report.repeat != 1 else "one repetition"
    return f"{at} · suite {plain(report.suite)} · {repeat} · seed {report.seed} · took {units.duration(report.duration_s)}"


def errors(summary: Summary) -> str:
    """Return the errors by kind, in one line."""
    return plain(
        ", ".join(f"{count:,} {kind}" for kind, count in sorted(summary.errors.items(), key=lambda e: -e[1]))
    )


def figures(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Iterate over the figures of a case: name, value, note."""
    for name, figure in summary.figures.items():
        yield plain(name.replace("_", " ")), units.figure(figure.value, figure.unit), plain(figure.note)


def load(summary: Summary) -> str:
    """Return the model of load in a word."""
    return "-" if summary.model == "none" else summary.model


def _head(report: Report, *, room: int | None, color: bool) -> Iterator[str]:
    yield from _wrapped(versions(report), room, style="bold", color=color)
    for line in (machine(report), device(report), made(report), told(report.verdicts)):
        if line:
            yield from _wrapped(line, room, style="", color=color)


def _rows(summaries: Sequence[Summary], *, color: bool, sparklines: bool, room: int | None) -> Iterator[str]:
    rows = [TITLES, *map(cells, summaries)]
    sparks = [sparkline(summary.per_second) if sparklines else "" for summary in summaries]
    beside = max(map(len, sparks))
    lines = _fitted(rows, room)
    if room is not None and beside:
        with_sparks = _fitted(rows, room - len(GAP) - beside, most=LESS_THAN_SPARKS)
        if max(map(len, with_sparks)) + len(GAP) + beside <= room:
            lines = with_sparks
        else:
            sparks = [""] * len(summaries)
    longest = max(map(len, lines))
    yield styled(clipped(lines[0], room), "dim", color=color)
    for summary, line, spark in zip(summaries, lines[1:], sparks, strict=True):
        bad = summary.status in ("invalid", "failed")
        whole = f"{line:<{longest}}{GAP}{spark}" if spark else line
        yield styled(clipped(whole, room), "red" if bad else "", color=color)
        yield from _below(summary, room=room, color=color)


def _fitted(rows: Sequence[tuple[str, ...]], room: int | None, *, most: int = len(DISPENSABLE)) -> list[str]:
    """Return rows in columns, without so many of the dispensable ones as must go to fit, and at most ``most`` of those."""
    lines = columns(rows, right=RIGHT)
    gone: set[int] = set()
    for title in DISPENSABLE[:most]:
        if room is None or max(map(len, lines)) <= room:
            break
        gone.add(TITLES.index(title))
        kept = [i for i in range(len(TITLES)) if i not in gone]
        lines = columns(
            # A case that was not measured says so in its second column, and has no more.
            [[row[i] for i in kept if i < len(row)] if len(row) > 2 else row for row in rows],
            right=frozenset(kept.index(i) for i in kept if i in RIGHT),
        )
    return lines


def cells(summary: Summary) -> tuple[str, ...]:
    """Return the columns that :data:`TITLES` names; fewer of what was not measured."""
    if not summary.repetitions or summary.status in ("failed", "unavailable"):
        return (summary.name, BROKEN.get(summary.status, "-"))
    p = summary.percentiles_ns
    no_latency = not summary.samples
    memory = summary.private_bytes or summary.rss_bytes
    return (
        summary.name,
        "INVALID" if summary.status == "invalid" else load(summary),
        "-" if summary.throughput is None else units.significant(summary.throughput),
        *(
            "-" if no_latency else units.of_ns(value)
            for value in (summary.mean_ns, p[50.0], p[99.0], p[99.9], summary.max_ns)
        ),
        f"{summary.failed:,}" if summary.failed else "-",
        "-" if summary.cpu_per_request_s is None else units.duration(summary.cpu_per_request_s),
        "-" if memory is None else units.size(memory),
    )


def _below(summary: Summary, *, room: int | None, color: bool) -> Iterator[str]:
    for reason in summary.reasons:
        yield from _wrapped(f"  {plain(reason)}", room, style="yellow", color=color)
    if summary.errors:
        yield from _wrapped(f"  errors: {errors(summary)}", room, style="yellow", color=color)
    shown = [f"{name} {value}" for name, value, _ in figures(summary)]
    if shown:
        yield from _wrapped("  " + " · ".join(shown), room, style="dim", color=color)


def _wrapped(text: str, room: int | None, *, style: str, color: bool) -> Iterable[str]:
    if room is None:
        return [styled(text, style, color=color)]
    indent = " " * (len(text) - len(text.lstrip()))
    lines = textwrap.wrap(text, max(room, 20), subsequent_indent=indent + "  ", break_on_hyphens=False)
    return [styled(line, style, color=color) for line in lines]
