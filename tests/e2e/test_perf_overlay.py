"""The laboratory's scenarios with machines that join: real agents and nebulas in its own namespaces. Nothing is judged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.perf import cpus, leftovers, network
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.scenarios import agent, lighthouse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.result import Measurement

SAFE_S = 300.0


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        Path(made).chmod(0o711)
        yield Path(made)


async def measured(name: str, directory: Path) -> dict[str, Measurement]:
    (one,) = (each for each in (*lighthouse.SCENARIOS, *agent.SCENARIOS) if each.name == name)
    nebula = Path(str(shutil.which("nebula")))
    laboratory = Laboratory(suite="quick", seed=1, directory=directory, cpus=cpus.cpus(), nebula=nebula)
    bench = Bench(laboratory, scenario=name, cases=one.cases, repetition=0)
    with trio.fail_after(SAFE_S):
        await one.run(bench)
    assert not list(network.NAMESPACES.glob(f"{network.PREFIX}-{leftovers.mark()}-*"))
    assert set(bench.found) == set(one.cases)
    return {case: found.measurements[0] for case, found in bench.found.items()}


async def test_pings_between_nodes_are_counted_while_their_lighthouse_changes(directory: Path) -> None:
    for each in (await measured("lighthouse.gap", directory)).values():
        assert each.figures["sent"].value > 20
        assert each.requests + each.figures["lost"].value == each.figures["sent"].value
        assert each.figures["longest_gap"].value >= lighthouse.PING_EVERY_S / 2
        assert len(each.marks) == lighthouse.QUICK_GAPS


async def test_a_change_comes_by_long_poll_and_by_polling_every_five_seconds(directory: Path) -> None:
    found = await measured("agent.update_latency", directory)
    for each in found.values():
        assert each.requests == agent.QUICK_CHANGES
        assert each.figures["applied_at_most"].value * 1e9 >= each.latency.max_ns


@pytest.mark.long
async def test_an_idle_agent_is_measured_without_its_nebula_and_its_bytes_are_told_apart(
    directory: Path,
) -> None:
    found = await measured("agent.poll_idle", directory)
    for each in found.values():
        assert 20 << 20 < each.figures["rss"].value < 90 << 20
        assert each.figures["nebula_rss"].value > 5 << 20
    # In five seconds a held question says nothing, and a polling agent asks at least once more often than not.
    assert (
        found["held"].figures["agent_bytes_per_h"].value
        <= found["every_5s"].figures["agent_bytes_per_h"].value
    )


@pytest.mark.long
async def test_more_clusters_are_more_memory_of_one_agent(directory: Path) -> None:
    figures = (await measured("agent.many_clusters", directory))[""].figures
    assert figures["first_rss"].value > 20 << 20
    assert figures["each_more_rss"].value < figures["first_rss"].value / 2
