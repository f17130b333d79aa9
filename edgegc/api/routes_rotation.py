"""The rotation of a cluster's authority."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.api import codec
from edgegc.api.operation import declare
from edgegc.control import rotation
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

describe: Final = partial(declare, tag="Tenants and clusters")


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/clusters/<cluster_id>/ca/rotation")
    @describe(
        "Take a step of the rotation of a cluster's authority",
        who="operator",
        takes=message.CaRotationStep,
        gives={200: message.CaRotation},
        refuses=(409, 503),
        says="Refused until every node has applied the step before, unless it is forced. "
        "The bundle signer rotates along.",
    )
    async def take_rotation_step(cluster_id: str) -> Reply:
        caller = await app.caller()
        asked = await app.body(message.CaRotationStep)
        return codec.reply(await rotation.take(control, caller, cluster_id, asked))

    @app.get("/api/v1/clusters/<cluster_id>/ca/rotation")
    @describe(
        "Show the rotation of a cluster's authority",
        who="operator",
        gives={200: message.CaRotation},
        refuses=(409,),
        says="`waiting_for` lists who has not applied the last step; its `id` is null for the box's own lighthouse.",
    )
    async def get_rotation(cluster_id: str) -> Reply:
        caller = await app.caller()
        return codec.reply(await rotation.status(control, caller, cluster_id))
