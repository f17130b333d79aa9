"""A node's own calls: enrol, ask for its version, download, report, its routes, its certificate, the topology."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import trio
from msgspec import Meta

from edgegc.api import auth, codec, downloads, ranges, version_check
from edgegc.api.asked import present
from edgegc.api.operation import GZIP, Content, declare
from edgegc.api.queries import ClusterQuery
from edgegc.api.version_check import MAX_VERSION
from edgegc.control import bundles, callers, certificates, enrolment, fleet, polls, topology
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

BUNDLE_HEADERS: Final = ("ETag", "Accept-Ranges", "Edgegc-Version", "Edgegc-Digest", "Edgegc-Signature")


class VersionQuery(message.Request, frozen=True, kw_only=True):
    """``GET /api/v1/config/version``: the version the node has, and how long it would wait for another, in seconds."""

    current: Annotated[int, Meta(ge=0, le=MAX_VERSION)] | None = None
    wait: Annotated[float, Meta(ge=0, le=polls.MAX_WAIT_S)] = 0.0


class BundleQuery(message.Request, frozen=True, kw_only=True):
    """``GET /api/v1/config/bundle``: the version the node has."""

    current_version: Annotated[int, Meta(ge=0, le=MAX_VERSION)] | None = None


describe: Final = partial(declare, tag="A node's own calls")


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/enroll")
    @describe(
        "Become a node",
        who="enrolment key",
        takes=message.Enroll,
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={201: message.Enrolled},
        refuses=(409,),
        says="Repeated within an hour with the same name, public key and enrolment key, before the token was used, it answers a new token for the same node.",
    )
    async def enroll() -> Reply:
        caller, body = await app.creation(message.Enroll)
        app.limits.enrolment(caller, trio.current_time())
        return codec.reply(await enrolment.enroll(control, caller, body), 201)

    @app.get(version_check.PATH)
    @describe(
        "Ask for the version",
        who="node",
        query=VersionQuery,
        headers=("If-None-Match", "Edgegc-Applied", "Edgegc-State", "Edgegc-Nebula"),
        gives={
            200: Content(kind=message.EffectiveVersion, headers=("ETag", "Edgegc-Spread", "Edgegc-Interval")),
            304: Content(
                kind=None, headers=("ETag", "Edgegc-Spread", "Edgegc-Interval"), says="The node has it."
            ),
        },
        says="With `wait` the answer is held until the version differs from `current`, else from what `If-None-Match` names; `current` wins. A wait of 10 s or more may be over up to a second early, for many are then over together. At most two are held per node: a third answers the oldest.",
    )
    async def config_version() -> Reply:
        caller = await app.caller()
        node_id = callers.node_only(caller)
        query = app.query(VersionQuery)
        asked = present.get()
        fleet.ride_along(
            control,
            node_id,
            applied=asked.header("edgegc-applied"),
            state=asked.header("edgegc-state"),
            nebula=asked.header("edgegc-nebula"),
        )
        known = asked.header("if-none-match")
        if query.wait > 0:
            asked.state["held"] = True
        awaited = version_check.awaited(query.current, known)
        answer = await polls.wait(control, node_id, current=awaited, wait_s=query.wait)
        if answer.waited:
            # Meanwhile the node may have been deleted or its token rotated.
            await app.same_caller()
        sent = version_check.headers(answer)
        if version_check.unchanged(answer.version, query.current, known):
            return codec.nothing(304, headers=sent)
        return codec.reply(message.EffectiveVersion(version=answer.version), headers=sent)

    @app.get("/api/v1/config/bundle")
    @describe(
        "Download the bundle",
        who="node",
        query=BundleQuery,
        headers=("If-None-Match", "Range", "If-Range"),
        gives={
            200: Content(kind=GZIP, headers=BUNDLE_HEADERS, says="The whole bundle."),
            206: Content(kind=GZIP, headers=(*BUNDLE_HEADERS, "Content-Range"), says="The part asked for."),
            304: Content(kind=None, headers=BUNDLE_HEADERS, says="The node has it."),
        },
        refuses=(404, 416),
        says="404 while the node has no bundle: it sent no key yet, or none was uploaded. Digest and signature are always those of the whole.",
    )
    async def config_bundle() -> Reply:
        caller = await app.caller()
        query = app.query(BundleQuery)
        bundle = await bundles.node_bundle(control, caller)
        tag = f"{bundle.version}-{bundle.digest[: downloads.TAG_DIGEST_CHARACTERS]}"
        sent = {
            "edgegc-version": str(bundle.version),
            "edgegc-digest": f"sha256:{bundle.digest}",
            "edgegc-signature": bundle.signature,
        }
        known = query.current_version == bundle.version
        if isinstance(bundle, bundles.SignedBundle):
            return downloads.of_bytes(bundle.body, tag=tag, headers=sent, known=known)
        parts = partial(control.bodies.parts, bundle.body_id, bundle.digest)
        return downloads.of_parts(parts, bundle.size, tag=tag, headers=sent, known=known)

    @app.post("/api/v1/report")
    @describe("Report how the node is", who="node", takes=message.Report, gives={204: None})
    async def report() -> Reply:
        caller = await app.caller()
        fleet.report(control, caller, await app.body(message.Report))
        return codec.nothing()

    @app.get("/api/v1/routes")
    @describe("Show the node's own routes", who="node", gives={200: message.Routes})
    async def own_routes() -> Reply:
        caller = await app.caller()
        return codec.reply(await topology.own_routes(control, caller))

    @app.put("/api/v1/routes")
    @describe(
        "Announce the node's own routes",
        who="node",
        takes=message.Routes,
        gives={200: message.Routes},
        refuses=(409,),
        says="A member's routes must lie inside the cluster's `allowed_routes`.",
    )
    async def set_own_routes() -> Reply:
        caller = await app.caller()
        return codec.reply(await topology.set_own_routes(control, caller, await app.body(message.Routes)))

    @app.get("/api/v1/routes/cluster")
    @describe(
        "List the routes of the cluster", who="node", query=ClusterQuery, gives={200: message.ClusterRoutes}
    )
    async def cluster_routes() -> Reply:
        caller = await app.caller()
        return codec.reply(await topology.cluster_routes(control, caller, app.query(ClusterQuery).cluster_id))

    @app.get("/api/v1/topology")
    @describe(
        "Show lighthouses, relays and routes",
        who="node",
        query=ClusterQuery,
        headers=("If-None-Match",),
        gives={
            200: Content(kind=message.Topology, headers=("ETag",)),
            304: Content(kind=None, headers=("ETag",), says="Nothing changed."),
        },
    )
    async def cluster_topology() -> Reply:
        caller = await app.caller()
        found = await topology.topology_document(control, caller, app.query(ClusterQuery).cluster_id)
        sent = {"etag": f'"{found.etag}"', "cache-control": "private, no-cache"}
        if ranges.none_match(present.get().header("if-none-match"), found.etag):
            return codec.nothing(304, headers=sent)
        return codec.raw(found.body, headers=sent)

    @app.post("/api/v1/certificate")
    @describe(
        "Get a certificate for a key",
        who="node",
        takes=message.CertificateRequest,
        gives={200: message.CertificateIssued},
        refuses=(409,),
        says="The first key of a node that was created without one, or another instead of the one it has.",
    )
    async def certificate() -> Reply:
        caller = await app.caller()
        return codec.reply(
            await certificates.issue(control, caller, await app.body(message.CertificateRequest))
        )
