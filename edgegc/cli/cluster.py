"""``edgegc cluster``: Nebula networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgegc.cli.options import Common, Group, list_option, name_argument, remote_options, together
from edgegc.cli.rotation import rotate_ca

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.client import Client
    from edgegc.model import message


def changeable(*, new: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of what may change in a cluster's life; each is None where it is not given.

    ``new``: for one that is made; in a change, what is not given stays as it is.
    """

    def default(value: str) -> str:
        return f" [default: {value}]" if new else ""

    return together(
        click.option(
            "--provide-lighthouse/--no-provide-lighthouse",
            default=None,
            help="Run a lighthouse on this box.",
        ),
        click.option(
            "--provide-relay/--no-provide-relay",
            default=None,
            help="That lighthouse also relays." + default("yes"),
        ),
        click.option("--lighthouse-port", type=int, metavar="PORT", help="Its UDP port." + default("4242")),
        list_option(
            "--lighthouse-public-addresses",
            metavar="IP:PORT",
            help="Where nodes reach it from outside.",
        ),
        list_option(
            "--allowed-routes",
            metavar="CIDR",
            help="What a member may announce; '' for nothing." + default("the RFC 1918 ranges"),
        ),
        click.option(
            "--certificate-lifetime-s",
            type=int,
            metavar="SECONDS",
            help="60 s to 5 years." + default("180 days"),
        ),
        click.option(
            "--supersede-grace-s",
            type=int,
            metavar="SECONDS",
            help="How long a replaced certificate is still accepted." + default("600"),
        ),
    )


@click.group(cls=Group, example="edgegc cluster create home --network-cidr 10.42.0.0/16")
def cluster() -> None:
    """Nebula networks: a CA, an address range, nodes."""


@cluster.command(
    example="edgegc cluster create home --network-cidr 10.42.0.0/16 \\\n"
    "    --provide-lighthouse --lighthouse-public-addresses 203.0.113.9:4242"
)
@name_argument("cluster")
@click.option(
    "--tenant", "--tenant-id", "tenant", metavar="NAME|ID", help="Its owner; not needed with only one."
)
@click.option(
    "--network-cidr", required=True, metavar="CIDR", help="The overlay's IPv4 range; it can't change."
)
@click.option(
    "--mode", type=click.Choice(["managed", "uploaded"]), help="Who makes bundles. [default: managed]"
)
@changeable(new=True)
@remote_options
@click.pass_obj
def create(common: Common, /, name: str, tenant: str | None, network_cidr: str, **optional: Any) -> None:
    """Make a cluster."""
    from edgegc.cli.remote import ask, find_tenant, given
    from edgegc.model import message

    async def question(client: Client) -> message.ClusterView:
        return await client.create_cluster(
            message.ClusterCreate(
                name=name,
                tenant_id=await find_tenant(client, tenant),
                network_cidr=network_cidr,
                **given(optional),
            )
        )

    _show(common, ask(common, question))


@cluster.command("list", example="edgegc cluster list")
@remote_options
@click.pass_obj
def list_(common: Common) -> None:
    """List the clusters."""
    from edgegc.cli.output import Column, emit_list
    from edgegc.cli.remote import ask

    found = ask(common, lambda client: client.clusters())
    emit_list(
        common,
        found,
        (
            Column("NAME", flexible=True),
            Column("NETWORK"),
            Column("VERSION", right=True),
            Column("NODES", right=True),
            Column("LIGHTHOUSE", flexible=True),
            Column("MODE", rank=2),
            Column("CA UNTIL", rank=1),
            Column("ID", rank=3),
        ),
        [
            (
                each.name,
                each.network_cidr,
                each.version,
                each.nodes,
                (each.lighthouse_public_addresses or f"port {each.lighthouse_port}")
                if each.provide_lighthouse
                else None,
                each.mode,
                each.ca and each.ca.not_after.date(),
                each.id,
            )
            for each in found.clusters
        ],
        ids=(each.id for each in found.clusters),
        empty="no clusters: 'edgegc cluster create NAME --network-cidr CIDR' makes one",
    )


@cluster.command(example="edgegc cluster show home")
@click.argument("cluster", required=False)
@remote_options
@click.pass_obj
def show(common: Common, cluster: str | None) -> None:
    """Show one cluster, by name or id."""
    from edgegc.cli.remote import ask, find_cluster

    async def question(client: Client) -> message.ClusterView:
        return await client.cluster(await find_cluster(client, cluster or common.cluster))

    _show(common, ask(common, question))


@cluster.command(example="edgegc cluster update home --lighthouse-public-addresses 203.0.113.10:4242")
@click.argument("cluster", required=False)
@click.option("--name", help="A new name.")
@changeable(new=False)
@remote_options
@click.pass_obj
def update(common: Common, /, cluster: str | None, **optional: Any) -> None:
    """Change what is given of a cluster. Its nodes follow by themselves."""
    from edgegc.cli.remote import ask, find_cluster, given
    from edgegc.model import message

    change = given(optional)
    if not change:
        raise click.UsageError("nothing to change: give at least one option")

    async def question(client: Client) -> message.ClusterView:
        cluster_id = await find_cluster(client, cluster or common.cluster)
        return await client.update_cluster(cluster_id, message.ClusterUpdate(**change))

    _show(common, ask(common, question))


@cluster.command(example="edgegc cluster delete home --cascade")
@click.argument("cluster")
@click.option("--cascade", is_flag=True, help="Delete its nodes too.")
@remote_options
@click.pass_obj
def delete(common: Common, cluster: str, cascade: bool) -> None:
    """Delete a cluster, by name or id, with its keys and its lighthouse. One with nodes only with --cascade."""
    from edgegc.cli.output import note
    from edgegc.cli.remote import ask, find_cluster

    async def question(client: Client) -> None:
        await client.delete_cluster(await find_cluster(client, cluster), cascade=cascade)

    ask(common, question)
    note(common, f"{cluster} is deleted")


cluster.add_command(rotate_ca)


def _show(common: Common, view: message.ClusterView) -> None:
    from edgegc.cli.output import emit_object

    emit_object(common, view, quiet=view.id)
