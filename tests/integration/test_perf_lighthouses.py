"""Scenarios of lighthouses on real nebula, a change or two each: what is told is there and in order. Nothing is judged."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.perf import cpus, process
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.scenarios import lighthouse, overlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.result import Measurement
    from edgegc.perf.scenario import Scenario

NEBULA = shutil.which("nebula")
SAFE_S = 120.0
FOLLOWED = ("lighthouse.start", "lighthouse.detect", "lighthouse.apply_hup", "lighthouse.restart")

pytestmark = pytest.mark.skipif(NEBULA is None, reason="needs nebula")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        # The lighthouses' user passes through.
        Path(made).chmod(0o711)
        yield Path(made)


def scenario(name: str) -> Scenario:
    (found,) = (each for each in lighthouse.SCENARIOS if each.name == name)
    return found


async def measured(name: str, directory: Path) -> dict[str, Measurement]:
    one = scenario(name)
    laboratory = Laboratory(
        suite="quick", seed=1, directory=directory, cpus=cpus.cpus(), nebula=Path(str(NEBULA))
    )
    bench = Bench(laboratory, scenario=name, cases=one.cases, repetition=0)
    with trio.fail_after(SAFE_S):
        await one.run(bench)
    assert not any(lives_in(pid, directory) for pid in process.pids())
    return {case: found.measurements[0] for case, found in bench.found.items() if found.measurements}


def lives_in(pid: int, directory: Path) -> bool:
    try:
        return any(str(directory) in word for word in process.arguments(pid))
    except process.Gone:
        return False


@pytest.mark.parametrize("name", FOLLOWED)
async def test_a_change_is_followed_from_its_sending_until_it_runs(name: str, directory: Path) -> None:
    found = await measured(name, directory)
    assert set(found) == set(scenario(name).cases)
    for case, each in found.items():
        assert each.requests == lighthouse.QUICK_CHANGES
        assert not each.errors
        known = ("answered", "noticed", "rendered", "said", "running")
        moments = [each.figures[moment].value for moment in known if moment in each.figures]
        assert len(moments) == (3 if case == "asked" else 5)
        assert moments == sorted(moments)


async def test_a_burst_comes_to_fewer_reloads_and_restarts_than_changes(directory: Path) -> None:
    found = await measured("lighthouse.burst", directory)
    assert 1 <= found["reload"].figures["reloads"].value < lighthouse.BURST
    assert found["reload"].figures["restarts"].value == 0
    assert 1 <= found["restart"].figures["restarts"].value < lighthouse.BURST


async def test_a_killed_lighthouse_answers_again(directory: Path) -> None:
    found = await measured("lighthouse.crash_recovery", directory)
    assert found[""].requests == lighthouse.QUICK_CRASHES
    assert found[""].figures["shown"].value * 1e9 >= found[""].latency.max_ns / 2


async def test_what_a_lighthouse_needs_is_that_of_nebula_alone(directory: Path) -> None:
    found = await measured("lighthouse.footprint", directory)
    figures = found["idle"].figures
    assert 1 << 20 < figures["rss"].value < 40 << 20
    assert 3 < figures["fds"].value < 30
    assert figures["cpu_percent"].value < 50
    assert found["idle"].samples[-1].database_bytes == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's lighthouses run as somebody else")
async def test_where_nobody_else_may_pass_through_lighthouses_run_as_root_and_that_is_said(
    directory: Path,
) -> None:
    os.chmod(directory, 0o700)
    laboratory = Laboratory(
        suite="quick", seed=1, directory=directory, cpus=cpus.cpus(), nebula=Path(str(NEBULA))
    )
    bench = Bench(laboratory, scenario="lighthouse.start", cases=("",), repetition=0)
    with trio.fail_after(SAFE_S):
        async with overlay.lit(bench) as box:
            status = await box.lighthouse.until_running()
            assert status.pid is not None
            assert os.stat(f"/proc/{status.pid}").st_uid == 0
            assert await box.lighthouse.answers(status.port)
            assert not await box.lighthouse.answers(overlay.free_udp_port())
    assert overlay.RAN_AS_ROOT in bench.warnings
