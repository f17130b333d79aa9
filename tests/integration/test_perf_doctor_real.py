"""The laboratory's doctor on this machine, as a command."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from edgegc.perf import respawn

SAFE_S = 120


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgegc", "perf", "doctor", *words],
        env=respawn.environ(),
        capture_output=True,
        text=True,
        timeout=SAFE_S,
        check=False,
    )


def test_every_check_is_answered_and_the_exit_code_says_whether_it_is_fit() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        said = run("--dir", directory, "-o", "json")
    found = json.loads(said.stdout)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert {"processors", "other load", "fsync", "clock", "control groups", "generator"} <= set(states)
    assert set(states.values()) <= {"ok", "warn", "fail"}
    assert found["fit"] is ("fail" not in states.values())
    assert said.returncode == (0 if found["fit"] else 3)


def test_what_is_no_device_is_a_mistake_in_the_command() -> None:
    said = run("--device", "512M")
    assert said.returncode == 2
    assert "as in 512M:25%" in said.stderr
