"""Several runs of one release as one report: the repetitions of each case behind one another. Knows no statistics.

``packaging/perf-gate`` measures two releases alternately, a run each, so that what changes on the machine meanwhile meets both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.errors import Conflict, Invalid
from edgegc.perf import alike

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.perf.result import Case, Report

STRIDE = 1_000
"""Repetition r of run i becomes i × 1,000 + r: references and cases keep belonging together."""


def merge(reports: Sequence[Report]) -> Report:
    """Return one report with the measurements of all.

    Raises Conflict where they are not of one release on one machine, Invalid for none at all. A threshold's verdict
    belongs to a run, so there is none in it.
    """
    if not reports:
        raise Invalid("no report to merge")
    first = reports[0]
    if len(reports) == 1:
        return first
    for other in reports[1:]:
        for what, one, two in (
            ("releases", first.versions.get("edgegc"), other.versions.get("edgegc")),
            ("machines", first.host.fingerprint, other.host.fingerprint),
            ("devices", first.device, other.device),
        ):
            if one != two:
                raise Conflict(f"the reports are of different {what}, and can't be taken together")
    return msgspec.structs.replace(
        first,
        duration_s=sum(r.duration_s for r in reports),
        repeat=sum(r.repeat for r in reports),
        partial=any(r.partial for r in reports),
        references=_cases([r.references for r in reports]),
        cases=_cases([r.cases for r in reports]),
        verdicts=(),
        warnings=tuple(dict.fromkeys(w for r in reports for w in r.warnings)),
    )


def _cases(runs: Sequence[Sequence[Case]]) -> tuple[Case, ...]:
    found: dict[str, list[tuple[int, Case]]] = {}
    for number, cases in enumerate(runs):
        for case in cases:
            found.setdefault(case.name, []).append((number, case))
    return tuple(_case(parts) for parts in found.values())


def _case(parts: Sequence[tuple[int, Case]]) -> Case:
    """Return one case of all its parts: ok if any run of it was, and then with the repetitions of those.

    Where some were asked at another rate, those that are more count: latencies at several rates don't add up.
    """
    good = [(number, case) for number, case in parts if case.status == "ok"]
    used, left_out = _alike(good) if good else (list(parts), "")
    reasons = [*(why for _, case in used for why in case.reasons), *filter(None, [left_out])]
    return msgspec.structs.replace(
        used[0][1],
        reasons=tuple(dict.fromkeys(reasons)),
        measurements=tuple(
            msgspec.structs.replace(m, repetition=number * STRIDE + m.repetition)
            for number, case in used
            for m in case.measurements
        ),
    )


def _alike(parts: Sequence[tuple[int, Case]]) -> tuple[list[tuple[int, Case]], str]:
    """Return the most of these that were measured with the same parameters, and what is to be said of the others."""
    groups: list[list[tuple[int, Case]]] = []
    for part in parts:
        for group in groups:
            if not alike.differing(group[0][1], part[1]):
                group.append(part)
                break
        else:
            groups.append([part])
    kept = max(groups, key=len)
    others = [group[0][1] for group in groups if group is not kept]
    if not others:
        return kept, ""
    names = alike.differing(kept[0][1], others[0])
    return kept, (
        f"{len(parts) - len(kept)} of {len(parts)} runs are left out: they were measured with other parameters: "
        f"{alike.told(kept[0][1], others[0], names)}"
    )
