"""Bodies about tenants."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Struct, UnsetType

from edgegc.model.message.common import Name, Request


class TenantCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/tenants``."""

    name: Name


class TenantUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/tenants/{id}``."""

    name: Name | UnsetType = UNSET


class TenantView(Struct, frozen=True, kw_only=True):
    """A tenant."""

    id: str
    name: str
    created_at: datetime


class TenantList(Struct, frozen=True, kw_only=True):
    """All tenants."""

    tenants: tuple[TenantView, ...]
    next_cursor: str | None = None
