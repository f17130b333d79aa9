"""Tenants and clusters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.api import auth, codec
from edgegc.api.operation import declare
from edgegc.api.queries import CascadeQuery
from edgegc.control import clusters, tenants
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

describe: Final = partial(declare, tag="Tenants and clusters")


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/tenants")
    @describe(
        "Create a tenant",
        who="operator",
        takes=message.TenantCreate,
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={201: message.TenantView},
        refuses=(409,),
    )
    async def create_tenant() -> Reply:
        caller, asked = await app.creation(message.TenantCreate)
        return codec.reply(await tenants.create(control, caller, asked), 201)

    @app.get("/api/v1/tenants")
    @describe("List tenants", who="operator", gives={200: message.TenantList})
    async def list_tenants() -> Reply:
        caller = await app.caller()
        return codec.reply(await tenants.list_(control, caller))

    @app.get("/api/v1/tenants/<tenant_id>")
    @describe("Show a tenant", who="operator", gives={200: message.TenantView})
    async def get_tenant(tenant_id: str) -> Reply:
        caller = await app.caller()
        return codec.reply(await tenants.get(control, caller, tenant_id))

    @app.patch("/api/v1/tenants/<tenant_id>")
    @describe(
        "Change a tenant",
        who="operator",
        takes=message.TenantUpdate,
        gives={200: message.TenantView},
        refuses=(409,),
        says="What is left out stays as it is.",
    )
    async def update_tenant(tenant_id: str) -> Reply:
        caller = await app.caller()
        asked = await app.body(message.TenantUpdate)
        return codec.reply(await tenants.update(control, caller, tenant_id, asked))

    @app.delete("/api/v1/tenants/<tenant_id>")
    @describe(
        "Delete a tenant",
        who="operator",
        query=CascadeQuery,
        gives={204: None},
        refuses=(409,),
        says="Refused while it has clusters, unless cascade says that they go with it, nodes and all.",
    )
    async def delete_tenant(tenant_id: str) -> Reply:
        caller = await app.caller()
        await tenants.delete(control, caller, tenant_id, cascade=app.query(CascadeQuery).cascade)
        return codec.nothing()

    @app.post("/api/v1/clusters")
    @describe(
        "Create a cluster",
        who="operator",
        takes=message.ClusterCreate,
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={201: message.ClusterView},
        refuses=(404, 409),
    )
    async def create_cluster() -> Reply:
        caller, asked = await app.creation(message.ClusterCreate)
        return codec.reply(await clusters.create(control, caller, asked), 201)

    @app.get("/api/v1/clusters")
    @describe("List clusters", who="operator", gives={200: message.ClusterList})
    async def list_clusters() -> Reply:
        caller = await app.caller()
        return codec.reply(await clusters.list_(control, caller))

    @app.get("/api/v1/clusters/<cluster_id>")
    @describe("Show a cluster", who="operator", gives={200: message.ClusterView})
    async def get_cluster(cluster_id: str) -> Reply:
        caller = await app.caller()
        return codec.reply(await clusters.get(control, caller, cluster_id))

    @app.patch("/api/v1/clusters/<cluster_id>")
    @describe(
        "Change a cluster",
        who="operator",
        takes=message.ClusterUpdate,
        gives={200: message.ClusterView},
        refuses=(409,),
        says="What is left out stays as it is.",
    )
    async def update_cluster(cluster_id: str) -> Reply:
        caller = await app.caller()
        asked = await app.body(message.ClusterUpdate)
        return codec.reply(await clusters.update(control, caller, cluster_id, asked))

    @app.delete("/api/v1/clusters/<cluster_id>")
    @describe(
        "Delete a cluster",
        who="operator",
        query=CascadeQuery,
        gives={204: None},
        refuses=(409,),
        says="Refused while it has nodes, unless cascade says that they go with it. Its keys, its enrolment keys and its "
        "lighthouse on this box go too; API tokens lose what they might do in it.",
    )
    async def delete_cluster(cluster_id: str) -> Reply:
        caller = await app.caller()
        await clusters.delete(control, caller, cluster_id, cascade=app.query(CascadeQuery).cascade)
        return codec.nothing()
