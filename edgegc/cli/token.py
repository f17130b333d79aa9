"""``edgegc token``: API tokens."""

from __future__ import annotations

import click

from edgegc.cli.options import Common, Group, list_option, remote_options


@click.group(cls=Group, example="edgegc token create --scopes operator --label laptop")
def token() -> None:
    """API tokens, for people and programs."""


@token.command(example="edgegc token create --scopes metrics --label prometheus --quiet")
@list_option(
    "--scopes",
    metavar="SCOPE",
    required=True,
    help="operator, cluster:<id>:admin, cluster:<id>:read, metrics.",
)
@click.option(
    "--expires-in-s", type=int, metavar="SECONDS", help="How long it is good for. [default: for ever]"
)
@click.option("--label", help="For you, to tell tokens apart.")
@remote_options
@click.pass_obj
def create(common: Common, scopes: tuple[str, ...], expires_in_s: int | None, label: str | None) -> None:
    """Make an API token. Prints it, once."""
    from edgegc.cli.output import emit_object
    from edgegc.cli.remote import ask
    from edgegc.model import message

    body = message.ApiTokenCreate(scopes=scopes, expires_in_s=expires_in_s, label=label)
    made = ask(common, lambda client: client.create_api_token(body))
    emit_object(common, made, quiet=str(made.token))


@token.command("list", example="edgegc token list")
@remote_options
@click.pass_obj
def list_(common: Common) -> None:
    """List the API tokens."""
    from edgegc.cli.output import Column, ago, emit_list
    from edgegc.cli.remote import ask

    found = ask(common, lambda client: client.api_tokens())
    emit_list(
        common,
        found,
        (
            Column("ID"),
            Column("LABEL", flexible=True),
            Column("SCOPES", flexible=True),
            Column("USED", right=True),
            Column("EXPIRES", rank=1),
        ),
        [
            (each.id, each.label, each.scopes, ago(each.last_used_at), each.expires_at or "never")
            for each in found.api_tokens
        ],
        ids=(each.id for each in found.api_tokens),
        empty="no API tokens: 'edgegc token create --scopes operator' makes one",
    )


@token.command(example="edgegc token revoke 5b1f6f0e-8c39-4be9-9d3b-1a3c0e1f7a52")
@click.argument("token_id", metavar="ID")
@remote_options
@click.pass_obj
def revoke(common: Common, token_id: str) -> None:
    """Revoke an API token; it stops at once."""
    from edgegc.cli.output import note
    from edgegc.cli.remote import ask

    ask(common, lambda client: client.revoke_api_token(token_id))
    note(common, f"{token_id} is revoked")
