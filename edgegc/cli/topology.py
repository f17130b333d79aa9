"""``edgegc topology``: lighthouses, relays and routes of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Command, Common, cluster_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message


@click.command(cls=Command, example="edgegc topology --cluster home")
@cluster_options
@click.pass_obj
def topology(common: Common) -> None:
    """Show how a cluster hangs together: lighthouses, relays, routes."""
    from edgegc.cli.output import Column, emit_json, emit_table, note
    from edgegc.cli.remote import ask, cluster_scope

    async def question(client: Client) -> message.Topology:
        return await client.topology(cluster_id=await cluster_scope(client, common))

    found = ask(common, question)
    if common.json:
        emit_json(found)
        return
    lighthouses = {each.overlay_ip: each for each in (*found.lighthouses, *found.relays)}
    is_lighthouse = {each.overlay_ip for each in found.lighthouses}
    rows: list[tuple[object, ...]] = [
        (
            "lighthouse" if ip in is_lighthouse else "relay",
            each.name,
            ip,
            each.public_addresses,
            each.is_relay,
        )
        for ip, each in lighthouses.items()
    ]
    rows += [("route", each.name, cidr, None, None) for each in found.routes for cidr in each.routes]
    emit_table(
        common,
        (
            Column("WHAT"),
            Column("NODE", flexible=True),
            Column("OVERLAY"),
            Column("PUBLIC ADDRESSES", flexible=True),
            Column("RELAYS", rank=1),
        ),
        rows,
        empty="no lighthouse, relay or route",
    )
    note(common, f"version {found.version}")
