"""Rows of ``tenants``. Plain functions of a connection; knows no rule and opens no transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.model.tenant import Tenant

if TYPE_CHECKING:
    import sqlite3


def insert(connection: sqlite3.Connection, tenant: Tenant) -> None:
    """Add a tenant."""
    connection.execute(
        "INSERT INTO tenants (id, name, created_at) VALUES (?, ?, ?)",
        (tenant.id, tenant.name, tenant.created_at),
    )


def get(connection: sqlite3.Connection, tenant_id: str) -> Tenant | None:
    """Return a tenant, or None."""
    return _one(
        connection.execute("SELECT id, name, created_at FROM tenants WHERE id = ?", (tenant_id,)).fetchone()
    )


def find(connection: sqlite3.Connection, name: str) -> Tenant | None:
    """Return the tenant of a name, or None."""
    return _one(
        connection.execute("SELECT id, name, created_at FROM tenants WHERE name = ?", (name,)).fetchone()
    )


def all_(connection: sqlite3.Connection) -> tuple[Tenant, ...]:
    """Return all tenants by name."""
    rows = connection.execute("SELECT id, name, created_at FROM tenants ORDER BY name")
    return tuple(Tenant(id=id_, name=name, created_at=at) for id_, name, at in rows)


def rename(connection: sqlite3.Connection, tenant_id: str, name: str) -> None:
    """Give a tenant another name."""
    connection.execute("UPDATE tenants SET name = ? WHERE id = ?", (name, tenant_id))


def delete(connection: sqlite3.Connection, tenant_id: str) -> None:
    """Delete a tenant that has no clusters."""
    connection.execute("DELETE FROM tenants WHERE id = ?", (tenant_id,))


def _one(row: tuple[str, str, int] | None) -> Tenant | None:
    return None if row is None else Tenant(id=row[0], name=row[1], created_at=row[2])
