"""Tenants and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.api import codec
from edgegc.api.queries import NoQuery
from edgegc.control import clusters, tenants
from edgegc.model import message

if TYPE_CHECKING:
    from quart.wrappers import Response

    from edgegc.api.application import Application


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/tenants")
    async def create_tenant() -> Response:
        caller = await app.caller()
        return codec.reply(await tenants.create(control, caller, await app.body(message.TenantCreate)), 201)

    @app.get("/api/v1/tenants")
    async def list_tenants() -> Response:
        caller = await app.caller()
        app.query(NoQuery)
        return codec.reply(await tenants.list_(control, caller))

    @app.get("/api/v1/tenants/<tenant_id>")
    async def get_tenant(tenant_id: str) -> Response:
        caller = await app.caller()
        return codec.reply(await tenants.get(control, caller, tenant_id))

    @app.patch("/api/v1/tenants/<tenant_id>")
    async def update_tenant(tenant_id: str) -> Response:
        caller = await app.caller()
        asked = await app.body(message.TenantUpdate)
        return codec.reply(await tenants.update(control, caller, tenant_id, asked))

    @app.post("/api/v1/clusters")
    async def create_cluster() -> Response:
        caller = await app.caller()
        return codec.reply(await clusters.create(control, caller, await app.body(message.ClusterCreate)), 201)

    @app.get("/api/v1/clusters")
    async def list_clusters() -> Response:
        caller = await app.caller()
        app.query(NoQuery)
        return codec.reply(await clusters.list_(control, caller))

    @app.get("/api/v1/clusters/<cluster_id>")
    async def get_cluster(cluster_id: str) -> Response:
        caller = await app.caller()
        return codec.reply(await clusters.get(control, caller, cluster_id))

    @app.patch("/api/v1/clusters/<cluster_id>")
    async def update_cluster(cluster_id: str) -> Response:
        caller = await app.caller()
        asked = await app.body(message.ClusterUpdate)
        return codec.reply(await clusters.update(control, caller, cluster_id, asked))
