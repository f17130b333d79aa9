"""Past the server's limits: what clients get there, and how soon they are served again when the rush is over."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from edgegc.client import Client
from edgegc.errors import Error
from edgegc.model import message
from edgegc.perf import process, requests
from edgegc.perf.plan import Ask, Plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.perf.bench import Bench, Served
    from edgegc.perf.meter import Meter

NODES: Final = 400
CAP: Final = 200
"""Connections that the server takes."""
RUSH: Final = 300
"""Connections that come."""
RUSH_PER_S: Final = 300.0
QUEUE: Final = 2
"""Writes that may wait: a real queue takes 1,024, more than a box has clients that write at the same moment."""
WRITERS: Final = 200
FREE_FILES: Final = 100
"""Descriptors left for clients."""
RUSH_S: Final = 6.0
TIMEOUT_S: Final = 2.0
"""Of a client in the rush: it is part of what it gets."""
TRY_EVERY_S: Final = 0.02
TRY_S: Final = 1.0
RECOVERED_S: Final = 60.0
"""Who is not served again by then will not be."""
RECOVERED_MTU: Final = 1450
"""None of those that the rush sets."""
HIGHEST_RATE: Final = "1000000"


async def exhaustion(bench: Bench) -> None:
    """Measure the three limits, each by itself."""
    await _connections(bench)
    await _write_queue(bench)
    await _descriptors(bench)


async def _connections(bench: Bench) -> None:
    """More connections than the server takes."""
    environ = {
        "EDGEGC_LIMITS_CONNECTIONS": str(CAP),
        "EDGEGC_LIMITS_NODE_RATE": HIGHEST_RATE,
        "EDGEGC_LIMITS_NODE_BURST": HIGHEST_RATE,
    }
    async with (
        bench.server(nodes=NODES, limits=True, environ=environ) as served,
        bench.measure(
            "connections", model="open", of=served.server, parameters={"connections": RUSH, "cap": CAP}
        ) as meter,
    ):
        meter.take(await bench.load(_rush(bench, served)))
        await _recovery(meter, lambda: _asks(served))


async def _write_queue(bench: Bench) -> None:
    """More writes at once than may wait."""
    environ = {"EDGEGC_LIMITS_WRITE_QUEUE": str(QUEUE)}
    async with bench.server(nodes=NODES, environ=environ) as served:
        seeded = served.seeded
        updates = tuple(
            requests.node_update(seeded.admin_token, node.id, message.NodeUpdate(mtu=mtu))
            for mtu in (1400, 1350)
            for node in seeded.nodes
        )
        plan = Plan(
            target=served.server.target,
            asks=(Ask(name="node_update", requests=updates),),
            connections=WRITERS,
            duration_s=bench.seconds(RUSH_S),
            seed=bench.random.getrandbits(32),
        )
        async with bench.measure(
            "write-queue",
            model="closed",
            of=served.server,
            parameters={"connections": WRITERS, "queue": QUEUE},
        ) as meter:
            meter.take(await bench.load(plan))
            await _recovery(meter, lambda: _writes(served))


async def _descriptors(bench: Bench) -> None:
    """More connections than the server has file descriptors for: its own cap, which prevents that, is off."""
    async with bench.server(nodes=NODES) as served:
        pid = served.server.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        allowed = process.usage([pid]).fds + FREE_FILES
        async with bench.measure(
            "descriptors",
            model="open",
            of=served.server,
            parameters={"connections": RUSH, "free_descriptors": FREE_FILES},
        ) as meter:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (allowed, before[1]))
            try:
                meter.take(await bench.load(_rush(bench, served)))
                await _recovery(meter, lambda: _asks(served))
            finally:
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _rush(bench: Bench, served: Served) -> Plan:
    checks = tuple(requests.version(node.token) for node in served.seeded.nodes)
    return Plan(
        target=served.server.target,
        asks=(Ask(name="version", requests=checks),),
        connections=RUSH,
        duration_s=bench.seconds(RUSH_S),
        rate_per_s=RUSH_PER_S,
        seed=bench.random.getrandbits(32),
        timeout_s=TIMEOUT_S,
        connect_within_s=0,
    )


async def _recovery(meter: Meter, attempt: Callable[[], Awaitable[object]]) -> None:
    """Write down how long it takes from now until a client that comes anew is served."""
    meter.mark("the rush is over")
    began = trio.current_time()
    while trio.current_time() - began < RECOVERED_S:
        with suppress(Error), trio.move_on_after(TRY_S):
            await attempt()
            meter.figure("recovered", trio.current_time() - began, "s")
            return
        await trio.sleep(TRY_EVERY_S)
    meter.error("not recovered")


async def _asks(served: Served) -> None:
    """Ask as a node does, over a new connection."""
    async with Client(served.server.url, token=served.seeded.nodes[0].token) as client:
        await client.poll()


async def _writes(served: Served) -> None:
    """Write as an administrator does, over a new connection."""
    seeded = served.seeded
    async with Client(served.server.url, token=seeded.admin_token) as client:
        await client.update_node(seeded.nodes[0].id, message.NodeUpdate(mtu=RECOVERED_MTU))
