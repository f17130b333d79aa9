"""Numbers as people read them: three digits and the unit that suits. Knows nothing of what they are numbers of."""

from __future__ import annotations

from typing import Final

ABSENT: Final = "n/a"
DIGITS: Final = 3
"""What is left of a measurement when it is repeated; more would be noise."""
THOUSANDS_FROM: Final = 1_000


def significant(value: float) -> str:
    """Return a number with three digits, never with an exponent."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= THOUSANDS_FROM:
        return f"{value:,.0f}"
    shown = f"{value:.{DIGITS}g}"
    return shown if "e" not in shown else f"{value:.9f}".rstrip("0").rstrip(".") or "0"


def duration(seconds: float | None) -> str:
    """Return a time in the unit in which it has one to three digits before the point."""
    if seconds is None:
        return ABSENT
    size = abs(seconds)
    if size >= 7_200:
        return f"{significant(seconds / 3_600)}h"
    if size >= 120:
        return f"{significant(seconds / 60)}min"
    # 999.6 ms would be shown as "1,000ms".
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if size >= 0.9995 * scale:
            return f"{significant(seconds / scale)}{unit}"
    return f"{significant(seconds / 1e-9)}ns" if seconds else "0s"


def of_ns(nanoseconds: float | None) -> str:
    """Return a time given in nanoseconds."""
    return ABSENT if nanoseconds is None else duration(nanoseconds / 1e9)


def size(amount: float | None) -> str:
    """Return a number of bytes."""
    if amount is None:
        return ABSENT
    scaled, unit = amount, "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(scaled) < 999.5 or unit == "TiB":
            break
        scaled /= 1024
    return f"{significant(round(scaled) if unit == 'B' and abs(scaled) >= 1 else scaled)} {unit}"


def rate(per_second: float | None) -> str:
    """Return how often a second."""
    return ABSENT if per_second is None else f"{significant(per_second)}/s"


def percent(share: float | None) -> str:
    """Return a share, 0 to 1, in percent."""
    return ABSENT if share is None else f"{significant(share * 100)} %"


def figure(value: float, unit: str) -> str:
    """Return the value of a :class:`~edgegc.perf.result.Figure`."""
    match unit:
        case "s":
            return duration(value)
        case "bytes":
            return size(value)
        case "percent":
            return f"{significant(value)} %"
        case "per_s":
            return rate(value)
        case "count":
            return significant(value)
        case "ratio":
            return f"{significant(value)}×"
        case _:
            words = unit.replace("_per_s", "/s").replace("_per_", "/").replace("_", " ")
            if unit.startswith("bytes"):
                return size(value) + words.removeprefix("bytes")
            return f"{significant(value)} {words}".rstrip()


def ratio(value: float) -> str:
    """Return a ratio: two digits after the point, as factors are given."""
    return f"{value:.2f}×" if value < 100 else f"{significant(value)}×"
