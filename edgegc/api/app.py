"""The factory: the application with all its routes. Nothing else knows which there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.api import (
    operation,
    routes_box,
    routes_clusters,
    routes_credentials,
    routes_maintenance,
    routes_node,
    routes_nodes,
    routes_policy,
)
from edgegc.api.access import AccessLog
from edgegc.api.application import Application

if TYPE_CHECKING:
    from edgegc.control.control import Control


def create_app(control: Control, *, log: AccessLog | None = None) -> Application:
    """Make the application. ``log`` is shared with the server, whose counters ``/metrics`` shows."""
    app = Application(control, log=log if log is not None else AccessLog())
    for routes in (
        routes_box,
        routes_node,
        routes_nodes,
        routes_clusters,
        routes_credentials,
        routes_maintenance,
        routes_policy,
    ):
        routes.add(app)
    operation.check(app)
    return app
