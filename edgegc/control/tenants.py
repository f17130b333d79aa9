"""Tenants: owners of clusters. Operator only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import TenantCreate, TenantList, TenantUpdate, TenantView


async def create(control: Control, caller: Caller, request: TenantCreate) -> TenantView:
    """Make a tenant. Conflict when the name is taken."""
    raise NotImplementedError


async def list_(control: Control, caller: Caller) -> TenantList:
    """Return all tenants by name."""
    raise NotImplementedError


async def get(control: Control, caller: Caller, tenant_id: str) -> TenantView:
    """Return a tenant. NotFound."""
    raise NotImplementedError


async def update(control: Control, caller: Caller, tenant_id: str, request: TenantUpdate) -> TenantView:
    """Rename a tenant. NotFound, Conflict."""
    raise NotImplementedError
