"""Requests as handlers get them, and as an application gets them, without a connection."""

from __future__ import annotations

from typing import Any

from edgegc.api.asked import Asked
from edgegc.api.service import WATCHED


def scope(
    method: str = "GET",
    target: str = "/",
    *,
    headers: tuple[tuple[str, str], ...] = (),
    client: str | None = "127.0.0.1",
    admin: bool = False,
    watched: bool = False,
) -> Any:
    """Return the ASGI scope of a request; ``watched``: it is all here."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "http_version": "1.1",
        "asgi": {},
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "client": None if client is None else (client, 1),
        "server": ("127.0.0.1", 2),
        "state": {"admin": admin, "request_id": "mine"},
        "extensions": {WATCHED: {}} if watched else {},
    }


def asked(method: str = "GET", target: str = "/", *, body: bytes = b"", **more: Any) -> Asked:
    """Return a request that no route is for."""
    return Asked(scope(method, target, **more), operation=None, body=body)
