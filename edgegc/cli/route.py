"""``edgegc route``: subnets behind nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Common, Group, cluster_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message


@click.group(cls=Group, example="edgegc route set pi-7 192.168.7.0/24")
def route() -> None:
    """Subnets behind nodes, announced to all other nodes."""


@route.command("list", example="edgegc route list")
@cluster_options
@click.pass_obj
def list_(common: Common) -> None:
    """List the routes of a cluster."""
    from edgegc.cli.output import Column, emit_json, emit_table
    from edgegc.cli.remote import ask, cluster_scope

    async def question(client: Client) -> message.ClusterRoutes:
        return await client.cluster_routes(cluster_id=await cluster_scope(client, common))

    found = ask(common, question)
    if common.json:
        emit_json(found)
        return
    emit_table(
        common,
        (Column("ROUTE"), Column("NODE", flexible=True), Column("NODE ID", rank=1)),
        [(cidr, each.name, each.node_id) for each in found.routes for cidr in each.routes],
        empty="no routes: 'edgegc route set NODE CIDR' announces one",
    )


@route.command("set", example="edgegc route set pi-7 192.168.7.0/24 10.7.0.0/16")
@click.argument("node")
@click.argument("routes", metavar="[CIDR]...", nargs=-1)
@cluster_options
@click.pass_obj
def set_(common: Common, node: str, routes: tuple[str, ...]) -> None:
    """Replace the routes behind a node; none given removes them."""
    from edgegc.cli.output import emit_object
    from edgegc.cli.remote import ask, find_node
    from edgegc.model import message

    async def question(client: Client) -> message.NodeView:
        return await client.set_node_routes(
            await find_node(client, common, node), message.Routes(routes=routes)
        )

    view = ask(common, question)
    emit_object(common, view, quiet=view.id)
