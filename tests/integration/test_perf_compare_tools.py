"""perf/compare-tools, with a real server and our real generator; the other tools are stand-ins that print what they are told to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(__file__).parents[2] / "perf/compare-tools"
LIMIT_S = 120
"""Within which it has ended, also on a machine with other things to do."""


@pytest.fixture
def directory() -> Iterator[Path]:
    # pytest's own names are too long for a socket's path.
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        yield Path(name)


def tool(directory: Path, name: str, says: str) -> None:
    file = directory / name
    # It takes its time: one that computed all the while would be at its own limit.
    file.write_text(f"#!/bin/sh\n/bin/sleep 0.5\necho \"$@\" > '{directory}/{name}.asked'\nprintf '{says}'\n")
    file.chmod(0o755)


def compared(directory: Path) -> subprocess.CompletedProcess[str]:
    few = ["--connections", "4", "--rounds", "1", "--seconds", "1", "--nodes", "3"]
    return subprocess.run(
        [sys.executable, SCRIPT, *few],
        env={**os.environ, "PATH": str(directory)},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_a_tool_that_counts_less_than_we_do_is_found_and_one_that_is_missing_named(directory: Path) -> None:
    tool(directory, "hey", "Requests/sec: 1.0")
    tool(directory, "ab", "Failed requests: 0\\nRequests per second: 1.0")

    done = compared(directory)

    # 5: the machine was busy with other tests, which is found, too.
    assert done.returncode in (1, 5), done.stderr
    assert "wrk is not installed: apt-get install wrk" in done.stderr
    first, titles, *rows = done.stdout.splitlines()
    assert first.startswith("4 connections, 1 rounds of 1 s; the server on processor ")
    assert titles.startswith("TOOL ")
    assert [row.split()[0] for row in rows] == ["hey", "ab"]
    verdict = "DIFFERS" if done.returncode == 1 else "can't tell: the host was busy"
    assert any(verdict in row for row in rows)
    # The server keeps HTTP/1.0's connections, too, when it is asked as ab asks.
    assert not any("a connection each" in row for row in rows)
    # Before the ratio: what our own generator was answered.
    assert all(float(re.findall(r"([\d,]+)  +\d+\.\d\d ", row)[0].replace(",", "")) > 10 for row in rows)
    assert "Authorization: Bearer egn_" in (directory / "hey.asked").read_text()


def test_without_any_tool_nothing_is_started(directory: Path) -> None:
    done = compared(directory)

    assert done.returncode == 2
    assert done.stdout == ""
    for name in ("wrk", "hey", "ab"):
        assert f"{name} is not installed" in done.stderr
