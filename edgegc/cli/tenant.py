"""``edgegc tenant``: owners of clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Common, Group, name_argument, remote_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message


@click.group(cls=Group, example="edgegc tenant create acme")
def tenant() -> None:
    """Owners of clusters: who is on this box, isolated from each other."""


@tenant.command(example="edgegc tenant create acme")
@name_argument("tenant")
@remote_options
@click.pass_obj
def create(common: Common, name: str) -> None:
    """Make a tenant."""
    from edgegc.cli.remote import ask
    from edgegc.model import message

    _show(common, ask(common, lambda client: client.create_tenant(message.TenantCreate(name=name))))


@tenant.command("list", example="edgegc tenant list")
@remote_options
@click.pass_obj
def list_(common: Common) -> None:
    """List the tenants."""
    from edgegc.cli.output import Column, emit_list
    from edgegc.cli.remote import ask

    found = ask(common, lambda client: client.tenants())
    emit_list(
        common,
        found,
        (Column("NAME", flexible=True), Column("ID"), Column("CREATED", rank=1)),
        [(each.name, each.id, each.created_at) for each in found.tenants],
        ids=(each.id for each in found.tenants),
        empty="no tenants: 'edgegc tenant create NAME' makes one",
    )


@tenant.command(example="edgegc tenant show acme")
@click.argument("tenant")
@remote_options
@click.pass_obj
def show(common: Common, tenant: str) -> None:
    """Show one tenant, by name or id."""
    from edgegc.cli.remote import ask, find_tenant

    async def question(client: Client) -> message.TenantView:
        return await client.tenant(await find_tenant(client, tenant))

    _show(common, ask(common, question))


@tenant.command(example="edgegc tenant update acme --name acme-west")
@click.argument("tenant")
@click.option("--name", required=True, help="The new name.")
@remote_options
@click.pass_obj
def update(common: Common, tenant: str, name: str) -> None:
    """Rename a tenant."""
    from edgegc.cli.remote import ask, find_tenant
    from edgegc.model import message

    async def question(client: Client) -> message.TenantView:
        return await client.update_tenant(await find_tenant(client, tenant), message.TenantUpdate(name=name))

    _show(common, ask(common, question))


@tenant.command(example="edgegc tenant delete acme --cascade")
@click.argument("tenant")
@click.option("--cascade", is_flag=True, help="Delete its clusters and all their nodes too.")
@remote_options
@click.pass_obj
def delete(common: Common, tenant: str, cascade: bool) -> None:
    """Delete a tenant, by name or id. One with clusters only with --cascade."""
    from edgegc.cli.output import note
    from edgegc.cli.remote import ask, find_tenant

    async def question(client: Client) -> None:
        await client.delete_tenant(await find_tenant(client, tenant), cascade=cascade)

    ask(common, question)
    note(common, f"{tenant} is deleted")


def _show(common: Common, view: message.TenantView) -> None:
    from edgegc.cli.output import emit_object

    emit_object(common, view, quiet=view.id)
