"""Real servers under measurement: started, seeded, restarted, ended, and nothing of them left."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.errors import Unavailable
from edgegc.model import message
from edgegc.perf import filesystem, process
from edgegc.perf.seed import seed
from edgegc.perf.server import ServerOptions, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SAFE_S = 60.0


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name is short enough for the sockets below it; pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_a_server_is_started_seeded_restarted_and_leaves_nothing(short: Path) -> None:
    with trio.fail_after(SAFE_S):
        async with serving(ServerOptions(directory=short)) as server:
            first, took = server.pid, server.started_s
            seeded = await seed(server, nodes=30, seed=1)
            assert await server.restart() > 0
            page = await server.admin.nodes(message.NodeQuery(page_size=100), cluster_id=seeded.cluster_id)
            assert server.alive
            assert server.starts == 2
            second = server.pid
            assert server.database_bytes() > 0
    assert took > 0
    assert first != second
    assert [node.id for node in page.nodes] == [node.id for node in seeded.nodes]
    assert not process.is_alive(second)
    assert left_in(short) == []


async def test_a_cancelled_run_leaves_no_process_and_no_directory(short: Path) -> None:
    with trio.fail_after(SAFE_S), trio.CancelScope() as scope:
        async with serving(ServerOptions(directory=short)) as server:
            scope.cancel()
            await trio.sleep_forever()
    assert not process.is_alive(server.pid)
    assert left_in(short) == []


async def test_a_server_that_does_not_start_is_an_error_with_the_end_of_its_log(short: Path) -> None:
    options = ServerOptions(directory=short, environ={"EDGEGC_API_LISTEN_AT": "1"})
    with trio.fail_after(SAFE_S), pytest.raises(Unavailable, match="EDGEGC_API_LISTEN_AT is not a setting"):
        async with serving(options):
            pass
    assert left_in(short) == []


async def test_a_server_with_tls_answers_over_tls(short: Path) -> None:
    with trio.fail_after(SAFE_S):
        async with serving(ServerOptions(directory=short, tls=True)) as server:
            assert server.target.tls
            assert (await server.admin.health()).status == "ok"


async def test_a_lighthouse_runs_also_below_a_directory_that_strangers_may_not_pass(
    short: Path, nebula: Path
) -> None:
    assert filesystem.closed_at(short) is not None
    with trio.fail_after(SAFE_S):
        async with serving(ServerOptions(directory=short, nebula=nebula)) as server:
            tenant = await server.admin.create_tenant(message.TenantCreate(name="t"))
            await server.admin.create_cluster(
                message.ClusterCreate(
                    tenant_id=tenant.id,
                    name="c",
                    network_cidr="10.77.0.0/24",
                    provide_lighthouse=True,
                    lighthouse_port=free_port(),
                    lighthouse_public_addresses=("192.0.2.1:4242",),
                )
            )
            while not (
                running := [each.pid for each in (await server.admin.lighthouses()).lighthouses if each.pid]
            ):
                await trio.sleep(0.05)
            assert running[0] in server.pids()
            # It leaves its nebula behind, which must end all the same.
            await server.crash()
            assert process.is_alive(running[0])
    assert not process.is_alive(running[0])
    assert left_in(short) == []
