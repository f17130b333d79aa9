"""``edgegc clock``: whether the box trusts its clock, and how to say that it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Command, Common, remote_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message


@click.command(cls=Command, example="edgegc clock\nedgegc clock --accept")
@click.option(
    "--accept", is_flag=True, help="The box's clock is right now, and was ahead at its last changes."
)
@remote_options
@click.pass_obj
def clock(common: Common, accept: bool) -> None:
    """Show whether the box trusts its clock. Exit 1 if not: then it signs no certificates.

    A clock that was once far ahead leaves changes in the future behind, and every right time seems wrong after them.
    --accept says that it is right now. What was signed meanwhile is signed again; keys and tokens that were made
    meanwhile expire late: look at 'edgegc key list' and 'edgegc token list'. If it was ahead for longer than
    certificates live, revoked ones may have left the blocklist as expired: then 'edgegc cluster rotate-ca', too.
    """
    from edgegc.cli.failure import Failure
    from edgegc.cli.output import emit_fields, emit_json
    from edgegc.cli.remote import ask

    if accept:
        done = ask(common, lambda client: client.accept_clock())
        if common.json:
            emit_json(done)
        elif not common.quiet:
            click.echo(done.detail)
        return

    async def question(client: Client) -> message.Health:
        return await client.health()

    said = ask(common, question).checks.get("clock", "not looked at yet: edgegc has just started")
    if common.json:
        emit_json({"clock": said})
    elif not common.quiet:
        emit_fields(common, (("clock", said),))
    if said != "ok":
        raise Failure("the clock is not trusted: no certificates are signed")
