"""Credentials: enrolment keys of a cluster, API tokens of the box."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.api import auth, codec
from edgegc.api.operation import declare
from edgegc.api.queries import ClusterQuery
from edgegc.control import enrolment, tokens
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply

describe: Final = partial(declare, tag="Credentials")


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.post("/api/v1/enrollment-keys")
    @describe(
        "Create an enrolment key",
        who="cluster admin",
        query=ClusterQuery,
        takes=message.EnrolmentKeyCreate,
        headers=(auth.IDEMPOTENCY_KEY,),
        refuses=(409,),
        gives={201: message.EnrolmentKeyView},
        says="The key itself is shown only in this answer.",
    )
    async def create_key() -> Reply:
        caller, asked = await app.creation(message.EnrolmentKeyCreate)
        cluster_id = app.query(ClusterQuery).cluster_id
        return codec.reply(await enrolment.create_key(control, caller, cluster_id, asked), 201)

    @app.get("/api/v1/enrollment-keys")
    @describe(
        "List enrolment keys",
        who="cluster admin",
        query=ClusterQuery,
        gives={200: message.EnrolmentKeyList},
        says="Those that have expired are shown for 30 days more, then forgotten.",
    )
    async def list_keys() -> Reply:
        caller = await app.caller()
        return codec.reply(await enrolment.list_keys(control, caller, app.query(ClusterQuery).cluster_id))

    @app.delete("/api/v1/enrollment-keys/<key_id>")
    @describe("Revoke an enrolment key", who="cluster admin", gives={204: None})
    async def revoke_key(key_id: str) -> Reply:
        caller = await app.caller()
        await enrolment.revoke_key(control, caller, key_id)
        return codec.nothing()

    @app.post("/api/v1/api-tokens")
    @describe(
        "Create an API token",
        who="operator",
        takes=message.ApiTokenCreate,
        headers=(auth.IDEMPOTENCY_KEY,),
        gives={201: message.ApiTokenView},
        refuses=(404, 409),
        says="The token itself is shown only in this answer.",
    )
    async def create_token() -> Reply:
        caller, asked = await app.creation(message.ApiTokenCreate)
        return codec.reply(await tokens.create(control, caller, asked), 201)

    @app.get("/api/v1/api-tokens")
    @describe("List API tokens", who="operator", gives={200: message.ApiTokenList})
    async def list_tokens() -> Reply:
        caller = await app.caller()
        return codec.reply(await tokens.list_(control, caller))

    @app.delete("/api/v1/api-tokens/<token_id>")
    @describe("Revoke an API token", who="operator", gives={204: None})
    async def revoke_token(token_id: str) -> Reply:
        caller = await app.caller()
        await tokens.revoke(control, caller, token_id)
        return codec.nothing()
