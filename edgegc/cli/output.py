"""What commands print: tables for people, JSON exactly as the API's for programs. Knows no command.

Tables are plain columns of our own: importing rich costs more than most commands do.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgegc.cli.options import Common

GAP = "  "
COMFORTABLE = 16
"""Columns of text: a flexible column is not squeezed below this while there is a less important one to drop."""
SQUEEZED = 8
"""Nor ever below this."""
ELLIPSIS = "…"
COLORS = {
    "online": "green",
    "running": "green",
    "ok": "green",
    "behind": "yellow",
    "starting": "yellow",
    "backoff": "yellow",
    "degraded": "yellow",
    "failed": "red",
    "fatal": "red",
    "unavailable": "red",
    "offline": "bright_black",
    "stopped": "bright_black",
}


class Column(msgspec.Struct, frozen=True):
    """A column. ``flexible`` may be squeezed; one with a higher ``rank`` goes first when there is no room (0: never)."""

    title: str
    flexible: bool = False
    rank: int = 0
    right: bool = False


def colored(common: Common) -> bool:
    """Return whether words may be coloured: on a terminal, unless someone said no."""
    return sys.stdout.isatty() and not common.no_color and not os.environ.get("NO_COLOR")


def width() -> int | None:
    """Return the columns there are, or None where nobody looks: a pipe gets everything."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        return None
    return shutil.get_terminal_size((80, 24)).columns


def emit_json(value: object) -> None:
    """Print a value as the API encodes it; indented on a terminal."""
    encoded = msgspec.json.encode(value)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    click.echo(encoded.decode())


def emit_table(
    common: Common, columns: Sequence[Column], rows: Iterable[Sequence[object]], *, empty: str = ""
) -> None:
    """Print a table that fits the terminal; ``empty`` is the sentence for no rows, on stderr."""
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        if empty and not common.quiet:
            click.echo(empty, err=True)
        return
    for line in layout(columns, cells, width(), color=colored(common)):
        click.echo(line)


def emit_list(
    common: Common,
    found: object,
    columns: Sequence[Column],
    rows: Sequence[Sequence[object]],
    *,
    ids: Iterable[str],
    empty: str,
) -> None:
    """Print a list of the API: its JSON, its ids, or a table of ``rows``; ``empty`` as in :func:`emit_table`."""
    if common.json:
        emit_json(found)
    elif common.quiet:
        for each in ids:
            click.echo(each)
    else:
        emit_table(common, columns, rows, empty=empty)


def emit_fields(common: Common, fields: Iterable[tuple[str, object]]) -> None:
    """Print one object: a field a line, its name first."""
    shown = [(name, cell(value)) for name, value in fields]
    longest = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        click.echo(f"{name:<{longest}}{GAP}{paint(text, color=colored(common))}")


def emit_object(common: Common, value: msgspec.Struct, *, quiet: str) -> None:
    """Print one object of the API: its JSON, its fields, or just ``quiet`` (its id, or the secret it carries)."""
    if common.json:
        emit_json(value)
    elif common.quiet:
        click.echo(quiet)
    else:
        emit_fields(common, _flat(value))


def emit_sentence(sentence: str) -> None:
    """Print prose, indented, in as many lines as the terminal makes of it."""
    shown = cell(sentence)
    room = width()
    lines = (
        [f"  {shown}"]
        if room is None
        else textwrap.wrap(
            shown,
            room,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    )
    for line in lines:
        click.echo(line)


def note(common: Common, sentence: str) -> None:
    """Say on stderr what happened, for a person who did not ask for quiet or JSON."""
    if not common.quiet and not common.json:
        click.echo(sentence, err=True)


def layout(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], room: int | None, *, color: bool
) -> list[str]:
    """Return the lines of a table in at most ``room`` columns, None for no limit."""
    keep = list(range(len(columns)))
    natural = [max(len(column.title), *(len(row[i]) for row in cells)) for i, column in enumerate(columns)]
    while True:
        dispensable = [i for i in keep if columns[i].rank]
        widths = {i: natural[i] for i in keep}
        excess = 0 if room is None else sum(widths.values()) + len(GAP) * (len(keep) - 1) - room
        least = COMFORTABLE if dispensable else SQUEEZED
        while excess > 0:
            squeezable = [
                i for i in keep if columns[i].flexible and widths[i] > max(least, len(columns[i].title))
            ]
            if not squeezable:
                break
            widths[max(squeezable, key=lambda i: widths[i])] -= 1
            excess -= 1
        if excess <= 0 or not dispensable:
            break
        keep.remove(max(dispensable, key=lambda i: columns[i].rank))

    def line(texts: Sequence[str], *, heading: bool) -> str:
        parts = []
        for i, size in widths.items():
            text = texts[i] if len(texts[i]) <= size else texts[i][: size - 1] + ELLIPSIS
            padded = f"{text:>{size}}" if columns[i].right else f"{text:<{size}}"
            parts.append(padded if heading else padded.replace(text, paint(text, color=color), 1))
        return GAP.join(parts).rstrip()

    heading = line([column.title for column in columns], heading=True)
    return [
        click.style(heading, bold=True) if color else heading,
        *(line(row, heading=False) for row in cells),
    ]


def paint(text: str, *, color: bool) -> str:
    """Return a word that names a state in the colour of that state; any other as it is."""
    return click.style(text, fg=COLORS[text]) if color and text in COLORS else text


def cell(value: object) -> str:
    """Return how a value looks in a table; what is absent is a dash."""
    match value:
        case None | () | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        case float():
            return f"{value:.1f}"
        case tuple() | list():
            return ", ".join(cell(item) for item in value)
        case _:
            # A name or message from elsewhere must not move the cursor.
            return "".join(c if c.isprintable() else " " for c in str(value)) or "-"


def ago(value: datetime | None, *, now: datetime | None = None) -> str:
    """Return how long ago a time was, in one unit: ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    if value is None:
        return "never"
    return duration((now or datetime.now(UTC)).timestamp() - value.timestamp())


def duration(seconds: float) -> str:
    """Return a duration in one unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def size(amount: float | None) -> str:
    """Return a number of bytes in the unit that reads best."""
    if amount is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


def _flat(value: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in value.__struct_fields__:
        inner = getattr(value, name)
        if isinstance(inner, msgspec.Struct):
            yield from _flat(inner, f"{prefix}{name}.")
        elif inner is not msgspec.UNSET:
            yield prefix + name, inner
