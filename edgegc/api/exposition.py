"""The Prometheus text format (version 0.0.4), written by ourselves: ``prometheus_client`` costs 14 MiB. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kind = Literal["counter", "gauge", "histogram"]
_IN_LABEL: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_IN_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


def labels(**given: object) -> str:
    """Return a label set, ``{cluster="home",node="pi-7"}``; empty without labels."""
    inside = ",".join(f'{name}="{str(value).translate(_IN_LABEL)}"' for name, value in given.items())
    return f"{{{inside}}}" if inside else ""


class Exposition:
    """Collects families of samples; :meth:`text` is what ``/metrics`` answers. A family without samples is left out."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: Kind, about: str, samples: Iterable[tuple[str, float | None]]) -> None:
        """Add a counter or gauge: ``(labels, value)`` each, what has no value is left out. A counter's name ends in ``_total``."""
        lines = [f"{name}{label} {number(value)}" for label, value in samples if value is not None]
        if lines:
            self._head(name, kind, about)
            self._lines.extend(lines)

    def single(self, name: str, kind: Kind, about: str, value: float | None) -> None:
        """Add a family of one sample without labels."""
        self.family(name, kind, about, [("", value)])

    def histogram(
        self,
        name: str,
        about: str,
        *,
        bounds: Sequence[float],
        series: Iterable[tuple[dict[str, object], Sequence[int], float]],
    ) -> None:
        """Add a histogram: per series its labels, cumulative counts (one per bound, and one for infinity) and sum."""
        began = False
        for given, cumulative, total in series:
            if not began:
                self._head(name, "histogram", about)
                began = True
            for bound, count in zip((*bounds, math.inf), cumulative, strict=True):
                self._lines.append(f"{name}_bucket{labels(**given, le=number(bound))} {count}")
            plain = labels(**given)
            self._lines.append(f"{name}_sum{plain} {number(total)}")
            self._lines.append(f"{name}_count{plain} {cumulative[-1]}")

    def text(self) -> bytes:
        """Return everything that was added."""
        return ("\n".join(self._lines) + "\n").encode()

    def _head(self, name: str, kind: Kind, about: str) -> None:
        self._lines.append(f"# HELP {name} {about.translate(_IN_HELP)}")
        self._lines.append(f"# TYPE {name} {kind}")


def number(value: float) -> str:
    """Write a number as Prometheus reads it; whole ones without a point."""
    if isinstance(value, int):
        return str(int(value))  # Also for booleans: 1 and 0.
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
