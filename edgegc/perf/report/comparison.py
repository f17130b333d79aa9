"""A comparison as text and as Markdown: what got worse first, what is doubtful next, the rest in numbers. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.perf import units
from edgegc.perf.report.layout import clipped, columns, plain, styled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgegc.perf.compare import Comparison, Row

TITLES = ("", "CASE", "QUANTITY", "BASE", "NEW", "RATIO", "95 %", "ABSOLUTE", "RUNS", "")
RIGHT = frozenset({3, 4, 5, 7})
MARKS = {"regression": ("✗", "red"), "better": ("✓", "green"), "ok": ("✓", ""), "unsure": ("?", "yellow")}
NOTICEABLE = 0.05
"""Machines differ by less than this between two runs whatever one does."""


def render(
    comparison: Comparison, *, every: bool = False, color: bool = False, room: int | None = None
) -> str:
    """Return a comparison as lines; ``every``: also each quantity of which nothing is to be said."""
    lines = [
        styled(f"base {comparison.base}", "bold", color=color),
        styled(f"new  {comparison.new}", "bold", color=color),
    ]
    lines += [f"! {line}" for line in remarks(comparison)]
    groups = sections(comparison, every=every)
    for heading, rows in groups:
        shown = columns([TITLES, *map(cells, rows)], right=RIGHT)
        lines += [
            "",
            styled(heading, "bold", color=color),
            styled(clipped(shown[0], room), "dim", color=color),
        ]
        for row, line in zip(rows, shown[1:], strict=True):
            lines.append(styled(clipped(line, room), MARKS[row.decision][1], color=color))
    if comparison.skipped:
        lines += ["", styled("Not compared", "bold", color=color)]
        lines += [clipped(f"- {each.case}: {plain(each.why)}", room) for each in comparison.skipped]
    lines += ["", styled(verdict(comparison), "red" if comparison.regressions else "bold", color=color)]
    return "\n".join(lines) + "\n"


def markdown(comparison: Comparison, *, every: bool = False) -> str:
    """Return a comparison as Markdown."""
    lines = [f"**{plain(verdict(comparison))}**", "", f"Base {comparison.base}, new {comparison.new}.", ""]
    for line in remarks(comparison):
        lines += [f"> {line}", ""]
    for heading, rows in sections(comparison, every=every):
        lines += [f"### {heading}", "", "| " + " | ".join(TITLES) + " |", "|" + " --- |" * len(TITLES)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row)) + " |" for row in rows]
        lines.append("")
    if comparison.skipped:
        lines += [
            "### Not compared",
            "",
            *(f"- {each.case}: {plain(each.why)}" for each in comparison.skipped),
            "",
        ]
    return "\n".join(lines)


def verdict(comparison: Comparison) -> str:
    """Return what came of it in one sentence."""
    rows = comparison.rows
    if not rows:
        return "nothing could be compared"
    bad = len(comparison.regressions)
    doubtful = sum(row.suspicious for row in rows)
    blind = sum(row.decision == "unsure" and not row.suspicious for row in rows)
    good = sum(row.decision == "better" for row in rows)
    parts = [f"{bad} regression{'s' * (bad != 1)}" if bad else "no regression"]
    if doubtful:
        parts.append(f"{doubtful} unsure")
    if good:
        parts.append(f"{good} better")
    parts.append(f"{sum(row.decision == 'ok' for row in rows)} ok")
    if blind:
        parts.append(f"{blind} too noisy to exclude a slowdown by {comparison.factor:.2f}")
    return ", ".join(parts) + f" (of {len(rows)} quantities)"


def remarks(comparison: Comparison) -> Iterator[str]:
    """Iterate over what has to be known before the rows are read."""
    if not comparison.same_host:
        yield "different machines: only ratios to the references and memory are compared"
    if comparison.machine is None:
        yield "no reference was measured in both runs: a machine that got slower looks like a release that did"
    elif abs(comparison.machine - 1) > NOTICEABLE:
        how = "slower" if comparison.machine > 1 else "faster"
        factor = max(comparison.machine, 1 / comparison.machine)
        yield f"the references were {factor:.2f}× {how} on the new side: the machine was not the same"
    if any(row.decision == "unsure" and min(row.base_runs, row.new_runs) < 2 for row in comparison.rows):
        yield "one repetition shows no spread: only gross differences can be told; 'perf run --repeat 5' tells more"


def sections(comparison: Comparison, *, every: bool) -> list[tuple[str, Sequence[Row]]]:
    """Return the rows to show under their headings."""
    rows = comparison.rows
    found = [
        ("Worse", comparison.regressions),
        ("Unsure", tuple(row for row in rows if row.suspicious)),
        ("Better", tuple(row for row in rows if row.decision == "better")),
    ]
    if every:
        found += [
            ("Too noisy to tell", tuple(r for r in rows if r.decision == "unsure" and not r.suspicious)),
            ("Ok", tuple(row for row in rows if row.decision == "ok")),
        ]
    return [(heading, some) for heading, some in found if some]


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's columns, as :data:`TITLES` names them."""
    interval = "" if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}"
    runs = f"{row.base_runs}/{row.new_runs}"
    return (
        MARKS[row.decision][0],
        row.case,
        row.quantity.replace("_", " "),
        units.figure(row.base, row.unit) if row.base_runs else "-",
        units.figure(row.new, row.unit) if row.new_runs else "-",
        "-" if row.ratio is None else units.ratio(row.ratio),
        interval or "-",
        "-" if row.absolute is None else units.ratio(row.absolute),
        runs,
        plain(_said(row)),
    )


def _said(row: Row) -> str:
    if row.why or row.decision != "unsure":
        return row.why
    if row.needs is None:
        return "unsure, and more runs would hardly help"
    return f"unsure, needs about {row.needs} more run{'s' * (row.needs != 1)}"
