"""Profiles of real processes: a scenario that was not changed for it, its server sampled in measured time alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.perf import profiling, scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.profiler.recording import Kind

SAFE_S = 120.0


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name is short enough for the sockets below it; pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def profiled(name: str, kind: Kind, directory: Path) -> profiling.Profiling:
    [chosen] = scenario.chosen(suite="full", only=(name,))
    options = profiling.Options(scenario=chosen, kind=kind, tool="own", suite="quick", directory=directory)
    with trio.fail_after(SAFE_S):
        return await profiling.run(options)


async def test_the_servers_computing_is_found_and_costs_what_the_kernel_says(short: Path) -> None:
    found = await profiled("api.version_304", "cpu", short)
    [closed] = [each for each in found.cases if each.case == "closed"]
    assert closed.requests > 0
    assert closed.cpu_s
    assert 0.5 * closed.cpu_s < closed.profile.total < 1.5 * closed.cpu_s
    names = {frame.function for frame, _ in closed.profile.functions()}
    assert {"Reactor.run", "Lane.take"} <= names
    assert left_in(short) == []


async def test_the_servers_waiting_is_found(short: Path) -> None:
    found = await profiled("api.version_304", "blocking", short)
    [opened] = [each for each in found.cases if each.case == "open"]
    # A connection's task, at a line of ours: in trio's they all wait alike.
    waits = [(wait.who, wait.at.file) for wait, _ in opened.profile.waits()]
    assert any("Server._serve" in who and "/edgegc/api/" in file for who, file in waits)


async def test_memory_is_found_without_what_looking_at_it_took(short: Path) -> None:
    found = await profiled("db.topology_query", "memory", short)
    for each in found.cases:
        assert each.profile.total > 5 << 20
        assert each.grown is not None
        assert not [frame for frame, _ in each.profile.lines() if "profiler" in frame.file]


async def test_the_store_by_itself_is_profiled_as_well(short: Path) -> None:
    found = await profiled("db.node_insert", "cpu", short)
    files = {frame.file for each in found.cases for frame, _ in each.profile.functions()}
    # In which the writer's thread is in nearly all of them: a busy machine leaves but a few samples.
    assert any(file.endswith("edgegc/store/worker.py") for file in files)
