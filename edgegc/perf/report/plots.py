"""Curves as inline SVG: latency percentiles, and what happened over time. Knows numbers and a style sheet's class names.

Drawn 380 units wide, which is about a phone's width: text stays readable there, and wider screens show more plots in a row.
Colours are the page's business: lines carry the classes ``new`` and ``base``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from edgegc.perf.histogram import SUPPORT, highest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgegc.perf.histogram import Histogram

Side = Literal["new", "base"]

WIDTH: Final = 380
LEFT: Final = 54
RIGHT: Final = 12
TOP: Final = 26
BOTTOM: Final = 26
HEIGHT: Final = 260
PANEL: Final = 50
PANEL_GAP: Final = 20
WORDS: Final = 12
"""Above the first panel, for what marks say."""
MOST_POINTS: Final = 190
"""Two units a point: more are not seen, and a report of a hundred cases stays small."""
TICKS: Final = 4
NINES: Final = (
    (50.0, "p50"),
    (90.0, "p90"),
    (99.0, "p99"),
    (99.9, "p99.9"),
    (99.99, "p99.99"),
    (99.999, "p99.999"),
)
MARK_ROOM: Final = 46
"""A mark's word needs so much; words that would lie on another are left to the tooltip."""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A line: points in the order of x."""

    side: Side
    points: tuple[tuple[float, float], ...]
    faint: bool = False
    """One of several repetitions, not the one to look at."""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity over time."""

    title: str
    curves: tuple[Curve, ...]
    label: Callable[[float], str]
    binary: bool = False
    """Round numbers are powers of two."""


def percentile_points(histogram: Histogram) -> tuple[tuple[float, float], ...]:
    """Return (log10(1/(1-p)), seconds) for each slot, as far as the samples tell: ten lie above the last point."""
    if histogram.count <= SUPPORT:
        return ()
    points = []
    seen = 0
    for slot, count in histogram.used():
        seen += count
        above = histogram.count - seen
        if above < SUPPORT:
            break
        points.append((math.log10(histogram.count / above), max(highest_of(slot), 1) / 1e9))
    return tuple(points)


def percentiles(curves: Sequence[Curve], label: Callable[[float], str]) -> str:
    """Return latency by percentile on log(1/(1-p)): each step to the right is ten times as rare. Empty without points."""
    values = [y for curve in curves for _, y in curve.points]
    if not values:
        return ""
    right = max(x for curve in curves for x, _ in curve.points)
    right = max(right, 1.0)
    low, high = _decades(min(values), max(values))

    def x_at(x: float) -> float:
        return LEFT + x / right * (WIDTH - LEFT - RIGHT)

    def y_at(y: float) -> float:
        share = (math.log10(y) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [_title(0, "latency by percentile")]
    parts += [_horizontal(y_at(value), label(value)) for value in _logarithmic_ticks(low, high)]
    for percent, name in NINES:
        x = math.log10(1 / (1 - percent / 100))
        if x <= right + 1e-9:
            at = x_at(x)
            parts.append(
                f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            )
            parts.append(
                f'<text class="tick" x="{at:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{name}</text>'
            )
    parts += [_path(curve, [(x_at(x), y_at(y)) for x, y in curve.points]) for curve in curves]
    told = "; ".join(
        f"{curve.side}: {label(curve.points[-1][1])} at the last point" for curve in curves if curve.points
    )
    return _svg(HEIGHT, f"Latency by percentile. {told}", parts)


def over_time(
    panels: Sequence[Panel], marks: Sequence[tuple[float, str]], label: Callable[[float], str]
) -> str:
    """Return quantities over one time axis, each in a panel from 0 up, with marks through all of them."""
    panels = [panel for panel in panels if any(len(curve.points) > 1 for curve in panel.curves)]
    if not panels:
        return ""
    end = max(x for panel in panels for curve in panel.curves for x, _ in curve.points)
    if end <= 0:
        return ""
    top = TOP + (WORDS if marks else 0)
    height = top + len(panels) * (PANEL + PANEL_GAP) - PANEL_GAP + BOTTOM

    def x_at(x: float) -> float:
        return LEFT + min(max(x, 0.0), end) / end * (WIDTH - LEFT - RIGHT)

    parts = []
    bottom = height - BOTTOM
    for value in _ticks(end):
        at = x_at(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{height - 10}" text-anchor="middle">{label(value)}</text>'
        )
    for number, panel in enumerate(panels):
        parts += _panel(panel, top + number * (PANEL + PANEL_GAP), x_at)
    parts += _marks(marks, x_at, bottom)
    return _svg(height, f"Over time: {', '.join(panel.title for panel in panels)}", parts)


def _panel(panel: Panel, top: float, x_at: Callable[[float], float]) -> Iterator[str]:
    highest = max(y for curve in panel.curves for _, y in curve.points)
    ticks = _ticks(highest or 1.0, count=2, binary=panel.binary)
    # The highest value lies below the panel's upper edge, or its line would strike out the title.
    ticks += [ticks[-1] + ticks[1]] if ticks[-1] < highest else []
    scale = ticks[-1]
    bottom = top + PANEL

    def y_at(y: float) -> float:
        return bottom - y / scale * PANEL

    yield _title(top - TOP, panel.title)
    for value in ticks:
        yield _horizontal(y_at(value), panel.label(value) if value else "0")
    for curve in sorted(panel.curves, key=lambda each: not each.faint):
        yield _path(curve, [(x_at(x), y_at(y)) for x, y in curve.points])


def _marks(
    marks: Sequence[tuple[float, str]], x_at: Callable[[float], float], bottom: float
) -> Iterator[str]:
    free_from = 0.0
    for at_s, what in sorted(marks):
        x = x_at(at_s)
        yield (
            f'<g class="mark"><title>{escape(what)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{WORDS}" y2="{bottom}"/>'
        )
        room = MARK_ROOM * 1.5
        if x - room / 2 >= free_from:
            at = min(x, WIDTH - RIGHT - room / 2)
            yield f'<text class="tick" text-anchor="middle" x="{at:.1f}" y="{WORDS - 3}">{escape(what[:12])}</text>'
            free_from = at + room / 2
        yield "</g>"


def _svg(height: float, description: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(description)}">{"".join(parts)}</svg>'


def _title(top: float, text: str) -> str:
    return f'<text class="title" x="{LEFT}" y="{top + 14:.1f}">{escape(text)}</text>'


def _horizontal(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def _path(curve: Curve, points: Sequence[tuple[float, float]]) -> str:
    kept = _thinned(points)
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in kept)
    return f'<polyline class="{curve.side}{" faint" if curve.faint else ""}" points="{drawn}"/>'


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return so many points as can be seen: of each column the lowest and the highest, so that no peak is lost."""
    if len(points) <= MOST_POINTS:
        return points
    columns = MOST_POINTS // 2
    kept = []
    for number in range(columns):
        column = points[len(points) * number // columns : len(points) * (number + 1) // columns]
        kept += sorted({min(column, key=lambda p: p[1]), max(column, key=lambda p: p[1])})
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _ticks(highest: float, *, count: int = TICKS, binary: bool = False) -> list[float]:
    """Return round numbers from 0 to ``highest``, about so many steps."""
    rough = highest / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = (
        2.0 ** math.ceil(math.log2(rough))
        if binary
        else next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    )
    return [step * number for number in range(int(highest / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> tuple[float, float]:
    """Return the ends of a logarithmic axis: 1, 2 or 5 times a power of ten, and not the same twice."""
    bottom = _nice(low, up=False)
    top = _nice(high, up=True)
    return (bottom, top) if top > bottom else (bottom, bottom * 2)


def _nice(value: float, *, up: bool) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 2, 5, 10)
    if up:
        return next(power * step for step in steps if power * step >= value * (1 - 1e-9))
    return next(power * step for step in reversed(steps) if power * step <= value * (1 + 1e-9))


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Return the round numbers of a logarithmic axis; only powers of ten where 1, 2 and 5 of each would be too many."""
    found = []
    power = 10.0 ** math.floor(math.log10(low))
    while power <= high * (1 + 1e-9):
        found += [power * step for step in (1, 2, 5)]
        power *= 10
    found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    if len(found) > 2 * TICKS:
        found = [value for value in found if math.isclose(math.log10(value), round(math.log10(value)))]
    return found
