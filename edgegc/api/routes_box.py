"""Paths about the box itself: health, version, metrics, lighthouses, resources. Handlers parse, ask control, encode."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from edgegc import build, errors
from edgegc.api import codec, metrics
from edgegc.api.asked import present
from edgegc.api.operation import Content, declare
from edgegc.control import callers, lighthouses, overview
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

LIVE: Final = codec.encode(message.Live(status="ok"))
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


class ResourcesQuery(message.Request, frozen=True, kw_only=True):
    """``GET /api/v1/resources``: how far back, and how coarse, in seconds."""

    window_s: Annotated[float, Meta(gt=0, le=86_400)] = 900.0
    step_s: Annotated[float, Meta(ge=1, le=86_400)] = 15.0


describe: Final = partial(declare, tag="This box")


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.get("/health/live")
    @describe("Whether the server answers", who="open", gives={200: message.Live})
    async def live() -> Reply:
        return codec.raw(LIVE)

    @app.get("/health/ready")
    @describe(
        "Whether everything works",
        who="open",
        gives={200: message.Health, 503: message.Health},
        says="`degraded` is 200: the box serves, and something on it wants looking at.",
    )
    async def ready() -> Reply:
        report = overview.health(control)
        return codec.reply(report, 503 if report.status == "unavailable" else 200)

    @app.get("/api/v1/version")
    @describe("What runs here", who="open", gives={200: message.VersionInfo})
    async def version() -> Reply:
        return codec.reply(msgspec.convert(build.describe(), message.VersionInfo))

    @app.get("/metrics")
    @describe(
        "Metrics for Prometheus",
        who="metrics",
        gives={200: Content(kind=PROMETHEUS)},
        says="The box itself needs no token, where no proxy forwarded the request.",
    )
    async def show_metrics() -> Reply:
        if not (present.get().is_admin_socket or _is_local()):
            caller = await app.caller()
            if not callers.may_read_metrics(caller):
                raise errors.Forbidden("reading metrics needs a token with the scope metrics or operator")
        return codec.raw(await metrics.exposition(control, app.log, app.limits), content_type=PROMETHEUS)

    @app.get("/api/v1/resources")
    @describe(
        "What the box and its processes use",
        who="operator",
        query=ResourcesQuery,
        gives={200: message.Resources},
    )
    async def resources() -> Reply:
        caller = await app.caller()
        callers.operator_only(caller)
        query = app.query(ResourcesQuery)
        series = control.series.window(since=control.clock.now() - query.window_s, step_s=query.step_s)
        return codec.reply(message.Resources(step_s=query.step_s, series=series))

    @app.get("/api/v1/lighthouses")
    @describe("List the lighthouses of this box", who="operator", gives={200: message.LighthouseList})
    async def list_lighthouses() -> Reply:
        caller = await app.caller()
        return codec.reply(await lighthouses.list_(control, caller))

    @app.post("/api/v1/lighthouses/<cluster_id>/restart")
    @describe("Restart a cluster's lighthouse", who="operator", gives={202: None})
    async def restart_lighthouse(cluster_id: str) -> Reply:
        caller = await app.caller()
        await lighthouses.restart(control, caller, cluster_id)
        return codec.nothing(202)

    @app.post("/api/v1/lighthouses/<cluster_id>/stop")
    @describe(
        "Stop a cluster's lighthouse",
        who="operator",
        gives={202: None},
        says="It stays stopped until the daemon starts again.",
    )
    async def stop_lighthouse(cluster_id: str) -> Reply:
        caller = await app.caller()
        await lighthouses.stop(control, caller, cluster_id)
        return codec.nothing(202)


def _is_local() -> bool:
    """Whether a request comes from this box and was not forwarded by a proxy on it, which would make all clients local."""
    asked = present.get()
    client = asked.scope["client"]
    if client is None or asked.headers("forwarded") or asked.headers("x-forwarded-for"):
        return False
    return ipaddress.ip_address(str(client[0]).partition("%")[0]).is_loopback
