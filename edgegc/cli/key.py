"""``edgegc key``: enrolment keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from msgspec import UNSET

from edgegc.cli.options import Common, Group, cluster_options, integer_or, list_option

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message


@click.group(cls=Group, example="edgegc key create --show-join")
def key() -> None:
    """Enrolment keys: with one, a machine becomes a node of a cluster. Good for that only."""


@key.command(example="edgegc key create --uses 20 --expires-in-s 604800 --groups sensors --show-join")
@click.option(
    "--uses", type=integer_or("unlimited"), default=UNSET, show_default=False, metavar="N|unlimited", help="How many machines it is for. [default: 1]"
)  # fmt: skip
@click.option(
    "--expires-in-s",
    type=int,
    metavar="SECONDS",
    help="How long it is good for, at most a year. [default: 86400, a day]",
)
@list_option("--groups", metavar="GROUP", help="What its nodes are members of.")
@click.option("--label", help="For you, to tell keys apart.")
@click.option("--show-join", is_flag=True, help="Print the command to run on the machine instead.")
@cluster_options
@click.pass_obj
def create(common: Common, /, show_join: bool, **optional: Any) -> None:
    """Make an enrolment key. Prints it, once."""
    from edgegc.cli.joining import join_command, join_target
    from edgegc.cli.output import emit_json, emit_object
    from edgegc.cli.remote import ask, cluster_scope, given
    from edgegc.model import message

    # Before the key is made: a key that nobody saw would be left behind.
    target = join_target(common) if show_join else None
    body = message.EnrolmentKeyCreate(**given(optional, none_means="uses"))

    async def question(client: Client) -> message.EnrolmentKeyView:
        return await client.create_enrolment_key(body, cluster_id=await cluster_scope(client, common))

    made = ask(common, question)
    if target is None:
        emit_object(common, made, quiet=str(made.key))
    elif common.json:
        emit_json(
            {
                "url": target.url,
                "key": made.key,
                "pin": target.pin,
                "join": join_command(target, str(made.key)),
            }
        )
    else:
        click.echo(join_command(target, str(made.key)))


@key.command("list", example="edgegc key list")
@cluster_options
@click.pass_obj
def list_(common: Common) -> None:
    """List the keys that are not revoked."""
    from edgegc.cli.output import Column, emit_list
    from edgegc.cli.remote import ask, cluster_scope

    async def question(client: Client) -> message.EnrolmentKeyList:
        return await client.enrolment_keys(cluster_id=await cluster_scope(client, common))

    found = ask(common, question)
    emit_list(
        common,
        found,
        (
            Column("ID"),
            Column("LABEL", flexible=True),
            Column("USED", right=True),
            Column("EXPIRES"),
            Column("GROUPS", flexible=True, rank=1),
        ),
        [
            (
                each.id,
                each.label,
                f"{each.used}/{'∞' if each.uses is None else each.uses}",
                each.expires_at,
                each.groups,
            )
            for each in found.enrollment_keys
        ],
        ids=(each.id for each in found.enrollment_keys),
        empty="no keys: 'edgegc key create' makes one",
    )


@key.command(example="edgegc key revoke 5b1f6f0e-8c39-4be9-9d3b-1a3c0e1f7a52")
@click.argument("key_id", metavar="ID")
@cluster_options
@click.pass_obj
def revoke(common: Common, key_id: str) -> None:
    """Revoke a key. Nodes that it made stay."""
    from edgegc.cli.output import note
    from edgegc.cli.remote import ask

    ask(common, lambda client: client.revoke_enrolment_key(key_id))
    note(common, f"{key_id} is revoked")
