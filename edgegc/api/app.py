"""The factory: the application with all its routes. Nothing else knows which there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgegc.api import (
    operation,
    routes_audit,
    routes_box,
    routes_bundles,
    routes_clusters,
    routes_credentials,
    routes_document,
    routes_maintenance,
    routes_node,
    routes_nodes,
    routes_policy,
    routes_rotation,
)
from edgegc.api.access import AccessLog
from edgegc.api.application import Application

if TYPE_CHECKING:
    from edgegc.control.control import Control

GROUPS: Final = (
    routes_node,
    routes_nodes,
    routes_policy,
    routes_bundles,
    routes_clusters,
    routes_rotation,
    routes_credentials,
    routes_box,
    routes_audit,
    routes_maintenance,
    routes_document,
)
"""In the order of the chapters of the API's document."""


def create_app(control: Control, *, log: AccessLog | None = None) -> Application:
    """Make the application. ``log`` is shared with the server, whose counters ``/metrics`` shows."""
    app = Application(control, log=log if log is not None else AccessLog())
    for routes in GROUPS:
        routes.add(app)
    operation.check(app)
    app.routes.learn(app)
    return app
