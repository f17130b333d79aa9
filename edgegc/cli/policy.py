"""``edgegc policy``: the firewall of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgegc.cli.options import Common, Group, cluster_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message


@click.group(cls=Group, example="edgegc policy set rules.yml --dry-run")
def policy() -> None:
    """The firewall of a cluster: what no rule allows is dropped."""


@policy.command(example="edgegc policy show\nedgegc policy show -o json > rules.json")
@cluster_options
@click.pass_obj
def show(common: Common) -> None:
    """Show the rules of a cluster."""
    from edgegc.cli.output import Column, emit_json, emit_table
    from edgegc.cli.remote import ask, cluster_scope

    async def question(client: Client) -> message.Policy:
        return await client.policy(cluster_id=await cluster_scope(client, common))

    found = ask(common, question)
    if common.json:
        emit_json(found)
        return
    emit_table(
        common,
        (
            Column("DIRECTION"),
            Column("PROTO"),
            Column("PORT"),
            Column("OTHER SIDE", flexible=True),
            Column("ON GROUPS", flexible=True),
        ),
        [
            (direction, rule.proto, rule.port, _other_side(rule), rule.on_groups or "all nodes")
            for direction, rules in (("inbound", found.inbound), ("outbound", found.outbound))
            for rule in rules
        ],
        empty="no rules: everything is dropped",
    )


@policy.command(
    "set", example="edgegc policy set rules.yml --dry-run\nedgegc policy show -o json | edgegc policy set -"
)
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Change nothing: list the nodes whose firewall would change.")
@cluster_options
@click.pass_obj
def set_(common: Common, file: Any, dry_run: bool) -> None:
    """Replace the rules of a cluster by those of FILE: JSON, YAML or TOML by its name's end, '-' for stdin.

    \b
    inbound:
      - {port: any, proto: icmp, host: any}
      - {port: 22, proto: tcp, groups: [ops]}
      - {port: 80-90, proto: tcp, cidr: 10.42.9.0/24, on_groups: [web]}
    outbound:
      - {port: any, proto: any, host: any}
    """
    from edgegc.cli.output import Column, emit_json, emit_table, note
    from edgegc.cli.remote import ask, cluster_scope

    wanted = _read(file.name, file.read())

    async def question(client: Client) -> message.PolicyChange:
        return await client.set_policy(
            wanted, cluster_id=await cluster_scope(client, common), dry_run=dry_run
        )

    found = ask(common, question)
    if common.json:
        emit_json(found)
        return
    rows = [(each.name, "firewall", each.id) for each in found.nodes]
    rows += [(each.name, "certificate (name)", each.id) for each in found.signed_again]
    emit_table(
        common, (Column("NODE", flexible=True), Column("CHANGES"), Column("ID", rank=1)), rows,
        empty="no node's firewall changes",
    )  # fmt: skip
    rules = f"{len(found.inbound)} inbound and {len(found.outbound)} outbound rules"
    if dry_run:
        note(common, f"nothing was changed; without --dry-run the policy has {rules}")
    else:
        note(common, f"the policy has {rules}")


def _read(name: str, content: bytes) -> message.Policy:
    """Read a policy from a file's content. Raises Failure naming the file and the field."""
    import msgspec

    from edgegc.cli.failure import Exit, Failure
    from edgegc.model import message

    try:
        return msgspec.convert(_parsed(name, content), message.Policy)
    except msgspec.ValidationError as error:
        said, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$").removeprefix(".")
        raise Failure(f"{name}: {f'{field}: ' if field else ''}{said}", Exit.USAGE) from None
    except (ValueError, RecursionError) as error:
        raise Failure(f"{name} can't be read: {error}", Exit.USAGE) from None


def _parsed(name: str, content: bytes) -> object:
    """Return what a file says. Raises ValueError."""
    if name.endswith(".json") or (content.lstrip()[:1] == b"{" and not name.endswith((".yml", ".yaml"))):
        import json

        return json.loads(content)
    if name.endswith(".toml"):
        import tomllib

        return tomllib.loads(content.decode())
    import yaml

    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _other_side(rule: message.PolicyRule) -> str:
    if rule.groups:
        return f"groups {' and '.join(rule.groups)}"
    if rule.cidr is not None:
        return rule.cidr
    return "anybody" if rule.host == "any" else f"host {rule.host}"
