"""How fast something grows, and how sure that is: a line through readings. Pure; knows not what was read.

Neighbouring readings resemble each other, so that a line through all of them would look far surer than it is: the line goes
through the means of a dozen blocks, which hardly do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS: Final = 12
FEWEST: Final = 4
"""Blocks below which there is nothing to say about certainty."""
STUDENT_95: Final = {
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
    10: 2.228,
}
"""Student's t for a two-sided interval of 95 %, by degrees of freedom."""


class Slope(msgspec.Struct, frozen=True, kw_only=True):
    """Growth per second, and the ends of its 95 % confidence interval."""

    per_s: float
    low_per_s: float
    high_per_s: float


def slope(readings: Sequence[tuple[float, float]]) -> Slope | None:
    """Return the slope of readings (seconds, value), in the order of time; None where they are too few."""
    blocks = min(BLOCKS, len(readings))
    if blocks < FEWEST:
        return None
    means = [
        _mean(readings[i * len(readings) // blocks : (i + 1) * len(readings) // blocks])
        for i in range(blocks)
    ]
    middle_s, middle = _mean(means)
    spread = sum((s - middle_s) ** 2 for s, _ in means)
    if not spread:
        return None
    per_s = sum((s - middle_s) * (value - middle) for s, value in means) / spread
    rest = sum((value - middle - per_s * (s - middle_s)) ** 2 for s, value in means)
    freedom = blocks - 2
    half = STUDENT_95[freedom] * (rest / freedom / spread) ** 0.5
    return Slope(per_s=per_s, low_per_s=per_s - half, high_per_s=per_s + half)


def _mean(readings: Sequence[tuple[float, float]]) -> tuple[float, float]:
    count = len(readings)
    return sum(s for s, _ in readings) / count, sum(value for _, value in readings) / count
