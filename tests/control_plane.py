"""A control plane for tests: an inline database in memory, a clock that stands still, a tenant and a cluster.

Not a fake: everything in it is real but the clock, the disk and the threads.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from edgegc.control import callers, clusters, credentials, enrolment, nodes, tenants
from edgegc.control.control import Control, open_control
from edgegc.model import message
from edgegc.nebula import keys
from edgegc.settings import Settings
from edgegc.store.database import MEMORY, Database, open_database
from edgegc.store.vault import Vault
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.model.credential import Caller
    from edgegc.model.manifest import Server

MASTER = bytes(range(32))
OPERATOR = callers.socket_caller("test-request")


class Plane:
    """A control plane with one cluster, and short ways to what most tests need."""

    def __init__(self, control: Control, clock: FakeClock) -> None:
        self.control = control
        self.clock = clock
        self.tenant_id = ""
        self.cluster_id = ""

    async def add_cluster(self, name: str = "home", **changes: Any) -> message.ClusterView:
        if not self.tenant_id:
            tenant = await tenants.create(self.control, OPERATOR, message.TenantCreate(name="acme"))
            self.tenant_id = tenant.id
        fields: dict[str, Any] = {"tenant_id": self.tenant_id, "name": name, "network_cidr": "10.42.0.0/16"}
        return await clusters.create(self.control, OPERATOR, message.ClusterCreate(**(fields | changes)))

    async def add_node(self, name: str, *, keyed: bool = True, **changes: Any) -> message.NodeView:
        cluster_id = changes.pop("cluster_id", self.cluster_id)
        if keyed and "public_key" not in changes:
            changes["public_key"] = new_public_key()
        return await nodes.create(
            self.control, OPERATOR, cluster_id, message.NodeCreate(name=name, **changes)
        )

    async def node(self, node_id: str) -> message.NodeView:
        return await nodes.get(self.control, OPERATOR, node_id)

    async def patch(self, node_id: str, **changes: Any) -> message.NodeView:
        return await nodes.update(self.control, OPERATOR, node_id, message.NodeUpdate(**changes))

    async def key(self, **changes: Any) -> Caller:
        """Make an enrolment key and return who holds it."""
        made = await enrolment.create_key(
            self.control, OPERATOR, self.cluster_id, message.EnrolmentKeyCreate(**changes)
        )
        assert isinstance(made.key, str)
        return await self.caller(made.key)

    async def caller(self, token: object) -> Caller:
        assert isinstance(token, str)
        return await credentials.authenticate(
            self.control, token, source="192.0.2.1", request_id="test-request"
        )

    def effective(self, *node_ids: str) -> list[int]:
        return [self.control.roll.effective(node_id) for node_id in node_ids]


def new_public_key() -> str:
    return keys.pem_x25519_public(keys.generate_x25519().public)


async def open_plane(
    database: Database, *, clock: FakeClock | None = None, servers: tuple[Server, ...] = (), **settings: Any
) -> Plane:
    """Open a control plane on a database, without any cluster."""
    clock = clock or FakeClock()
    control = await open_control(
        database,
        clock=clock,
        settings=Settings(**settings),
        vault=Vault(MASTER),
        servers=servers,
        udp_port_in_use=lambda port: False,
    )
    # It looks at files in a thread, over which an autojump clock would jump; a database in memory has no copies.
    control.backups.prune = _nothing  # type: ignore[method-assign]
    return Plane(control, clock)


@asynccontextmanager
async def control_plane(
    *, cluster: dict[str, Any] | None = None, servers: tuple[Server, ...] = (), **settings: Any
) -> AsyncIterator[Plane]:
    """A control plane in memory with the cluster ``home`` in 10.42.0.0/16."""
    async with open_database(MEMORY, executor="inline") as database:
        plane = await open_plane(database, servers=servers, **settings)
        plane.cluster_id = (await plane.add_cluster(**(cluster or {}))).id
        yield plane


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()
