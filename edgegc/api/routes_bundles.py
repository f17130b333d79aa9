"""Uploaded bundles: an admin uploads, lists, downloads, deletes and activates them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.api import auth, codec, downloads, ranges, streamed
from edgegc.api.asked import present
from edgegc.api.operation import GZIP, Content, declare
from edgegc.api.queries import ClusterQuery
from edgegc.control import uploads
from edgegc.errors import NotFound
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

HEADERS: Final = ("ETag", "Accept-Ranges", "Edgegc-Version", "Edgegc-Digest")

describe: Final = partial(declare, tag="Uploaded bundles", query=ClusterQuery)


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/config/bundle")
    @describe(
        "Upload a bundle",
        who="cluster admin",
        takes=GZIP,
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={
            201: message.BundleView,
            200: Content(kind=message.BundleView, says="It is what is active already; no version moved."),
        },
        refuses=(409,),
        says="Uploaded clusters only. A tar.gz with config.yml and ca.crt, and host.crt and host.key where all nodes are "
        "to share them; at most 10 MiB, 50 MiB unpacked, 200 entries. It is kept and given out verbatim. 400 says what "
        "is wrong with which file.",
    )
    async def upload_bundle() -> Reply:
        caller = await app.creator()
        cluster_id = app.query(ClusterQuery).cluster_id
        asked = present.get()
        parts = streamed.Parts(asked)
        made = await uploads.receive(control, caller, cluster_id, parts, length=asked.content_length)
        return codec.reply(made.view, 201 if made.is_new else 200)

    @app.get("/api/v1/bundles")
    @describe(
        "List the uploaded bundles",
        who="cluster reader",
        gives={200: message.BundleList},
        refuses=(409,),
        says="Those that are kept (setting bundles.keep), the newest first, which is active.",
    )
    async def list_bundles() -> Reply:
        caller = await app.caller()
        return codec.reply(await uploads.list_(control, caller, app.query(ClusterQuery).cluster_id))

    @app.get("/api/v1/bundles/<version>")
    @describe(
        "Download an uploaded bundle",
        who="cluster admin",
        headers=("If-None-Match", "Range", "If-Range"),
        gives={
            200: Content(kind=GZIP, headers=HEADERS, says="The whole bundle."),
            206: Content(kind=GZIP, headers=(*HEADERS, "Content-Range"), says="The part asked for."),
            304: Content(kind=None, headers=HEADERS, says="The caller has it."),
        },
        refuses=(409, 416),
        says="For admins alone: it may hold a private key.",
    )
    async def download_bundle(version: str) -> Reply:
        caller = await app.caller()
        cluster_id = app.query(ClusterQuery).cluster_id
        bundle = await uploads.get(control, caller, cluster_id, _number(version))
        return downloads.of_parts(
            partial(control.bodies.parts, bundle.body_id, bundle.digest),
            bundle.size,
            tag=f"{bundle.version}-{bundle.digest[: downloads.TAG_DIGEST_CHARACTERS]}",
            headers={
                "edgegc-version": str(bundle.version),
                "edgegc-digest": f"sha256:{bundle.digest}",
            },
        )

    @app.delete("/api/v1/bundles/<version>")
    @describe(
        "Delete an uploaded bundle",
        who="cluster admin",
        gives={204: None},
        refuses=(409,),
        says="409 for the active one.",
    )
    async def delete_bundle(version: str) -> Reply:
        caller = await app.caller()
        await uploads.delete(control, caller, app.query(ClusterQuery).cluster_id, _number(version))
        return codec.nothing()

    @app.post("/api/v1/bundles/<version>/activate")
    @describe(
        "Go back, or forward, to a bundle",
        who="cluster admin",
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={
            201: message.BundleView,
            200: Content(kind=message.BundleView, says="It is what is active already; no version moved."),
        },
        refuses=(409,),
        says="Makes a new version with the old content: versions of a cluster only rise.",
    )
    async def activate_bundle(version: str) -> Reply:
        caller = await app.creator()
        made = await uploads.activate(control, caller, app.query(ClusterQuery).cluster_id, _number(version))
        return codec.reply(made.view, 201 if made.is_new else 200)


def _number(version: str) -> int:
    """Return the version that a path names. NotFound for what can be none."""
    if not (version.isascii() and version.isdecimal()) or len(version) > ranges.MAX_DIGITS:
        raise NotFound(f"no bundle of version {version!r} is kept")
    return int(version)
