"""``packaging/perf-gate``: what it starts, in which order, and what it ends with. The releases are scripts that note their arguments."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

GATE = Path(__file__).parents[2] / "packaging" / "perf-gate"
RELEASE = """#!/bin/sh
echo "$(basename "$0") $*" >>"$NOTES"
case $* in
    "perf list") exit "${LIST_STATUS:-0}" ;;
    "perf run "*) while [ $# -gt 0 ]; do [ "$1" = --out ] && echo '{}' >"$2"; shift; done; exit "${RUN_STATUS:-0}" ;;
    "perf compare "*) exit "${COMPARE_STATUS:-0}" ;;
esac
"""


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    for name in ("base", "new"):
        file = tmp_path / f"{name}.pyz"
        file.write_text(RELEASE)
        file.chmod(0o755)
    return tmp_path


def gate(directory: Path, *arguments: str, **environ: str) -> tuple[int, list[str], str]:
    notes = directory / "notes"
    notes.write_text("")
    done = subprocess.run(
        [str(GATE), *arguments],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "NOTES": str(notes), "TMPDIR": str(directory), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Their own paths apart, which differ from run to run.
    said = notes.read_text().replace(f"{directory}/", "").splitlines()
    return done.returncode, [line for line in said if " perf run " in line], done.stderr


def without_reports(runs: list[str]) -> list[str]:
    """Return the command lines without where a report is to be, and in which directory one is read."""
    return [re.sub(r" --rates \S*?(base/|new/)", r" --rates \1", line.split(" --out")[0]) for line in runs]


def test_the_releases_are_measured_alternately_by_one_laboratory(releases: Path) -> None:
    code, runs, _ = gate(
        releases, "--rounds", "2", "base.pyz", "new.pyz", "--only", "api.*", "--suite", "quick"
    )
    assert code == 0
    assert without_reports(runs) == [
        f"new.pyz perf run --server {which}.pyz{rates} --only api.* --suite quick"
        for which, rates in (
            ("base", ""),  # which decides how often open loads ask
            ("new", " --rates base/1-server.json"),
            ("new", " --rates base/1-server.json"),
            ("base", " --rates base/1-server.json"),
        )
    ]


def test_the_store_is_measured_by_each_release_itself(releases: Path) -> None:
    _, runs, _ = gate(releases, "--rounds", "1", "base.pyz", "new.pyz")
    assert without_reports(runs) == [
        "new.pyz perf run --server base.pyz",
        "base.pyz perf run --only db.*",
        "new.pyz perf run --server new.pyz --rates base/1-server.json",
        "new.pyz perf run --only db.*",
    ]


@pytest.mark.parametrize("status", [0, 5, 98])
def test_it_ends_as_the_comparison_does(releases: Path, status: int) -> None:
    arguments = ("--rounds", "1", "base.pyz", "new.pyz", "--only", "api.version")
    assert gate(releases, *arguments, COMPARE_STATUS=str(status))[0] == status


@pytest.mark.parametrize(
    ("status", "ends"), [("1", 0), ("5", 0), ("99", 0), ("2", 2), ("4", 4), ("130", 130)]
)
def test_a_run_that_could_not_be_made_ends_it_and_one_with_bad_figures_does_not(
    releases: Path, status: str, ends: int
) -> None:
    arguments = ("--rounds", "1", "base.pyz", "new.pyz", "--only", "api.version")
    assert gate(releases, *arguments, RUN_STATUS=status)[0] == ends


def test_nothing_is_left_behind_unless_it_is_to_be_kept(releases: Path) -> None:
    before = {*releases.iterdir(), releases / "notes"}
    gate(releases, "--rounds", "1", "base.pyz", "new.pyz", "--only", "api.version")
    assert set(releases.iterdir()) == before
    gate(releases, "--rounds", "1", "--keep", "kept", "base.pyz", "new.pyz", "--only", "api.version")
    assert (releases / "kept" / "base" / "1-server.json").exists()
    code, _, said = gate(releases, "--keep", "kept", "base.pyz", "new.pyz")
    assert code == 2
    assert "empty directory" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "needs BASE and NEW"),
        (("base.pyz",), "needs BASE and NEW"),
        (("--rounds", "0", "base.pyz", "new.pyz"), "whole number"),
        (("base.pyz", "none.pyz"), "can't be executed"),
        (("--nonsense", "base.pyz", "new.pyz"), "unknown option"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    releases: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, runs, said = gate(releases, *arguments)
    assert (code, runs) == (2, [])
    assert words in said
