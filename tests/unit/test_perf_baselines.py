"""Kept reports, and the commands that show, keep and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgegc.cli.main import run
from edgegc.errors import Conflict, Invalid, NotFound
from edgegc.perf import baselines, document
from tests.perf_reports import Truth, report

if TYPE_CHECKING:
    from collections.abc import Callable

Run = tuple[int, str, str]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "baselines"
    monkeypatch.setattr(baselines, "directory", lambda: directory)
    return directory


@pytest.fixture
def edgegc(capsys: pytest.CaptureFixture[str], kept: Path) -> Callable[..., Run]:
    def call(*arguments: object) -> Run:
        code = run(["perf", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {
        "base": report(Truth(seed=1)),
        "same": report(Truth(seed=2)),
        "slower": report(Truth(seed=3, slower={"api.version": 1.15})),
    }
    for name, each in made.items():
        document.write(tmp_path / f"{name}.json", each)
    return {name: tmp_path / f"{name}.json" for name in made}


def test_in_a_checkout_baselines_are_with_the_project(tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert baselines.directory({}, root=tmp_path) == tmp_path / "perf" / "baselines"


def test_elsewhere_they_are_in_the_state_directory_and_not_in_the_servers(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": "/state"}
    assert baselines.directory(environ, root=tmp_path) == Path("/state/edgegc-perf/baselines")


def test_a_baseline_is_named_for_host_and_version_and_device() -> None:
    assert baselines.usual_name(report()) == "5f3c9a70-1.0.0--1234567"
    assert baselines.usual_name(report(device=True)) == "5f3c9a70-1.0.0--1234567--512M-25pct"


@pytest.mark.parametrize("name", ["../escape", "", ".hidden", "a/b", "x" * 101])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        baselines.load(name, within=tmp_path)


def test_a_baseline_is_replaced_only_by_force(kept: Path) -> None:
    baselines.save(report(), name="pi4")
    with pytest.raises(Conflict, match="--force"):
        baselines.save(report(), name="pi4")
    baselines.save(report(version="2.0.0"), name="pi4", force=True)
    assert baselines.load("pi4").versions["edgegc"] == "2.0.0"


def test_an_interrupted_run_is_no_baseline(kept: Path) -> None:
    with pytest.raises(Invalid, match="interrupted"):
        baselines.save(msgspec.structs.replace(report(), partial=True))


def test_a_report_is_kept_listed_shown_and_compared_by_name(
    edgegc: Callable[..., Run], files: dict[str, Path]
) -> None:
    assert edgegc("baseline", "save", files["base"], "--name", "pi4", "-q") == (0, "pi4\n", "")
    code, out, _ = edgegc("baseline", "list", "-o", "json")
    (entry,) = json.loads(out)["baselines"]
    assert (code, entry["name"], entry["repeat"], entry["cases"]) == (0, "pi4", 5, 6)
    code, out, _ = edgegc("baseline", "list")
    assert "pi4" in out
    code, out, _ = edgegc("baseline", "show", "pi4")
    assert (code, "Floors" in out) == (0, True)
    code, out, _ = edgegc("compare", "pi4", files["slower"])
    assert (code, "api.version[hot-closed]" in out) == (98, True)


def test_compare_ends_with_98_for_a_regression_only(
    edgegc: Callable[..., Run], files: dict[str, Path]
) -> None:
    assert edgegc("compare", files["base"], files["same"])[0] == 0
    code, out, _ = edgegc("compare", files["base"], files["slower"])
    assert code == 98
    assert "regression" in out
    code, out, _ = edgegc("compare", files["base"], files["slower"], "-q")
    assert code == 98
    assert "api.version[hot-closed] CPU per request" in out.splitlines()


def test_compare_has_json_markdown_and_html(
    edgegc: Callable[..., Run], files: dict[str, Path], tmp_path: Path
) -> None:
    _, out, _ = edgegc("compare", files["base"], files["slower"], "-o", "json")
    rows: list[dict[str, Any]] = json.loads(out)["rows"]
    assert {"case", "quantity", "ratio", "low", "high", "decision", "needs"} <= rows[0].keys()
    _, out, _ = edgegc("compare", files["base"], files["same"], "--format", "md", "--all")
    assert "| api.version[hot-closed] | throughput |" in out
    _, _, err = edgegc("compare", files["base"], files["same"], "--html", tmp_path / "both.html")
    assert "both.html" in err
    assert (tmp_path / "both.html").read_text().startswith("<!doctype html>")


def test_compare_refuses_different_machines_and_says_how_to_go_on(
    edgegc: Callable[..., Run], files: dict[str, Path], tmp_path: Path
) -> None:
    found = report(Truth(seed=2))
    other = msgspec.structs.replace(
        found, host=msgspec.structs.replace(found.host, fingerprint="0123456789abcdef")
    )
    document.write(tmp_path / "other.json", other)
    code, out, err = edgegc("compare", files["base"], tmp_path / "other.json")
    assert (code, out) == (3, "")
    assert "--cross-host" in err
    assert edgegc("compare", files["base"], tmp_path / "other.json", "--cross-host")[0] == 0


def test_compare_ends_with_5_where_nothing_can_be_compared(
    edgegc: Callable[..., Run], files: dict[str, Path], tmp_path: Path
) -> None:
    document.write(tmp_path / "none.json", msgspec.structs.replace(report(), cases=()))
    assert edgegc("compare", files["base"], tmp_path / "none.json")[0] == 5


def test_a_directory_is_the_runs_of_one_release(
    edgegc: Callable[..., Run], files: dict[str, Path], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for seed in range(5):
        document.write(runs / f"{seed}.json", report(Truth(seed=20 + seed, repeat=1)))
    assert edgegc("compare", files["base"], runs)[0] == 0
    assert "5 repetitions" in edgegc("report", runs)[1]


@pytest.mark.parametrize(
    ("form", "begins"),
    [("text", "edgegc"), ("md", "- edgegc"), ("html", "<!doctype"), ("csv", "case,"), ("json", "{")],
)
def test_a_report_has_five_forms(
    edgegc: Callable[..., Run], files: dict[str, Path], tmp_path: Path, form: str, begins: str
) -> None:
    code, out, err = edgegc("report", files["base"], "--format", form)
    assert (code, err) == (0, "")
    assert out.startswith(begins)
    code, out, _ = edgegc("report", files["base"], "--format", form, "--out", tmp_path / "r")
    assert (code, out) == (0, "")
    assert (tmp_path / "r").read_text().startswith(begins)


def test_what_cannot_be_read_is_a_usage_error_in_one_line(edgegc: Callable[..., Run], tmp_path: Path) -> None:
    code, out, err = edgegc("report", tmp_path / "none.json")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    (tmp_path / "bad.json").write_text("{}")
    assert edgegc("compare", tmp_path / "bad.json", tmp_path / "bad.json")[0] == 2
    assert edgegc("baseline", "show", "nothing")[0] != 0
