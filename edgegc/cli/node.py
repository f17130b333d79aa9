"""``edgegc node``: members of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import UNSET

from edgegc.cli.options import (
    Common,
    Group,
    cluster_options,
    integer_or,
    list_option,
    name_argument,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.client import Client
    from edgegc.model import message

MOST_NAMES = 5
"""Of the nodes that failed for one reason, named below a list."""


def shape(*, new: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of what a node is; each is None where it is not given, the port UNSET.

    ``new``: for one that is made; in a change, what is not given stays as it is.
    """

    def default(value: str) -> str:
        return f" [default: {value}]" if new else ""

    return together(
        click.option(
            "--role",
            type=click.Choice(["member", "admin"]),
            help="An admin's token may change everything in its cluster." + default("member"),
        ),
        click.option("--mtu", type=int, help="1280 to 9000." + default("1300")),
        list_option("--groups", metavar="GROUP", help="All of its groups, for firewall rules; '' for none."),
        click.option(
            "--overlay-ip", metavar="IP", help="Its address in the overlay." + default("the next free one")
        ),
        click.option(
            "--listen-port",
            type=integer_or("auto"),
            default=UNSET,
            show_default=False,
            metavar="PORT|auto",
            help="A fixed UDP port; 'auto' leaves it to the node." + default("auto"),
        ),
    )


@click.group(cls=Group, example="edgegc node list --state failed")
def node() -> None:
    """Members of a cluster; NODE is a name or an id."""


@node.command(example="edgegc node create pi-7 --groups sensors,floor-2")
@name_argument("node")
@shape(new=True)
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file with its public key; else the node sends one when it first asks.",
)
@cluster_options
@click.pass_obj
def create(common: Common, /, name: str, public_key: Path | None, **optional: Any) -> None:
    """Make a node ahead of its machine. Prints its token, once. ('edgegc join' makes its node itself.)"""
    from edgegc.cli.output import emit_object
    from edgegc.cli.remote import ask, cluster_scope, given
    from edgegc.model import message

    body = message.NodeCreate(
        name=name,
        public_key=public_key.read_text(encoding="ascii", errors="replace") if public_key else None,
        **given(optional, none_means="listen_port"),
    )

    async def question(client: Client) -> message.NodeView:
        return await client.create_node(body, cluster_id=await cluster_scope(client, common))

    view = ask(common, question)
    emit_object(common, view, quiet=str(view.node_token))


@node.command("list", example="edgegc node list --state failed --sort -last_seen_at")
@click.option("--name", metavar="PREFIX", help="Only those whose name begins so.")
@click.option("--group", metavar="GROUP", help="Only members of this group.")
@click.option("--role", type=click.Choice(["member", "admin"]), help="Only these.")
@click.option("--state", type=click.Choice(["online", "behind", "failed", "offline"]), help="Only these.")
@click.option(
    "--sort",
    default="name",
    metavar="FIELD",
    help="name, created_at, last_seen_at, overlay_ip; -name reverses.",
)
@click.option("--page", type=click.IntRange(min=1), default=1, help="Which page.")
@click.option("--page-size", type=int, default=500, show_default=True, help="Nodes on a page, at most 500.")
@click.option("--cursor", metavar="CURSOR", help="The next_cursor of the page before, instead of --page.")
@cluster_options
@click.pass_obj
def list_(common: Common, /, **query: Any) -> None:
    """List nodes: who runs what, who was seen when."""
    from edgegc.cli.output import Column, ago, emit_list, emit_sentence, note
    from edgegc.cli.remote import ask, cluster_scope
    from edgegc.model import message

    async def question(client: Client) -> message.NodePage:
        return await client.nodes(message.NodeQuery(**query), cluster_id=await cluster_scope(client, common))

    page = ask(common, question)
    emit_list(
        common,
        page,
        (
            Column("NAME", flexible=True),
            Column("OVERLAY IP"),
            Column("STATE"),
            Column("VERSION", right=True),
            Column("SEEN", right=True),
            Column("GROUPS", flexible=True, rank=3),
            Column("ROLE", rank=2),
            Column("NEBULA", rank=1),
        ),
        [
            (
                each.name + _marks(each),
                each.overlay_ip and each.overlay_ip.partition("/")[0],
                each.state,
                versions(each.applied_version, each.version),
                ago(each.last_seen_at),
                each.groups,
                each.role,
                each.nebula_version,
            )
            for each in page.nodes
        ],
        ids=(each.id for each in page.nodes),
        empty="no nodes: 'edgegc key create --show-join' prints the command that makes a machine one",
    )
    if common.json or common.quiet:
        return
    for sentence in _errors(page.nodes):
        emit_sentence(sentence)
    if page.next_cursor:
        note(common, f"{len(page.nodes)} of {page.total} nodes; --page {page.page + 1} shows more")


@node.command(example="edgegc node show pi-7")
@click.argument("node")
@cluster_options
@click.pass_obj
def show(common: Common, node: str) -> None:
    """Show everything known of a node."""
    from edgegc.cli.remote import ask, find_node

    async def question(client: Client) -> message.NodeView:
        return await client.node(await find_node(client, common, node))

    _show(common, ask(common, question))


@node.command(example="edgegc node update pi-7 --mtu 1400")
@click.argument("node")
@click.option("--name", help="A new name.")
@shape(new=False)
@cluster_options
@click.pass_obj
def update(common: Common, /, node: str, **optional: Any) -> None:
    """Change what is given of a node; it follows by itself."""
    from edgegc.cli.remote import ask, find_node, given
    from edgegc.model import message

    change = given(optional, none_means="listen_port")
    if not change:
        raise click.UsageError("nothing to change: give at least one option")

    async def question(client: Client) -> message.NodeView:
        return await client.update_node(await find_node(client, common, node), message.NodeUpdate(**change))

    _show(common, ask(common, question))


@node.command(example="edgegc node delete pi-7")
@click.argument("node")
@cluster_options
@click.pass_obj
def delete(common: Common, node: str) -> None:
    """Delete a node: its token stops, its certificates are revoked on every other node."""
    from edgegc.cli.output import note
    from edgegc.cli.remote import ask, find_node

    async def question(client: Client) -> None:
        await client.delete_node(await find_node(client, common, node))

    ask(common, question)
    note(common, f"{node} is deleted")


@node.command("rotate-token", example="edgegc node rotate-token pi-7 --quiet")
@click.argument("node")
@cluster_options
@click.pass_obj
def rotate_token(common: Common, node: str) -> None:
    """Give a node a new token; the old one stops at once. Prints it, once."""
    from edgegc.cli.output import emit_object
    from edgegc.cli.remote import ask, find_node

    async def question(client: Client) -> message.NodeToken:
        return await client.rotate_node_token(await find_node(client, common, node))

    made = ask(common, question)
    emit_object(common, made, quiet=made.node_token)


@node.command("set-lighthouse", example="edgegc node set-lighthouse gate --public-addresses 203.0.113.9:4242")
@click.argument("node")
@list_option(
    "--public-addresses", metavar="IP:PORT", required=True, help="Where other nodes reach it from outside."
)
@cluster_options
@click.pass_obj
def set_lighthouse(common: Common, node: str, public_addresses: tuple[str, ...]) -> None:
    """Make a node a lighthouse; it listens on the first address's port."""
    from edgegc.model import message

    body = message.LighthouseSet(public_addresses=public_addresses)
    _mark(common, node, lambda client, node_id: client.set_node_lighthouse(node_id, body))


@node.command("unset-lighthouse", example="edgegc node unset-lighthouse gate")
@click.argument("node")
@cluster_options
@click.pass_obj
def unset_lighthouse(common: Common, node: str) -> None:
    """Make a lighthouse a plain node again."""
    _mark(common, node, lambda client, node_id: client.unset_node_lighthouse(node_id))


@node.command("set-relay", example="edgegc node set-relay gate")
@click.argument("node")
@cluster_options
@click.pass_obj
def set_relay(common: Common, node: str) -> None:
    """Let a node relay for others that can't reach each other."""
    _mark(common, node, lambda client, node_id: client.set_node_relay(node_id))


@node.command("unset-relay", example="edgegc node unset-relay gate")
@click.argument("node")
@cluster_options
@click.pass_obj
def unset_relay(common: Common, node: str) -> None:
    """Stop a node from relaying."""
    _mark(common, node, lambda client, node_id: client.unset_node_relay(node_id))


def versions(applied: int | None, effective: int) -> str:
    """Return ``7`` for a node that runs what it should, ``5→7`` for one that is behind."""
    if applied == effective:
        return str(effective)
    return f"{'-' if applied is None else applied}→{effective}"


def _errors(nodes: tuple[message.NodeView, ...]) -> list[str]:
    """Return why nodes failed, a sentence per reason: what fails on one node usually fails on many."""
    by_reason: dict[str, list[str]] = {}
    for each in nodes:
        if each.error:
            by_reason.setdefault(each.error, []).append(each.name)
    sentences = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        sentences.append(f"{', '.join(names[:MOST_NAMES])}{more}: {reason}")
    return sentences


def _marks(view: message.NodeView) -> str:
    marks = [word for word, is_so in (("lighthouse", view.is_lighthouse), ("relay", view.is_relay)) if is_so]
    return f" ({', '.join(marks)})" if marks else ""


def _mark(common: Common, node: str, mark: Callable[[Client, str], Awaitable[object]]) -> None:
    from edgegc.cli.remote import ask, find_node

    async def question(client: Client) -> message.NodeView:
        node_id = await find_node(client, common, node)
        await mark(client, node_id)
        return await client.node(node_id)

    _show(common, ask(common, question))


def _show(common: Common, view: message.NodeView) -> None:
    from edgegc.cli.output import emit_object

    emit_object(common, view, quiet=view.id)
