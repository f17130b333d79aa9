"""What a cluster's admin does with nodes: what is fixed for each, and who runs what."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgegc.api import auth, codec
from edgegc.api.operation import declare
from edgegc.api.queries import ClusterQuery
from edgegc.control import node_answers, node_batches, nodes, rollout
from edgegc.control.node_lists import MAX_CURSOR_CHARACTERS, MAX_PAGE, MAX_PAGE_SIZE
from edgegc.model import message
from edgegc.model.node import Role, State

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

Sort = Literal[
    "name", "-name", "created_at", "-created_at", "last_seen_at", "-last_seen_at", "overlay_ip", "-overlay_ip"
]


class NodesQuery(message.Request, frozen=True, kw_only=True):
    """``GET /api/v1/nodes``."""

    cluster_id: message.Id | None = None
    page: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 1
    page_size: Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE)] = 50
    cursor: Annotated[str, Meta(max_length=MAX_CURSOR_CHARACTERS)] | None = None
    name: Annotated[str, Meta(max_length=63)] | None = None
    group: Annotated[str, Meta(max_length=63)] | None = None
    role: Role | None = None
    state: State | None = None
    sort: Sort = "name"


describe: Final = partial(declare, tag="Nodes")


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/nodes")
    @describe(
        "Create a node",
        who="cluster admin",
        query=ClusterQuery,
        takes=message.NodeCreate,
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={201: message.NodeView},
        refuses=(409,),
    )
    async def create_node() -> Reply:
        caller, asked = await app.creation(message.NodeCreate)
        cluster_id = app.query(ClusterQuery).cluster_id
        created = await nodes.create(control, caller, cluster_id, asked)
        return codec.reply(created, 201)

    @app.post("/api/v1/nodes/batch")
    @describe(
        "Create up to 1000 nodes, all or none",
        who="cluster admin",
        query=ClusterQuery,
        takes=message.NodeBatch,
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={201: message.NodesCreated},
        refuses=(409,),
    )
    async def create_nodes() -> Reply:
        caller, asked = await app.creation(message.NodeBatch)
        cluster_id = app.query(ClusterQuery).cluster_id
        created = await node_batches.create(control, caller, cluster_id, asked)
        return codec.reply(created, 201)

    @app.get("/api/v1/nodes")
    @describe("List nodes", who="cluster reader", query=NodesQuery, gives={200: message.NodePage})
    async def list_nodes() -> Reply:
        caller = await app.caller()
        asked = app.query(NodesQuery)
        query = msgspec.convert(asked, message.NodeQuery, from_attributes=True)
        return codec.raw(await node_answers.page(control, caller, asked.cluster_id, query))

    @app.get("/api/v1/nodes/<node_id>")
    @describe("Show a node", who="cluster reader", gives={200: message.NodeView})
    async def get_node(node_id: str) -> Reply:
        caller = await app.caller()
        return codec.raw(await node_answers.node(control, caller, node_id))

    @app.patch("/api/v1/nodes/<node_id>")
    @describe(
        "Change a node",
        who="cluster admin",
        takes=message.NodeUpdate,
        gives={200: message.NodeView},
        refuses=(409,),
        says="What is left out stays as it is.",
    )
    async def update_node(node_id: str) -> Reply:
        caller = await app.caller()
        return codec.reply(await nodes.update(control, caller, node_id, await app.body(message.NodeUpdate)))

    @app.delete("/api/v1/nodes/<node_id>")
    @describe(
        "Delete a node",
        who="cluster admin",
        gives={204: None},
        says="Its certificates and its token are revoked.",
    )
    async def delete_node(node_id: str) -> Reply:
        caller = await app.caller()
        await nodes.delete(control, caller, node_id)
        return codec.nothing()

    @app.patch("/api/v1/nodes/<node_id>/mtu")
    @describe(
        "Change a node's MTU", who="cluster admin", takes=message.MtuUpdate, gives={200: message.NodeView}
    )
    async def update_mtu(node_id: str) -> Reply:
        caller = await app.caller()
        asked = await app.body(message.MtuUpdate)
        return codec.reply(await nodes.update(control, caller, node_id, message.NodeUpdate(mtu=asked.mtu)))

    @app.post("/api/v1/nodes/<node_id>/token")
    @describe(
        "Make a new token for a node",
        who="cluster admin",
        gives={200: message.NodeToken},
        says="The old one stops at once.",
    )
    async def rotate_token(node_id: str) -> Reply:
        caller = await app.caller()
        return codec.reply(await nodes.rotate_token(control, caller, node_id))

    @app.put("/api/v1/nodes/<node_id>/lighthouse")
    @describe(
        "Make a node a lighthouse",
        who="cluster admin",
        takes=message.LighthouseSet,
        gives={200: message.NodeView},
        refuses=(409,),
        says="Also fixes `listen_port`, to the first address's port where the node has none.",
    )
    async def set_lighthouse(node_id: str) -> Reply:
        caller = await app.caller()
        asked = await app.body(message.LighthouseSet)
        return codec.reply(await nodes.set_lighthouse(control, caller, node_id, asked))

    @app.delete("/api/v1/nodes/<node_id>/lighthouse")
    @describe("Make a lighthouse an ordinary node", who="cluster admin", gives={204: None})
    async def unset_lighthouse(node_id: str) -> Reply:
        caller = await app.caller()
        await nodes.unset_lighthouse(control, caller, node_id)
        return codec.nothing()

    @app.put("/api/v1/nodes/<node_id>/relay")
    @describe("Make a node a relay", who="cluster admin", gives={200: message.NodeView}, refuses=(409,))
    async def set_relay(node_id: str) -> Reply:
        caller = await app.caller()
        return codec.reply(await nodes.set_relay(control, caller, node_id))

    @app.delete("/api/v1/nodes/<node_id>/relay")
    @describe("Make a relay an ordinary node", who="cluster admin", gives={204: None})
    async def unset_relay(node_id: str) -> Reply:
        caller = await app.caller()
        await nodes.unset_relay(control, caller, node_id)
        return codec.nothing()

    @app.put("/api/v1/nodes/<node_id>/routes")
    @describe(
        "Set a node's routes",
        who="cluster admin",
        takes=message.Routes,
        gives={200: message.NodeView},
        refuses=(409,),
        says="Without the limit of `allowed_routes`.",
    )
    async def set_routes(node_id: str) -> Reply:
        caller = await app.caller()
        return codec.reply(await nodes.set_routes(control, caller, node_id, await app.body(message.Routes)))

    @app.get("/api/v1/rollout")
    @describe(
        "Show who runs which version",
        who="cluster reader",
        query=ClusterQuery,
        gives={200: message.Rollout},
        says="`behind` has the first 500 of `behind_total`: those that failed, those that are on their way, those that are "
        "offline.",
    )
    async def show_rollout() -> Reply:
        caller = await app.caller()
        return codec.reply(await rollout.rollout(control, caller, app.query(ClusterQuery).cluster_id))
