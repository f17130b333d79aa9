"""``edgegc perf report``, ``compare`` and ``baseline``: what was measured, shown and set against each other.

Knows nothing of measuring.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Command, Common, Group, local_options

if TYPE_CHECKING:
    from edgegc.perf.result import Report

REGRESSION: Final = 98
INVALID: Final = 5
UNFIT: Final = 3
FORMATS: Final = ("text", "md", "html", "csv", "json")


@click.command(
    cls=Command,
    example="edgegc perf report r.json\n"
    "edgegc perf report r.json --format html --out r.html\n"
    "edgegc perf report new.json --base old.json --format html --out both.html",
)
@click.argument("file", metavar="FILE")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How.")
@click.option("--base", metavar="FILE", help="html: another report, drawn and compared beside it.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to. [default: stdout]",
)
@local_options
@click.pass_obj
def report(common: Common, file: str, form: str, base: str | None, out: Path | None) -> None:
    """Show a report: thresholds first, then a row for each case.

    FILE is what 'edgegc perf run --out' wrote, several of one release in a directory, or a baseline's name. The HTML is one
    file with everything in it, plots included.
    """
    from edgegc.perf import document

    if base is not None and form != "html":
        raise click.UsageError("--base is drawn in html only; 'edgegc perf compare' compares as text")
    found = _read(file)
    form = "json" if common.json else form
    match form:
        case "text":
            print_report(common, found, out)
            return
        case "md":
            from edgegc.perf.report import markdown

            body = markdown.render(found)
        case "csv":
            from edgegc.perf.report import csv

            body = csv.render(found)
        case "html":
            from edgegc.cli.progress import spinner
            from edgegc.perf.report import html

            with spinner(common, "drawing"):
                body = html.render(found, base=_read(base) if base is not None else None)
        case _:
            body = document.encode(found).decode()
    if form == "html" and out is None and sys.stdout.isatty():
        raise click.UsageError("HTML is not for a terminal; give --out FILE, or send it somewhere with >")
    _emit(common, body, out)


@click.command(
    cls=Command,
    example="edgegc perf compare old.json new.json\nedgegc perf compare old-runs/ new-runs/ --factor 1.05 --all",
)
@click.argument("base", metavar="BASE")
@click.argument("new", metavar="NEW")
@click.option(
    "--factor",
    type=click.FloatRange(min=1.0, min_open=True),
    default=1.10,
    show_default=True,
    help="So much worse is a regression.",
)
@click.option(
    "--cross-host",
    is_flag=True,
    help="Of different machines: compare what travels, ratios to the references.",
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Show every quantity, not only those of which there is something to say.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "md", "json"]),
    default="text",
    show_default=True,
    help="How.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also draw both reports."
)
@local_options
@click.pass_obj
def compare(
    common: Common,
    base: str,
    new: str,
    factor: float,
    cross_host: bool,
    every: bool,
    form: str,
    html: Path | None,
) -> int:
    """Tell whether NEW is slower than BASE. Exit 98 if it is, 5 if nothing could be compared.

    BASE and NEW are reports of 'edgegc perf run --out', directories with several of one release, or names of baselines. A
    regression is worse by the factor, with a 95 % interval that excludes 1, and significant among all quantities that
    are compared; what can't be told is called unsure, with the number of runs that would tell it.
    """
    from edgegc import errors
    from edgegc.cli.output import emit_json, width
    from edgegc.cli.progress import spinner
    from edgegc.perf.compare import compare as compared
    from edgegc.perf.report import comparison

    reports = _read(base), _read(new)
    try:
        with spinner(common, "comparing"):
            found = compared(*reports, factor=factor, cross_host=cross_host)
    except errors.Conflict as error:
        raise Failure(error.message, Exit(UNFIT)) from error
    if html is not None:
        from edgegc.perf.report import html as page

        _emit(common, page.render(reports[1], base=reports[0], comparison=found), html)
    if common.json or form == "json":
        emit_json(found)
    elif common.quiet:
        for row in found.regressions:
            click.echo(f"{row.case} {row.quantity}")
    elif form == "md":
        click.echo(comparison.markdown(found, every=every), nl=False)
    else:
        click.echo(comparison.render(found, every=every, color=_color(common), room=width()), nl=False)
    if found.regressions:
        return REGRESSION
    return Exit.DONE if found.rows else INVALID


@click.group(
    cls=Group,
    example="edgegc perf run --suite full --repeat 5 --out r.json\n"
    "edgegc perf baseline save r.json --name pi4-1.0\nedgegc perf compare pi4-1.0 new.json",
)
def baseline() -> None:
    """Reports that are kept to compare later ones with."""


@baseline.command(name="save", example="edgegc perf baseline save r.json --name pi4-1.0")
@click.argument("file", metavar="FILE")
@click.option("--name", metavar="NAME", help="How to call it. [default: HOST-VERSION]")
@click.option("--force", is_flag=True, help="Replace one of that name.")
@local_options
@click.pass_obj
def save(common: Common, file: str, name: str | None, force: bool) -> None:
    """Keep a report: in perf/baselines of a checkout, else in the user's state directory."""
    from edgegc.cli.output import emit_json, note
    from edgegc.perf import baselines

    found = _read(file)
    path = baselines.save(found, name=name, force=force)
    kept = path.name.removesuffix(baselines.SUFFIX)
    if common.json:
        emit_json(baselines.describe(kept, found))
    else:
        click.echo(kept)
        note(common, f"kept in {path}")


@baseline.command(name="list", example="edgegc perf baseline list")
@local_options
@click.pass_obj
def list_(common: Common) -> None:
    """List the reports that are kept, the newest first."""
    from datetime import UTC, datetime

    from edgegc.cli.output import Column, emit_list
    from edgegc.perf import baselines

    found = baselines.every()
    emit_list(
        common,
        {"baselines": found},
        (
            Column("NAME"),
            Column("MADE (UTC)"),
            Column("VERSION", flexible=True),
            Column("HOST"),
            Column("DEVICE", rank=2),
            Column("SUITE", rank=1),
            Column("RUNS", right=True),
            Column("CASES", right=True, rank=3),
        ),
        [
            (
                b.name,
                datetime.fromtimestamp(b.made_at, UTC),
                b.version,
                b.fingerprint,
                b.device,
                b.suite,
                b.repeat,
                b.cases,
            )
            for b in found
        ],
        ids=(b.name for b in found),
        empty=f"none kept yet in {baselines.directory()}: edgegc perf baseline save FILE",
    )


@baseline.command(name="show", example="edgegc perf baseline show pi4-1.0")
@click.argument("name", metavar="NAME")
@local_options
@click.pass_obj
def show(common: Common, name: str) -> None:
    """Show a report that is kept."""
    from edgegc.perf import baselines, document

    found = baselines.load(name)
    if common.json:
        _emit(common, document.encode(found).decode(), None)
    else:
        print_report(common, found)


def _read(name: str) -> Report:
    """Return the report that a file holds, several files of a directory together, or a baseline of that name."""
    from edgegc import errors
    from edgegc.perf import baselines, document
    from edgegc.perf.merging import merge

    path = Path(name)
    try:
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.name.endswith((".json", ".json.gz")))
            if not files:
                raise errors.NotFound(f"{name}: no .json in this directory")
            return merge([document.read(file) for file in files])
        if not path.exists() and baselines.NAME.fullmatch(name):
            kept = {each.name for each in baselines.every()}
            if name in kept:
                return baselines.load(name)
        return document.read(path)
    except (errors.NotFound, errors.Invalid, errors.Conflict) as error:
        raise Failure(error.message, Exit.USAGE) from error


def print_report(common: Common, found: Report, out: Path | None = None) -> None:
    """Print a report as text, as this terminal can show it, or write it to a file."""
    from edgegc.cli.output import width
    from edgegc.perf.report import text

    if out is not None:
        _emit(common, text.render(found), out)
        return
    _emit(common, text.render(found, color=_color(common), sparklines=_sparklines(), room=width()), None)


def _color(common: Common) -> bool:
    from edgegc.cli.output import colored

    return colored(common)


def _sparklines() -> bool:
    """Whether bars can be shown: on a terminal that takes more than ASCII."""
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _emit(common: Common, body: str, out: Path | None) -> None:
    from edgegc.cli.output import note
    from edgegc.perf import document

    if out is None:
        click.echo(body, nl=False)
        return
    document.replace(out, body.encode())
    note(common, f"written: {out}")
