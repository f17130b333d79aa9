"""Two reports against each other: which quantities of which cases are compared, and what is said of each.

Knows the words of a report; the rule that decides is :mod:`edgegc.perf.decision`, and how it looks is
:mod:`edgegc.perf.report`'s business.

Of each case that both have, with equal parameters and valid repetitions:

- what :mod:`edgegc.perf.quantities` finds in it: rates, latencies, CPU time, memory, figures;
- errors, without any statistics: where every repetition had half as many again as any before, and a hundredth of all requests.

Everything that is time is also compared beside the references of the same repetition (:mod:`edgegc.perf.yardstick`).
Between different machines only that is compared, and memory.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from edgegc.errors import Conflict
from edgegc.perf import alike, quantities, yardstick
from edgegc.perf.decision import judge, usual_spreads
from edgegc.perf.metrics import valid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgegc.perf.result import Case, Report

FACTOR: Final = 1.10
"""What is less than this is not worth an alarm, and hardly to be told from the machine's moods."""
MORE_ERRORS: Final = 0.01
ERRORS_FACTOR: Final = 1.5
"""Where errors are part of the case (what is beyond the limits is refused), their share varies, and by more than a hundredth."""
ERROR_RUNS: Final = 3
"""Repetitions on each side before errors alone are a regression: a single one may have had an accident."""

Decision = Literal["regression", "unsure", "ok", "better"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity of one case. Ratios are so turned that more than 1 is worse."""

    case: str
    quantity: str
    """``throughput``, ``p50``, ``p99``, ``mean``, ``CPU per request``, ``memory``, ``errors`` or a figure's name."""
    unit: str
    base: float
    new: float
    base_runs: int
    new_runs: int
    ratio: float | None
    low: float | None
    high: float | None
    """The 95 % interval of the ratio."""
    absolute: float | None
    """The ratio of the two numbers as they stand; what is judged is the one beside the references, where there are any."""
    decision: Decision
    suspicious: bool
    """Unsure, and worse by more than the factor: unsure whether it is so, not only whether it can be excluded."""
    needs: int | None
    """Unsure: about so many more repetitions on each side would decide; None where more of them would not help."""
    why: str


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A case that was not compared, and why."""

    case: str
    why: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a release against another."""

    base: str
    """Its version."""
    new: str
    factor: float
    same_host: bool
    machine: float | None
    """How much slower the references were on the new side; None where none is in both."""
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]

    @property
    def regressions(self) -> tuple[Row, ...]:
        """What got worse."""
        return tuple(row for row in self.rows if row.decision == "regression")


def compare(
    base: Report, new: Report, *, factor: float = FACTOR, cross_host: bool = False, seed: int = 0
) -> Comparison:
    """Compare two reports; several runs of a release are merged before (:mod:`edgegc.perf.merging`).

    Raises Conflict where they are of different machines, or one of them of an emulated device, without ``cross_host``.
    The same reports always give the same answer: the bootstrap's draws are seeded.
    """
    same_host = base.host.fingerprint == new.host.fingerprint and base.device == new.device
    if not same_host and not cross_host:
        what = "on different machines" if base.device == new.device else "under different devices"
        raise Conflict(
            f"the reports were made {what}, whose absolute figures don't compare; "
            "--cross-host compares what travels: ratios to the references, and memory"
        )
    machine = yardstick.Machine.of(base, new)
    compared: list[quantities.Compared] = []
    rows: list[Row] = []
    skipped: list[Skipped] = []
    before = {case.name: case for case in base.cases}
    for case in new.cases:
        old = before.pop(case.name, None)
        why = _not_comparable(old, case)
        if old is not None and old.status == "ok" and case.status == "failed":
            rows.append(_broken(case))
        elif old is None or why:
            skipped.append(Skipped(case=case.name, why=why))
        else:
            rows.extend(_errors(old, case))
            rows.extend(_zeros(old, case))
            standing = machine.beside(case)
            compared.extend(quantities.of_case(old, case, standing, only_beside=not same_host))
    skipped.extend(
        Skipped(case=name, why="is not in the new report" + (", which is partial" if new.partial else ""))
        for name in before
    )
    pairs = [each.pair for each in compared]
    usual = usual_spreads(pairs)
    for each in compared:
        found = judge(each.pair, factor=factor, among=len(pairs), usual=usual, seed=seed)
        shown = found.beside or found.absolute
        rows.append(
            Row(
                case=each.case,
                quantity=each.quantity,
                unit=each.unit,
                base=each.pair.base.all_together,
                new=each.pair.new.all_together,
                base_runs=len(each.pair.base.values),
                new_runs=len(each.pair.new.values),
                ratio=shown.ratio,
                low=shown.low,
                high=shown.high,
                absolute=found.absolute.ratio,
                decision=found.decision,
                suspicious=found.suspicious,
                needs=found.needs,
                why=found.why,
            )
        )
    order = {case.name: number for number, case in enumerate(new.cases)}
    rows.sort(key=lambda row: order[row.case])
    return Comparison(
        base=base.versions.get("edgegc", "?"),
        new=new.versions.get("edgegc", "?"),
        factor=factor,
        same_host=same_host,
        machine=machine.slower,
        rows=tuple(rows),
        skipped=tuple(skipped),
    )


def _not_comparable(old: Case | None, new: Case) -> str:
    """Return why two cases can't be compared, or nothing."""
    if old is None:
        return "is not in the base report"
    for which, case in (("base", old), ("new", new)):
        if case.status != "ok" or not valid(case):
            distinct = list(dict.fromkeys(case.reasons or (w for m in case.measurements for w in m.invalid)))
            reasons = (
                distinct[0] + (f"; and {len(distinct) - 1} more" if distinct[1:] else "") if distinct else ""
            )
            return f"is {case.status if case.status != 'ok' else 'invalid'} in the {which} report" + (
                f": {reasons}" if reasons else ""
            )
    names = alike.differing(old, new)
    if names:
        remedy = "; measure it again with --rates FILE, the other report" if alike.RATE in names else ""
        return f"was measured with other parameters: {alike.told(old, new, names)}{remedy}"
    if valid(old)[0].model != valid(new)[0].model:
        return "was measured with another model of load"
    return ""


def _broken(case: Case) -> Row:
    why = "; ".join(case.reasons) or "it failed"
    return _row_without_ratio(case.name, "result", "", (), (), "regression", why)


def _row_without_ratio(
    case: str,
    quantity: str,
    unit: str,
    base: Sequence[float],
    new: Sequence[float],
    decision: Decision,
    why: str,
) -> Row:
    return Row(
        case=case,
        quantity=quantity,
        unit=unit,
        base=statistics.median(base) if base else 0.0,
        new=statistics.median(new) if new else 0.0,
        base_runs=len(base),
        new_runs=len(new),
        ratio=None,
        low=None,
        high=None,
        absolute=None,
        decision=decision,
        suspicious=decision == "unsure",
        needs=None,
        why=why,
    )


def _errors(old: Case, new: Case) -> Iterator[Row]:
    """Compare how many requests went wrong; nothing is said of a case that has no errors."""

    def shares(case: Case) -> list[float]:
        found = []
        for each in valid(case):
            wrong = sum(each.errors.values())
            # Whether a request that was answered wrongly counts as answered is the scenario's business.
            found.append(min(1.0, wrong / max(each.requests, wrong, 1)))
        return found

    before, now = shares(old), shares(new)
    if not any(before) and not any(now):
        return
    decision: Decision = "ok"
    why = ""
    if min(now) > max(before) * ERRORS_FACTOR + MORE_ERRORS:
        kinds = sorted({kind for each in valid(new) for kind in each.errors})
        decision = "regression" if min(len(before), len(now)) >= ERROR_RUNS else "unsure"
        why = f"more errors in every repetition: {', '.join(kinds)}"
    yield _row_without_ratio(
        new.name, "errors", "percent", [s * 100 for s in before], [s * 100 for s in now], decision, why
    )


def _zeros(old: Case, new: Case) -> Iterator[Row]:
    """Compare figures that were 0 somewhere, pings lost for instance: they have no ratio."""
    for name, figure in valid(new)[0].figures.items():
        sides = [[m.figures[name].value for m in valid(c) if name in m.figures] for c in (old, new)]
        before, now = sides
        if (
            not before
            or not now
            or figure.better == "neither"
            or min(before + now) != 0
            or not any(before + now)
        ):
            continue
        decision: Decision = "ok"
        why = ""
        worse = min(now) > max(before) if figure.better == "lower" else max(now) < min(before)
        if worse:
            decision = "regression" if min(len(before), len(now)) >= ERROR_RUNS else "unsure"
            why = "worse in every repetition than in any before"
        yield _row_without_ratio(new.name, name, figure.unit, before, now, decision, why)
