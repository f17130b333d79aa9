"""Floors and goals: every one of them names something that is measured, and is judged by what was found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from edgegc.errors import Invalid
from edgegc.perf import beside, metrics, thresholds
from edgegc.perf.histogram import Histogram
from edgegc.perf.result import Case, Figure, Measurement, Sample
from edgegc.perf.scenario import every
from edgegc.perf.thresholds import Threshold

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
CASE = re.compile(r"([a-z]+\.[a-z0-9_]+)(?:\[(.+)\])?")


def measurement(*, per_s: float = 100, ms: int = 2, private: int = 0, **more: object) -> Measurement:
    sample = Sample(
        at_s=0.5,
        rss_bytes=private,
        pss_bytes=private,
        private_bytes=private,
        cpu_s=0,
        fds=0,
        context_switches=0,
        written_bytes=0,
        database_bytes=0,
        wal_bytes=0,
    )
    fields = {
        "repetition": 0,
        "model": "closed",
        "duration_s": 10.0,
        "requests": int(per_s * 10),
        "latency": Histogram.of([ms * MS] * 2000).counts(),
        "samples": (sample,),
    }
    return Measurement(**{**fields, **more})  # type: ignore[arg-type]


def case(name: str, *measurements: Measurement, status: str = "ok") -> Case:
    found = CASE.fullmatch(name)
    assert found is not None
    return Case(
        scenario=found[1],
        case=found[2] or "",
        proves="",
        status=status,  # type: ignore[arg-type]
        measurements=measurements,
    )


def threshold(metric: str = "throughput", op: str = ">", value: float = 50, **more: object) -> Threshold:
    return Threshold(**{"case": "api.a", "metric": metric, "op": op, "value": value, "kind": "floor", **more})  # type: ignore[arg-type]


def test_every_built_in_threshold_names_a_case_that_is_measured() -> None:
    known = {
        f"{scenario.name}[{name}]" if name else scenario.name
        for scenario in every()
        for name in scenario.cases
    }
    references = {f"{each.reference}[{each.case}]" for each in beside.ALL if each.case}
    for each in thresholds.load():
        assert each.case in known or each.case.endswith(".*"), each
        assert not each.of or each.of in references | known, each
        metrics.unit_of(case("api.a"), each.metric)
    assert {each.beside for each in beside.ALL} <= known


def test_a_metric_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="'speed' is not a metric"):
        metrics.value(case("api.a", measurement()), "speed")


def test_a_file_with_a_metric_that_is_none_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[[threshold]]\ncase = "api.a"\nkind = "goal"\nmetric = "speed"\nop = ">"\nvalue = 1\n')
    with pytest.raises(Invalid, match="'speed' is not a metric"):
        thresholds.load(path)


def test_a_file_that_is_none_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[[threshold]]\ncase = "api.a"\nkind = "wish"\n')
    with pytest.raises(Invalid, match=r"own\.toml can't be read"):
        thresholds.load(path)


@pytest.mark.parametrize(("op", "value", "held"), [(">", 99, True), (">", 100, False), (">=", 100, True), ("<", 100, False), ("<=", 100, True)])  # fmt: skip
def test_a_threshold_is_held_or_missed(op: str, value: float, held: bool) -> None:
    (verdict,) = thresholds.judge([threshold(op=op, value=value)], [case("api.a", measurement())])
    assert verdict.held is held
    assert verdict.found == "100/s"


def test_what_was_not_to_be_measured_is_not_judged() -> None:
    assert thresholds.judge([threshold()], [case("api.b", measurement())]) == ()


def test_nothing_valid_is_neither_held_nor_missed() -> None:
    invalid = case("api.a", measurement(invalid=("the host was busy",)), status="invalid")
    (verdict,) = thresholds.judge([threshold()], [invalid])
    assert verdict.held is None
    assert verdict.found == "invalid"


def test_percentiles_come_from_all_repetitions_together_and_throughput_is_their_median() -> None:
    three = case("api.a", measurement(ms=1), measurement(ms=1, per_s=300), measurement(ms=50, per_s=200))
    assert metrics.value(three, "p50") == pytest.approx(0.001, rel=0.01)
    assert metrics.value(three, "p99") == pytest.approx(0.050, rel=0.01)
    assert metrics.value(three, "throughput") == 200


def test_invalid_repetitions_count_for_nothing() -> None:
    mixed = case("api.a", measurement(per_s=100), measurement(per_s=900, invalid=("lag",)))
    assert metrics.value(mixed, "throughput") == 100


def test_a_ratio_is_told_with_both_of_its_sides() -> None:
    echo = Case(scenario="raw_echo", case="version", proves="", status="ok", measurements=(measurement(),))
    cases = [case("api.a", measurement(per_s=60))]
    wanted = threshold(op=">=", value=0.55, of="raw_echo[version]")
    (verdict,) = thresholds.judge([wanted], cases, [echo])
    assert verdict.held is True
    assert verdict.found == "0.60 × (60/s : 100/s)"
    (verdict,) = thresholds.judge([wanted], cases, [])
    assert verdict.held is None


def test_a_pattern_is_held_by_the_worst_of_its_cases() -> None:
    cases = [
        case("api.a", measurement(private=10)),
        case("api.b[x]", measurement(private=30)),
        case("api.c", measurement(private=90)),
    ]
    wanted = threshold("private", "<=", 20, case="api.*", but=("api.c",))
    (verdict,) = thresholds.judge([wanted], cases)
    assert verdict.held is False
    assert verdict.found == "30 B in api.b[x]"


def test_goals_of_the_machine_are_not_asked_of_an_emulated_device() -> None:
    cases = [case("api.a", measurement())]
    assert len(thresholds.judge([threshold(on="machine")], cases)) == 1
    assert thresholds.judge([threshold(on="machine")], cases, emulated=True) == ()
    assert len(thresholds.judge([threshold(on="device")], cases, emulated=True)) == 1


def test_a_figure_is_judged_in_its_own_unit() -> None:
    found = measurement(figures={"to_100_percent": Figure(value=0.25, unit="s")})
    (verdict,) = thresholds.judge([threshold("figure:to_100_percent", "<", 1)], [case("api.a", found)])
    assert verdict.name == "api.a to 100 percent < 1s"
    assert verdict.found == "250ms"


def test_the_strictest_p99_is_what_lag_is_measured_against() -> None:
    limits = thresholds.latency_limits(
        [threshold("p99", "<", 0.1), threshold("p99", "<=", 0.01), threshold()]
    )
    assert limits == {"api.a": 0.01}
