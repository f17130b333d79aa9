"""The scenarios of the API and of loads, on real servers and in small: each measures what it announces, without errors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.errors import Conflict, Unavailable
from edgegc.model import message
from edgegc.perf import capacity, cpus, fleet, ground
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.fleet import Fleet
from edgegc.perf.ground import Elsewhere
from edgegc.perf.scenarios import api, load
from edgegc.perf.server import Server, ServerOptions, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from edgegc.perf.result import Measurement
    from edgegc.perf.scenario import Scenario

LIMIT_S = 120
"""Within which whatever is waited for has come, also on a machine with other things to do."""
SOME = ("api.version", "api.node_create", "load.exhaustion")
"""As many as every commit can bear."""
EXPECTED = {
    "load.exhaustion[connections]": {"status 503"},
    "load.exhaustion[write-queue]": {"status 503"},
    "load.exhaustion[descriptors]": {"timeout"},
}
"""Errors that are what is measured."""


@pytest.fixture
def directory() -> Iterator[Path]:
    # pytest's own names are too long for a socket's path.
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        yield Path(name)


def bench_of(scenario: Scenario, directory: Path, there: Elsewhere | None = None) -> Bench:
    laboratory = Laboratory(suite="quick", seed=1, directory=directory, cpus=cpus.cpus(), elsewhere=there)
    return Bench(laboratory, scenario=scenario.name, cases=scenario.cases, repetition=0)


async def measured(
    scenario: Scenario, directory: Path, there: Elsewhere | None = None
) -> dict[str, Measurement]:
    bench = bench_of(scenario, directory, there)
    with trio.fail_after(LIMIT_S):
        await scenario.run(bench)
    return {case: found.measurements[-1] for case, found in bench.found.items()}


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(each, id=each.name, marks=() if each.name in SOME else pytest.mark.long)
        for each in (*api.SCENARIOS, *load.SCENARIOS)
        if each.name != "load.longpoll_fanout"  # below
    ],
)
async def test_a_scenario_measures_what_it_announces(scenario: Scenario, directory: Path) -> None:
    found = await measured(scenario, directory)
    left_out = {"5MiB-closed", "5MiB-open", "10MiB-closed", "10MiB-open"}  # in the full suite only
    assert set(found) == set(scenario.cases) - left_out
    for case, each in found.items():
        assert set(each.errors) <= EXPECTED.get(f"{scenario.name}[{case}]", set())
        assert each.requests or case == "held-tls"
        assert len(each.samples) >= 2


async def test_a_change_reaches_every_node_that_waits_for_one(directory: Path) -> None:
    (scenario,) = (each for each in load.SCENARIOS if each.name == "load.longpoll_fanout")
    found = await measured(scenario, directory)
    assert set(found) == set(scenario.cases)
    for case, changes in (("clear", 3), ("tls", 2)):
        assert found[case].requests == changes * 200
        figures = found[case].figures
        assert 0 < figures["to_50_percent"].value <= figures["to_100_percent"].value < 30


@pytest.fixture
async def elsewhere(directory: Path) -> AsyncIterator[tuple[Server, Elsewhere]]:
    async with serving(ServerOptions(directory=directory)) as server:
        made = await server.admin.create_api_token(message.ApiTokenCreate(scopes=("operator",)))
        yield server, Elsewhere(url=server.url, token=str(made.token))


async def test_a_fleet_elsewhere_leaves_nothing_behind(
    elsewhere: tuple[Server, Elsewhere], directory: Path
) -> None:
    server, there = elsewhere
    await ground.check(there, i_know=False)
    wanted = Fleet(nodes=20, interval_s=0.5, duration_s=2.0, change_every_s=1.0)
    found = await measured(fleet.scenario(wanted, tls=False), directory, there)
    assert found[""].requests > 40
    assert not found[""].errors
    assert found[""].figures["downloads"].value > 0
    assert not (await server.admin.clusters()).clusters
    assert not (await server.admin.tenants()).tenants


async def test_a_server_elsewhere_with_clusters_is_not_loaded(elsewhere: tuple[Server, Elsewhere]) -> None:
    server, there = elsewhere
    tenant = await server.admin.create_tenant(message.TenantCreate(name="somebody"))
    await server.admin.create_cluster(
        message.ClusterCreate(tenant_id=tenant.id, name="home", network_cidr="10.42.0.0/16")
    )
    with pytest.raises(Conflict, match=r"1 cluster: .* --i-know"):
        await ground.check(there, i_know=False)
    await ground.check(there, i_know=True)


async def test_held_polls_of_a_fleet_hear_of_changes(directory: Path) -> None:
    wanted = Fleet(nodes=50, interval_s=None, duration_s=4.0, change_every_s=2.0)
    found = (await measured(fleet.scenario(wanted, tls=True), directory))[""]
    assert not found.errors
    assert found.requests >= 50
    assert found.figures["to_100_percent"].value < 30


@pytest.mark.long
async def test_a_box_without_memory_for_a_server_carries_no_node(directory: Path) -> None:
    limits = capacity.Limits(interval_s=1.0, p99_s=10.0, memory_bytes=16 << 20)
    answers: list[capacity.Answer] = []
    scenario = capacity.scenario(limits, answers)
    with trio.fail_after(LIMIT_S), pytest.raises(Unavailable, match="carries no node"):
        await scenario.run(bench_of(scenario, directory))
    assert not answers
