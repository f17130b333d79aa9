"""packaging/whole_report.py: what counts as a laboratory that does not work, and what as a machine that was busy."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgegc.perf import document
from tests.perf_reports import invalid, report

if TYPE_CHECKING:
    from edgegc.perf.result import Report

SCRIPT = Path(__file__).parents[2] / "packaging/whole_report.py"
MEASURED = ("api.version", "api.node_create", "db.node_insert", "start.warm")


@pytest.fixture(scope="module")
def script() -> Any:
    spec = spec_from_file_location("whole_report", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def whole() -> Report:
    made = report()
    return msgspec.structs.replace(made, cases=tuple(c for c in made.cases if c.scenario in MEASURED))


def test_a_report_in_which_everything_was_measured_is_whole(script: Any, whole: Report) -> None:
    assert list(script.lacking(whole, MEASURED)) == []


def test_a_machine_that_was_too_busy_to_be_trusted_is_no_fault(script: Any, whole: Report) -> None:
    spoiled = tuple(invalid(case, "the host was busy") for case in whole.cases)

    assert list(script.lacking(msgspec.structs.replace(whole, cases=spoiled), MEASURED)) == []


def test_what_is_missing_failed_unavailable_or_unanswered_is_named(script: Any, whole: Report) -> None:
    version, *_, warm = whole.cases
    silent = tuple(msgspec.structs.replace(each, requests=0) for each in version.measurements)
    broken = msgspec.structs.replace(
        whole,
        partial=True,
        references=(),
        cases=(
            msgspec.structs.replace(version, measurements=silent),
            msgspec.structs.replace(version, case="open", status="failed", reasons=("the server ended",)),
            msgspec.structs.replace(warm, status="unavailable", measurements=(), reasons=("no nebula",)),
            msgspec.structs.replace(warm, measurements=()),
        ),
    )

    assert list(script.lacking(broken, MEASURED)) == [
        "the run was interrupted",
        "api.node_create is not in the report",
        "db.node_insert is not in the report",
        "no reference is in the report",
        "api.version[hot-closed]: no request was answered",
        "api.version[open] failed: the server ended",
        "start.warm unavailable: no nebula",
        "start.warm was not measured",
    ]


def test_a_file_that_is_no_report_or_not_as_the_schema_says_is_wrong(
    script: Any, tmp_path: Path, whole: Report
) -> None:
    other, long = tmp_path / "other.json", tmp_path / "long.json"
    other.write_text("{}")
    document.write(long, whole)

    assert "is no report" in next(iter(script.wrong(other)))
    assert not [each for each in script.wrong(long) if "schema" in each]
