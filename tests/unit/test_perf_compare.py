"""Two reports against each other: what is compared, what is found, what is left alone."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgegc.errors import Conflict
from edgegc.perf.compare import Comparison, compare
from edgegc.perf.histogram import Histogram
from edgegc.perf.merging import merge
from edgegc.perf.result import Figure, Pace
from tests.perf_reports import Truth, invalid, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.perf.result import Case, Report


@cache
def base() -> Report:
    return report(Truth(seed=1))


def changed(found: Report, name: str, change: Callable[[Case], Case]) -> Report:
    return msgspec.structs.replace(
        found, cases=tuple(change(case) if case.name == name else case for case in found.cases)
    )


def with_figure(found: Report, name: str, figure: str, values: list[float]) -> Report:
    def change(case: Case) -> Case:
        return msgspec.structs.replace(
            case,
            measurements=tuple(
                msgspec.structs.replace(
                    m, figures={**m.figures, figure: Figure(value=value, unit="count", better="lower")}
                )
                for m, value in zip(case.measurements, values, strict=True)
            ),
        )

    return changed(found, name, change)


def worse(found: Comparison) -> set[tuple[str, str]]:
    return {(row.case, row.quantity) for row in found.regressions}


def decision(found: Comparison, case: str, quantity: str) -> str:
    (row,) = [row for row in found.rows if (row.case, row.quantity) == (case, quantity)]
    return row.decision


def test_five_comparisons_of_a_release_with_itself_find_no_regression() -> None:
    for seed in range(2, 7):
        assert worse(compare(base(), report(Truth(seed=seed)))) == set()


def test_a_handler_that_is_15_percent_slower_is_found_and_nothing_else_is_accused() -> None:
    found = worse(compare(base(), report(Truth(seed=2, slower={"api.version": 1.15}))))
    assert ("api.version[hot-closed]", "CPU per request") in found
    assert {case for case, _ in found} <= {"api.version[hot-closed]", "api.version[hot-open]"}


def test_a_handler_that_is_15_percent_slower_is_found_on_a_machine_that_got_faster() -> None:
    found = compare(base(), report(Truth(seed=2, slower={"api.version": 1.15}, machine=0.94)))
    assert ("api.version[hot-closed]", "CPU per request") in worse(found)


def test_a_machine_that_got_a_third_slower_is_no_regression_and_is_told() -> None:
    found = compare(base(), report(Truth(seed=2, machine=1.33)))
    assert worse(found) == set()
    assert found.machine == pytest.approx(1.33, rel=0.05)


MOODY = {"wobble": 0.08, "moods": 0.08}
"""A shared virtual machine whose speed differs by a fifth from minute to minute, and from second to second."""


def moody(seed: int, **more: object) -> Report:
    return report(Truth(seed=seed, in_turns=True, **MOODY, **more))  # type: ignore[arg-type]


def test_on_a_moody_machine_15_percent_are_found_where_references_took_turns_with_the_case() -> None:
    slower = {"api.version": 1.15}
    before = moody(1)
    for seed in range(2, 7):
        assert worse(compare(before, moody(seed))) == set()
        found = worse(compare(before, moody(seed, slower=slower)))
        assert ("api.version[hot-closed]", "CPU per request") in found
        assert {case for case, _ in found} <= {"api.version[hot-closed]", "api.version[hot-open]"}


def test_of_the_references_that_took_turns_with_a_case_the_one_that_is_like_ours_counts() -> None:
    def with_echo(case: Case) -> Case:
        measurements = tuple(
            msgspec.structs.replace(
                m,
                paces=(
                    *m.paces,
                    Pace(reference="raw_echo", requests=9_000 * (1 + n), duration_s=5.0, server_cpu_s=5.0),
                ),
            )
            for n, m in enumerate(case.measurements)
        )
        return msgspec.structs.replace(case, measurements=measurements)

    before, now = moody(1), moody(2)
    name = "api.version[hot-closed]"
    assert compare(before, changed(now, name, with_echo)).rows == compare(before, now).rows
    assert (
        compare(changed(before, name, with_echo), changed(now, name, with_echo)).rows
        == compare(before, now).rows
    )


def test_a_report_of_turns_is_compared_with_one_that_had_none() -> None:
    rows = compare(base(), report(Truth(seed=2, in_turns=True))).rows
    assert {row.case for row in rows} >= {"api.version[hot-closed]", "api.node_create[closed]"}
    assert not [row for row in rows if row.decision == "regression"]


def test_a_store_that_is_twice_as_slow_is_found() -> None:
    found = compare(base(), report(Truth(seed=2, slower={"db.node_insert": 2.0})))
    assert ("db.node_insert[1]", "p50") in worse(found)


def test_a_closed_load_is_compared_by_throughput_and_an_open_one_by_latency() -> None:
    rows = compare(base(), report(Truth(seed=2))).rows
    quantities = {case: {row.quantity for row in rows if row.case == case} for case in {r.case for r in rows}}
    assert quantities["api.version[hot-closed]"] == {"throughput", "CPU per request", "memory"}
    assert quantities["api.version[hot-open]"] == {"p50", "p99", "memory"}
    assert quantities["db.node_insert[1]"] == {"p50", "p99", "bytes_per_node", "writes"}
    assert quantities["start.warm"] == {"mean"}


def test_percentiles_are_those_of_the_merged_histograms() -> None:
    rows = compare(base(), report(Truth(seed=2))).rows
    (row,) = [row for row in rows if (row.case, row.quantity) == ("api.version[hot-open]", "p99")]
    merged = Histogram()
    (case,) = [case for case in base().cases if case.name == "api.version[hot-open]"]
    for each in case.measurements:
        merged.merge(each.latency)
    assert row.base == merged.value_at(99) / 1e9


def test_a_case_that_cannot_be_trusted_is_not_compared_and_says_why() -> None:
    new = changed(report(Truth(seed=2)), "start.warm", lambda case: invalid(case, "the host was busy"))
    found = compare(base(), new)
    assert "start.warm" not in {row.case for row in found.rows}
    assert [s.why for s in found.skipped if s.case == "start.warm"] == [
        "is invalid in the new report: the host was busy"
    ]


def test_a_case_that_broke_is_a_regression() -> None:
    new = changed(
        report(Truth(seed=2)),
        "start.warm",
        lambda case: msgspec.structs.replace(
            case, status="failed", reasons=("it did not start",), measurements=()
        ),
    )
    assert worse(compare(base(), new)) == {("start.warm", "result")}


def test_errors_that_were_not_there_before_are_a_regression() -> None:
    found = compare(base(), report(Truth(seed=2, errors={"api.node_create": 0.05})))
    assert worse(found) == {("api.node_create[closed]", "errors")}


def test_a_few_errors_more_are_none() -> None:
    found = compare(base(), report(Truth(seed=2, errors={"api.node_create": 0.002})))
    assert decision(found, "api.node_create[closed]", "errors") == "ok"


def test_a_count_that_was_always_zero_and_never_is_again_is_a_regression() -> None:
    before = with_figure(base(), "start.warm", "pings_lost", [0, 0, 0, 0, 0])
    now = with_figure(report(Truth(seed=2)), "start.warm", "pings_lost", [3, 2, 5, 1, 2])
    assert worse(compare(before, now)) == {("start.warm", "pings_lost")}


def test_a_count_that_is_zero_now_and_then_is_none() -> None:
    before = with_figure(base(), "start.warm", "pings_lost", [0, 0, 1, 0, 0])
    now = with_figure(report(Truth(seed=2)), "start.warm", "pings_lost", [0, 2, 0, 1, 0])
    assert decision(compare(before, now), "start.warm", "pings_lost") == "ok"


def test_other_parameters_are_not_compared() -> None:
    new = changed(
        report(Truth(seed=2)),
        "api.version[hot-open]",
        lambda case: msgspec.structs.replace(case, parameters={**case.parameters, "rate_per_s": 700.0}),
    )
    found = compare(base(), new)
    assert [s.why for s in found.skipped if s.case == "api.version[hot-open]"] == [
        "was measured with other parameters: rate_per_s 1000 → 700; measure it again with --rates FILE, the other report"
    ]


@pytest.mark.parametrize(("size_bytes", "compared"), [(1_048_611, True), (5_242_880, False)])
def test_bundles_of_nearly_one_size_are_compared_and_others_are_not(size_bytes: int, compared: bool) -> None:
    def of(size: int) -> Callable[[Case], Case]:
        return lambda case: msgspec.structs.replace(case, parameters={**case.parameters, "size_bytes": size})

    name = "api.version[hot-open]"
    found = compare(changed(base(), name, of(1_048_576)), changed(base(), name, of(size_bytes)))
    assert (name in {row.case for row in found.rows}) is compared


def other_host(found: Report) -> Report:
    return msgspec.structs.replace(
        found, host=msgspec.structs.replace(found.host, fingerprint="0123456789abcdef")
    )


def test_different_machines_are_refused() -> None:
    with pytest.raises(Conflict, match="--cross-host"):
        compare(base(), other_host(report(Truth(seed=2))))


def test_different_devices_are_refused() -> None:
    with pytest.raises(Conflict, match="devices"):
        compare(base(), report(Truth(seed=2), device=True))


def test_across_machines_only_what_travels_is_compared() -> None:
    new = other_host(report(Truth(seed=2, machine=3.0)))
    assert worse(compare(base(), new, cross_host=True)) == set()
    slower = other_host(report(Truth(seed=2, machine=3.0, slower={"api.version": 1.25})))
    found = compare(base(), slower, cross_host=True)
    assert ("api.version[hot-closed]", "CPU per request") in worse(found)
    without = msgspec.structs.replace(slower, references=())
    assert {row.quantity for row in compare(base(), without, cross_host=True).rows} == {
        "memory",
        "bytes_per_node",
    }


def test_one_repetition_finds_what_is_gross() -> None:
    one = report(Truth(seed=1, repeat=1))
    assert worse(compare(one, report(Truth(seed=2, repeat=1)))) == set()
    found = compare(one, report(Truth(seed=2, repeat=1, slower={"api.version": 2.0})))
    assert ("api.version[hot-closed]", "throughput") in worse(found)


def test_reports_without_a_common_case_have_nothing_to_compare() -> None:
    found = compare(base(), msgspec.structs.replace(base(), cases=()))
    assert found.rows == ()
    assert len(found.skipped) == len(base().cases)


def test_runs_of_one_release_are_merged_repetition_by_repetition() -> None:
    runs = [report(Truth(seed=seed, repeat=1)) for seed in range(5)]
    merged = merge(runs)
    assert merged.repeat == 5
    assert all(len(case.measurements) in (0, 5) for case in merged.cases)
    found = compare(
        merged, merge([report(Truth(seed=9 + n, repeat=1, slower={"api.version": 1.15})) for n in range(5)])
    )
    assert ("api.version[hot-closed]", "CPU per request") in worse(found)


def test_latencies_at_different_rates_are_not_merged() -> None:
    def at(rate: float, seed: int) -> Report:
        return changed(
            report(Truth(seed=seed, repeat=1)),
            "api.version[hot-open]",
            lambda case: msgspec.structs.replace(case, parameters={**case.parameters, "rate_per_s": rate}),
        )

    merged = merge([at(700.0, 0), at(1000.0, 1), at(1000.0, 2)])
    (case,) = (case for case in merged.cases if case.name == "api.version[hot-open]")
    assert case.parameters["rate_per_s"] == 1000.0
    assert [m.repetition for m in case.measurements] == [1000, 2000]
    assert case.reasons == (
        "1 of 3 runs are left out: they were measured with other parameters: rate_per_s 1000 → 700",
    )


def test_runs_of_different_releases_are_not_merged() -> None:
    with pytest.raises(Conflict, match="releases"):
        merge([report(), report(version="2.0.0 (89abcde)")])
