"""Where a simulated fleet lives: a server of our own, or one that runs already, there in a cluster made for it.

Knows no load. What is made on a server that was there before is deleted again; its own clusters are never touched.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil
import trio

from edgegc.client import Client
from edgegc.connection import parse_target
from edgegc.errors import Conflict, Invalid
from edgegc.model import message
from edgegc.perf import seed
from edgegc.perf.plan import Target
from edgegc.perf.seed import Seeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.perf.bench import Bench
    from edgegc.perf.server import Server

SPARE_CONNECTIONS: Final = 1024
"""For downloads and administrators, beside a connection of each node."""
HIGHEST_RATE: Final = "1000000"
NETWORK: Final = "10.0.0.0/8"
"""Of the cluster that is made on a server that runs: of no consequence, for no node of it ever runs."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
CLEAN_UP_S: Final = 60.0
"""What a server that runs is given to delete the fleet's cluster; it has thousands of nodes."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A server that runs already. ``token`` is an operator's."""

    url: str
    token: str
    pin: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A server with a fleet in it, for as long as it is asked. ``watched``: it, or its process; None where it is not here."""

    target: Target
    admin: Client
    seeded: Seeded
    watched: Server | tuple[int] | None


@asynccontextmanager
async def own(bench: Bench, *, nodes: int, room: int, tls: bool) -> AsyncIterator[Ground]:
    """Start a server for ``nodes`` nodes, with room for ``room`` in its settings; all else as it comes.

    Its limit of connections is a setting, and no property of this box: it is set so that it is not in the way. That of
    requests by one node stays, where a real fleet has it.
    """
    environ = {
        "EDGEGC_LIMITS_CONNECTIONS": str(room + SPARE_CONNECTIONS),
        "EDGEGC_LIMITS_HELD_POLLS": str(2 * room),
    }
    async with bench.server(nodes=nodes, tls=tls, limits=True, environ=environ) as served:
        yield Ground(
            target=served.server.target,
            admin=served.server.admin,
            seeded=served.seeded,
            watched=served.server,
        )


async def check(elsewhere: Elsewhere, *, i_know: bool) -> None:
    """Raise Conflict where a server has clusters, unless ``i_know``; Unreachable where there is none."""
    _target(elsewhere.url)
    async with Client(elsewhere.url, token=elsewhere.token, pin=elsewhere.pin) as admin:
        found = (await admin.clusters()).clusters
    if found and not i_know:
        raise Conflict(
            f"{elsewhere.url} has {len(found)} cluster{'s' * (len(found) > 1)}: a load could slow down what depends on them; say --i-know if that may be"
        )


@asynccontextmanager
async def borrowed(elsewhere: Elsewhere, *, nodes: int, seed_number: int) -> AsyncIterator[Ground]:
    """Make a tenant and a cluster with ``nodes`` nodes on a server that runs, and delete them afterwards.

    Deletion is not cut short by cancelling, and given up after a minute. Raises errors.Error as the server says it.
    """
    async with Client(elsewhere.url, token=elsewhere.token, pin=elsewhere.pin) as admin:
        name = f"edgegc-perf-{secrets.token_hex(4)}"
        tenant = await admin.create_tenant(message.TenantCreate(name=name))
        try:
            cluster = await admin.create_cluster(
                message.ClusterCreate(tenant_id=tenant.id, name=name, network_cidr=NETWORK)
            )
            made = await seed.add_nodes(admin, cluster.id, range(nodes), keys=True, seed=seed_number)
            yield Ground(
                target=_target(elsewhere.url),
                admin=admin,
                seeded=Seeded(
                    tenant_id=tenant.id, cluster_id=cluster.id, admin_token=elsewhere.token, nodes=made
                ),
                watched=_process_of(elsewhere.url),
            )
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLEAN_UP_S):
                await admin.delete_tenant(tenant.id, cascade=True)


def _target(url: str) -> Target:
    parsed = parse_target(url)
    if parsed.scheme == "unix" or parsed.prefix:
        raise Invalid(f"--url must be http://HOST:PORT or https://HOST:PORT, not {url}")
    return Target(host=parsed.host, port=parsed.port, tls=parsed.scheme == "https")


def _process_of(url: str) -> tuple[int] | None:
    """Return the process that listens at an address of this machine, where it is one, and we may know."""
    target = _target(url)
    if target.host not in LOOPBACK:
        return None
    try:
        found = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    pids = {
        each.pid
        for each in found
        if each.status == psutil.CONN_LISTEN
        and each.laddr
        and each.laddr.port == target.port
        and each.pid is not None
    }
    return (pids.pop(),) if len(pids) == 1 else None
