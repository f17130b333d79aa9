"""A minute and a half of everything that nodes and administrators ask: the daemon's memory does not follow the number of requests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio

from edgegc.perf import cpus
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.scenarios.soak import PART_S, PER_S, steady

PARTS = 6
SAFE_S = 400.0
LEAK_BYTES = 128
"""What a request may keep, by the lower end of the interval; to tell less from the steps of an allocator takes longer."""


async def test_many_requests_keep_no_memory() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        laboratory = Laboratory(suite="full", seed=1, directory=Path(directory), cpus=cpus.cpus())
        bench = Bench(laboratory, scenario="load.soak", cases=("",), repetition=0)
        with trio.fail_after(SAFE_S):
            await steady(bench, parts=PARTS, part_s=PART_S)
    (measured,) = bench.found[""].measurements
    assert measured.requests > 0.9 * PARTS * PART_S * PER_S
    assert not measured.errors
    growth = {end: measured.figures[f"growth_per_hour{end}"].value for end in ("", "_low", "_high")}
    assert growth["_low"] < growth[""] < growth["_high"]
    assert growth["_low"] < LEAK_BYTES * PER_S * 3600
