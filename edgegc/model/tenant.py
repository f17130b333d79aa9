"""A tenant: owner of clusters, the isolation boundary."""

from __future__ import annotations

import msgspec


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``tenants``. ``created_at`` in Unix seconds."""

    id: str
    name: str
    created_at: int
