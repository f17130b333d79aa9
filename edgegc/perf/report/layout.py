"""Columns of text, and bars as high as numbers. Knows nothing of what is in them."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP: Final = "  "
BARS: Final = "▁▂▃▄▅▆▇█"
SPARKS: Final = 12
"""Columns of a sparkline: enough to see a slope, a gap or a start that is slow."""
STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def styled(text: str, style: str, *, color: bool) -> str:
    """Return text in a style of :data:`STYLES`, or as it is."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if color and style and text else text


def columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Return rows as lines whose columns stand under each other; those of ``right`` end under each other."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    return [
        GAP.join(
            f"{text:>{width}}" if i in right else f"{text:<{width}}"
            for i, (text, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def sparkline(values: Sequence[float], *, size: int = SPARKS) -> str:
    """Return values as a row of bars from 0 to the highest; several that share a bar are averaged."""
    if len(values) < 2 or max(values) <= 0:
        return ""
    size = min(size, len(values))
    parts = [values[len(values) * i // size : len(values) * (i + 1) // size] for i in range(size)]
    means = [sum(part) / len(part) for part in parts]
    top = max(means)
    return "".join(BARS[min(len(BARS) - 1, int(mean / top * len(BARS)))] for mean in means)


def plain(text: str) -> str:
    """Return text from elsewhere without what moves a terminal's cursor."""
    return "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)


def clipped(text: str, room: int | None) -> str:
    """Return text that fits into so many columns."""
    return text if room is None or len(text) <= room else text[: max(room - 1, 0)] + "…"
