"""What a bench makes of a server that ends, or of what a device kills, while it is measured."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.errors import Unavailable
from edgegc.perf import cages, cpus
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.device import Device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.result import Measurement

SAFE_S = 60.0


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


def bench(directory: Path, *, emulated: Device | None = None) -> Bench:
    laboratory = Laboratory(suite="quick", seed=1, directory=directory, cpus=cpus.cpus(), device=emulated)
    return Bench(laboratory, scenario="api.test", cases=("",), repetition=0)


def measured(of: Bench) -> Measurement:
    (measurement,) = of.found[""].measurements
    return measurement


async def test_a_server_that_ends_while_it_is_measured_makes_that_invalid_and_says_how(short: Path) -> None:
    one = bench(short)
    with trio.fail_after(SAFE_S):
        async with one.server(nodes=3) as served, one.measure(model="none", of=served):
            await served.server.crash()
    assert "the server ended by SIGKILL before the measurement did" in measured(one).invalid


async def test_what_a_server_used_is_in_its_measurement(short: Path) -> None:
    one = bench(short)
    with trio.fail_after(SAFE_S):
        async with one.server(nodes=3) as served, one.measure(model="none", of=served):
            await served.server.admin.health()
    samples = measured(one).samples
    assert len(samples) >= 2
    assert samples[-1].private_bytes > 10 << 20
    assert samples[-1].fds > 5
    assert samples[-1].database_bytes > 0


async def test_what_the_memory_limit_kills_is_counted_and_told(short: Path) -> None:
    emulated = Device.parse("256M:100%")
    try:
        with cages.cage(emulated):
            pass
    except Unavailable:  # in test_perf_device the reasons are looked at
        return
    one = bench(short, emulated=emulated)
    with trio.fail_after(SAFE_S):
        async with one.server(nodes=3) as served, one.measure(model="none", of=served):
            cage = served.server.cage
            assert cage is not None
            greedy = cage.wrap([sys.executable, "-c", "x = b'1' * 500_000_000"])
            # As the largest it is the one that the kernel chooses.
            await trio.run_process(greedy, check=False, stderr=subprocess.DEVNULL)
    found = measured(one)
    assert found.figures["killed for memory"].value == 1
    assert "the memory limit of 256 MiB and 100 % of a core killed 1 of its processes" in found.invalid
    assert found.figures["cage peak"].value > 0
