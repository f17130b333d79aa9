"""The firewall policy of a cluster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgegc.api import codec
from edgegc.api.operation import declare
from edgegc.api.queries import ClusterQuery
from edgegc.control import policies
from edgegc.model import message

if TYPE_CHECKING:
    from edgegc.api.application import Application
    from edgegc.api.asked import Reply


describe: Final = partial(declare, tag="Policy")


class PolicyQuery(message.Request, frozen=True, kw_only=True):
    """``PUT /api/v1/policy``: ``dry_run`` only says whom the policy would concern."""

    cluster_id: str | None = None
    dry_run: bool = False


def add(app: Application) -> None:
    """Add the routes."""
    control = app.control

    @app.get("/api/v1/policy")
    @describe(
        "Show the firewall policy",
        who="cluster reader",
        query=ClusterQuery,
        gives={200: message.Policy},
        refuses=(409,),
    )
    async def get_policy() -> Reply:
        caller = await app.caller()
        return codec.reply(await policies.get(control, caller, app.query(ClusterQuery).cluster_id))

    @app.put("/api/v1/policy")
    @describe(
        "Replace the firewall policy",
        who="cluster admin",
        query=PolicyQuery,
        takes=message.Policy,
        gives={200: message.PolicyChange},
        refuses=(409,),
        says="Only nodes whose rules change get a new version. With dry_run nothing is changed.",
    )
    async def set_policy() -> Reply:
        caller = await app.caller()
        query = app.query(PolicyQuery)
        wanted = await app.body(message.Policy)
        if query.dry_run:
            return codec.reply(await policies.preview(control, caller, query.cluster_id, wanted))
        return codec.reply(await policies.put(control, caller, query.cluster_id, wanted))
