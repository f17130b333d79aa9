"""Whether two measurements of a case are of the same thing: only then they are compared, or taken together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgegc.perf.result import Case, Report

RATE: Final = "rate_per_s"
"""The parameter that says how often an open load asks."""
SIZE: Final = "size_bytes"
"""The parameter that says how large a bundle came out: the certificates in it differ in length by some bytes from run to run."""
ALIKE: Final = 0.02
"""Parameters that are numbers of a measurement, that size for instance, may differ by this."""


def differing(one: Case, other: Case) -> list[str]:
    """Return the parameters that differ, by more than a little where they are measured themselves.

    A rate is chosen, from a ladder: how long one waits at another rate is another question.
    """
    names = one.parameters.keys() | other.parameters.keys()
    return sorted(
        name for name in names if not _same(name, one.parameters.get(name), other.parameters.get(name))
    )


def rates(report: Report) -> dict[str, float]:
    """Return how often the open loads of a report asked, a second, by their cases."""
    return {case.name: float(case.parameters[RATE]) for case in report.cases if RATE in case.parameters}


def told(one: Case, other: Case, names: list[str]) -> str:
    """Return these parameters with what they are on both sides."""
    return ", ".join(
        f"{name} {_shown(one.parameters.get(name))} → {_shown(other.parameters.get(name))}" for name in names
    )


def _same(name: str, one: object, other: object) -> bool:
    if name == SIZE or isinstance(one, float) or isinstance(other, float):
        return (
            isinstance(one, (int, float))
            and isinstance(other, (int, float))
            and math.isclose(one, other, rel_tol=ALIKE)
        )
    return one == other


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
