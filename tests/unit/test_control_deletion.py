"""Tenants and clusters deleted: refused while there is something in them, and complete where that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.control import clusters, lighthouses, nodes, polls, tenants, tokens, topology
from edgegc.errors import Conflict, Forbidden, NotFound, Unauthorized
from edgegc.model import message
from edgegc.model.event import ClusterDeleted
from tests.control_plane import OPERATOR, Plane, control_plane

if TYPE_CHECKING:
    import sqlite3

    from edgegc.model.credential import Caller


async def delete(plane: Plane, cluster_id: str | None = None, *, cascade: bool = True) -> None:
    await clusters.delete(plane.control, OPERATOR, cluster_id or plane.cluster_id, cascade=cascade)


async def token(plane: Plane, *scopes: str) -> message.ApiTokenView:
    return await tokens.create(plane.control, OPERATOR, message.ApiTokenCreate(scopes=scopes))


async def rows_of(plane: Plane, cluster_id: str) -> list[str]:
    """Return the tables that still have a row of a cluster."""

    def job(connection: sqlite3.Connection) -> list[str]:
        found = []
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            if "cluster_id" in columns:
                query = f"SELECT COUNT(*) FROM {table} WHERE cluster_id = ?"
                if connection.execute(query, (cluster_id,)).fetchone()[0]:
                    found.append(table)
        return found

    return await plane.control.database.read(job)


async def test_a_cluster_with_nodes_is_kept_unless_they_go_with_it() -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-1")
        with pytest.raises(
            Conflict, match=r"^the cluster 'home' has 1 node, which would be deleted with it$"
        ) as refused:
            await delete(plane, cascade=False)
        assert refused.value.unless == "cascade"
        await plane.add_node("pi-2")
        with pytest.raises(Conflict, match="has 2 nodes"):
            await delete(plane, cascade=False)
        await delete(plane)
        with pytest.raises(NotFound):
            await clusters.get(plane.control, OPERATOR, plane.cluster_id)
        with pytest.raises(NotFound):
            await delete(plane)


async def test_an_empty_cluster_needs_no_cascade() -> None:
    async with control_plane() as plane:
        await delete(plane, cascade=False)
        assert (await clusters.list_(plane.control, OPERATOR)).clusters == ()


async def test_nothing_of_a_deleted_cluster_stays_and_nothing_of_another_goes() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        other = await plane.add_cluster("other", network_cidr="10.43.0.0/16")
        for cluster_id in (plane.cluster_id, other.id):
            node = await plane.add_node("pi-1", cluster_id=cluster_id)
            await plane.patch(node.id, groups=("a",))
            routes = message.Routes(routes=("192.168.7.0/24",))
            await nodes.set_routes(plane.control, OPERATOR, node.id, routes)
            gone = await plane.add_node("pi-2", cluster_id=cluster_id)
            await nodes.delete(plane.control, OPERATOR, gone.id)
        await plane.key()
        before = await rows_of(plane, other.id)
        assert {"nodes", "routes", "certificates", "blocklist", "authorities", "signers"} <= set(before)
        await delete(plane)
        assert await rows_of(plane, plane.cluster_id) == []
        assert await rows_of(plane, other.id) == before
        assert await lighthouses.desired(plane.control) == []


async def test_credentials_of_a_deleted_cluster_stop() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1")
        other = await plane.add_cluster("other")
        only = await token(plane, f"cluster:{plane.cluster_id}:admin")
        also = await token(plane, f"cluster:{plane.cluster_id}:read", f"cluster:{other.id}:admin")
        foreign = await token(plane, f"cluster:{other.id}:admin")
        key = await plane.key()
        await delete(plane)
        for text in (node.node_token, only.token):
            with pytest.raises(Unauthorized):
                await plane.caller(text)
        assert (await plane.caller(also.token)).scopes == (f"cluster:{other.id}:admin",)
        assert (await plane.caller(foreign.token)).scopes == (f"cluster:{other.id}:admin",)
        listed = (await tokens.list_(plane.control, OPERATOR)).api_tokens
        assert {each.id: each.scopes for each in listed} == {
            also.id: (f"cluster:{other.id}:admin",),
            foreign.id: (f"cluster:{other.id}:admin",),
        }
        with pytest.raises(NotFound):
            await nodes.list_(
                plane.control, await plane.caller(also.token), plane.cluster_id, message.NodeQuery()
            )
        assert key.cluster_id == plane.cluster_id


async def test_a_held_poll_of_a_deleted_cluster_ends_at_once() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1")
        caller: Caller = await plane.caller(node.node_token)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    lambda: polls.wait(plane.control, caller.id, current=node.version, wait_s=100)
                )
                while not plane.control.polls.held:
                    await trio.lowlevel.checkpoint()
                await delete(plane)
        assert plane.control.polls.held == 0
        with pytest.raises(NotFound):
            await topology.cluster_topology(plane.control, OPERATOR, plane.cluster_id)


async def test_the_bus_tells_of_the_deletion() -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-1")
        with plane.control.bus.subscribe() as subscription:
            await delete(plane)
            assert list(await subscription.wait()) == [ClusterDeleted(cluster_id=plane.cluster_id)]


async def test_name_and_lighthouse_port_are_free_again() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        await delete(plane)
        again = await plane.add_cluster("home", provide_lighthouse=True)
        assert again.lighthouse_port == 4242


async def test_a_tenant_with_clusters_is_kept_unless_they_go_with_it() -> None:
    async with control_plane() as plane:
        await plane.add_cluster("office")
        node = await plane.add_node("pi-1")
        with pytest.raises(Conflict, match=r"^the tenant 'acme' has clusters: home, office; they"):
            await tenants.delete(plane.control, OPERATOR, plane.tenant_id, cascade=False)
        await tenants.delete(plane.control, OPERATOR, plane.tenant_id, cascade=True)
        assert (await tenants.list_(plane.control, OPERATOR)).tenants == ()
        assert (await clusters.list_(plane.control, OPERATOR)).clusters == ()
        with pytest.raises(Unauthorized):
            await plane.caller(node.node_token)
        with pytest.raises(NotFound):
            await tenants.delete(plane.control, OPERATOR, plane.tenant_id, cascade=True)


async def test_an_empty_tenant_needs_no_cascade_and_leaves_others_alone() -> None:
    async with control_plane() as plane:
        empty = await tenants.create(plane.control, OPERATOR, message.TenantCreate(name="empty"))
        await tenants.delete(plane.control, OPERATOR, empty.id, cascade=False)
        assert [each.id for each in (await tenants.list_(plane.control, OPERATOR)).tenants] == [
            plane.tenant_id
        ]


async def test_only_the_operator_deletes_clusters_and_tenants() -> None:
    async with control_plane() as plane:
        boss = await plane.caller((await plane.add_node("boss", role="admin")).node_token)
        with pytest.raises(Forbidden):
            await clusters.delete(plane.control, boss, plane.cluster_id, cascade=True)
        with pytest.raises(Forbidden):
            await tenants.delete(plane.control, boss, plane.tenant_id, cascade=True)
