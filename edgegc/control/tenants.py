"""Tenants: owners of clusters. Operator only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from edgegc.control import cluster_deletion
from edgegc.control.callers import operator_only
from edgegc.control.repetition import once
from edgegc.control.views import tenant_view
from edgegc.control.write import new_id
from edgegc.errors import Conflict, NotFound
from edgegc.model.message import TenantList, TenantView
from edgegc.model.tenant import Tenant
from edgegc.store import clusters, tenants

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.model.message import TenantCreate, TenantUpdate

MOST_NAMES = 5
"""Clusters that a refusal names."""


async def create(control: Control, caller: Caller, request: TenantCreate) -> TenantView:
    """Make a tenant. Conflict when the name is taken."""
    operator_only(caller)

    def job(write: Write) -> TenantView:
        _check_name(write.connection, request.name)
        tenant = Tenant(id=new_id(), name=request.name, created_at=write.now)
        tenants.insert(write.connection, tenant)
        write.audit("tenant.create", tenant.id)
        return tenant_view(tenant)

    return await control.write(caller, lambda write: once(write, TenantView, job))


async def list_(control: Control, caller: Caller) -> TenantList:
    """Return all tenants by name."""
    operator_only(caller)
    found = await control.database.read(tenants.all_)
    return TenantList(tenants=tuple(tenant_view(tenant) for tenant in found))


async def get(control: Control, caller: Caller, tenant_id: str) -> TenantView:
    """Return a tenant. NotFound."""
    operator_only(caller)
    return tenant_view(await control.database.read(lambda connection: _get(connection, tenant_id)))


async def update(control: Control, caller: Caller, tenant_id: str, request: TenantUpdate) -> TenantView:
    """Rename a tenant. NotFound, Conflict."""
    operator_only(caller)

    def job(write: Write) -> Tenant:
        tenant = _get(write.connection, tenant_id)
        if request.name is UNSET or request.name == tenant.name:
            return tenant
        _check_name(write.connection, request.name)
        tenants.rename(write.connection, tenant.id, request.name)
        write.audit("tenant.update", tenant.id)
        return msgspec.structs.replace(tenant, name=request.name)

    return tenant_view(await control.write(caller, job))


async def delete(control: Control, caller: Caller, tenant_id: str, *, cascade: bool) -> None:
    """Delete a tenant, and with ``cascade`` its clusters with all their nodes. NotFound; Conflict while it has clusters."""
    operator_only(caller)

    def job(write: Write) -> None:
        tenant = _get(write.connection, tenant_id)
        owned = clusters.of_tenant(write.connection, tenant.id)
        if owned and not cascade:
            raise Conflict(_owns(tenant.name, [name for _, name in owned]), unless="cascade")
        for cluster_id, _ in owned:
            cluster_deletion.delete(write, cluster_id)
        tenants.delete(write.connection, tenant.id)
        write.audit("tenant.delete", tenant.id)

    await control.write(caller, job)


def _owns(tenant: str, names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (
        f"the tenant {tenant!r} has clusters: {', '.join(names[:MOST_NAMES])}{more}; "
        "they would be deleted with it, with all their nodes"
    )


def _get(connection: sqlite3.Connection, tenant_id: str) -> Tenant:
    tenant = tenants.get(connection, tenant_id)
    if tenant is None:
        raise NotFound("no such tenant")
    return tenant


def _check_name(connection: sqlite3.Connection, name: str) -> None:
    if tenants.find(connection, name) is not None:
        raise Conflict(f"a tenant named {name!r} already exists")
