"""Floors and goals: reads them from TOML, and says of each whether a report holds it.

Knows no scenario: a threshold names a case and a metric. ``data/thresholds.toml`` says what each of its fields means.
"""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgegc.errors import Invalid
from edgegc.perf import metrics, units
from edgegc.perf.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from edgegc.perf.result import Case

FILE: Final = "data/thresholds.toml"

Op = Literal["<", "<=", ">", ">="]


class Threshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One floor or goal.

    ``value`` is in the metric's unit (seconds, bytes, per second). With ``of`` it is a factor instead: of the same metric
    of another case or of a reference, or of ``of_metric``.
    """

    name: Annotated[str, Meta(min_length=1)] = ""
    """What people call it; without one it is made of case, metric and value."""
    case: Annotated[str, Meta(min_length=1)]
    """A case, or a pattern of scenarios: then the worst of their cases."""
    but: tuple[str, ...] = ()
    """Scenarios that the pattern does not mean."""
    metric: Annotated[str, Meta(min_length=1)]
    op: Op
    value: float
    kind: Literal["floor", "goal"]
    of: str = ""
    of_metric: str = ""
    on: Literal["any", "machine", "device"] = "any"
    """Whether it is for emulated devices, for the machine as it is, or for both."""


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    threshold: tuple[Threshold, ...]


def load(path: Path | None = None) -> tuple[Threshold, ...]:
    """Return the thresholds of a file, or the package's own. Raises Invalid for a file that is not understood."""
    try:
        text = path.read_text(encoding="utf-8") if path else (files("edgegc.perf") / FILE).read_text("utf-8")
        found = msgspec.convert(tomllib.loads(text), Document).threshold
        for each in found:
            metrics.check(each.metric)
            if each.of_metric:
                metrics.check(each.of_metric)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, Invalid) as error:
        raise Invalid(f"the thresholds of {path or FILE} can't be read: {error}") from None
    return found


def latency_limits(thresholds: Iterable[Threshold]) -> Mapping[str, float]:
    """Return the strictest p99 that a case is held to, in seconds: what a generator's lag is judged against."""
    limits: dict[str, float] = {}
    for each in thresholds:
        if each.metric == "p99" and each.op in ("<", "<=") and not each.of:
            limits[each.case] = min(each.value, limits.get(each.case, each.value))
    return limits


def judge(
    thresholds: Iterable[Threshold],
    cases: Sequence[Case],
    references: Iterable[Case] = (),
    *,
    emulated: bool = False,
) -> tuple[Verdict, ...]:
    """Return a verdict for each threshold whose case was to be measured; those of other cases are left out.

    ``emulated``: it was measured on an emulated device.
    """
    known = {case.name: case for case in (*references, *cases)}
    apart = "machine" if emulated else "device"
    meant = ((each, case) for each in thresholds if each.on != apart for case in _meant(each, cases, known))
    return tuple(_verdict(threshold, case, known) for threshold, case in meant)


def _meant(threshold: Threshold, cases: Sequence[Case], known: Mapping[str, Case]) -> Sequence[Case]:
    """Return the one case that a threshold is about, if it was measured; of a pattern the worst."""
    if threshold.case in known:
        return (known[threshold.case],)
    found = [
        (value, case)
        for case in cases
        if fnmatchcase(case.scenario, threshold.case) and case.scenario not in threshold.but
        if (value := metrics.value(case, threshold.metric)) is not None
    ]
    if not found:
        return ()
    worst = max if threshold.op in ("<", "<=") else min
    return (worst(found, key=lambda each: each[0])[1],)


def _verdict(threshold: Threshold, case: Case, known: Mapping[str, Case]) -> Verdict:
    unit = metrics.unit_of(case, threshold.metric)
    found = metrics.value(case, threshold.metric)
    if threshold.of:
        return _ratio(threshold, case, known.get(threshold.of), found, unit)
    name = threshold.name or (
        f"{threshold.case} {_plain(threshold.metric)} {threshold.op} {units.figure(threshold.value, unit)}"
    )
    if found is None:
        return Verdict(name=name, kind=threshold.kind, held=None, found=_why_nothing(case))
    return Verdict(
        name=name,
        kind=threshold.kind,
        held=_holds(found, threshold.op, threshold.value),
        found=units.figure(found, unit) + (f" in {case.name}" if case.name != threshold.case else ""),
    )


def _ratio(threshold: Threshold, case: Case, beside: Case | None, found: float | None, unit: str) -> Verdict:
    against = metrics.value(beside, threshold.of_metric or threshold.metric) if beside else None
    name = threshold.name or (
        f"{threshold.case} {_plain(threshold.metric)} {threshold.op} {threshold.value:g} × {threshold.of}"
    )
    if found is None or not against:
        missing = threshold.of if found is not None else threshold.case
        return Verdict(
            name=name, kind=threshold.kind, held=None, found=f"nothing valid measured of {missing}"
        )
    return Verdict(
        name=name,
        kind=threshold.kind,
        held=_holds(found / against, threshold.op, threshold.value),
        found=f"{found / against:.2f} × ({units.figure(found, unit)} : {units.figure(against, unit)})",
    )


def _plain(metric: str) -> str:
    return metric.removeprefix(metrics.FIGURE).replace("_", " ")


def _why_nothing(case: Case) -> str:
    if case.status != "ok":
        return case.status
    return "too few samples" if case.measurements else "not measured"


def _holds(found: float, op: Op, value: float) -> bool:
    match op:
        case "<":
            return found < value
        case "<=":
            return found <= value
        case ">":
            return found > value
        case ">=":
            return found >= value
