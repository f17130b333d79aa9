"""``edgegc cluster rotate-ca``: a new authority and bundle signer for a cluster, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Command, Common, remote_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message

LOOK_EVERY_S = 0.5
"""As for a rollout: at once for a person, nothing for the box."""
MOST_NAMES = 5
"""Of who is waited for: a sentence stays one; '-o json' has all of them."""


@click.command(
    "rotate-ca",
    cls=Command,
    example="edgegc cluster rotate-ca home --step prepare --wait\n"
    "edgegc cluster rotate-ca home --step issue --wait\n"
    "edgegc cluster rotate-ca home --step retire --wait",
)
@click.argument("cluster", required=False)
@click.option(
    "--step",
    type=click.Choice(["prepare", "issue", "retire"]),
    help="Trust a new CA everywhere; sign everything with it; drop the old one. Without: show how far it is.",
)
@click.option("--force", is_flag=True, help="Go on without the nodes that have not applied the step before.")
@click.option("--wait", "-w", is_flag=True, help="Until every node has applied it; exit 1 at the timeout.")
@click.option(
    "--timeout", "timeout_s", type=float, default=300, show_default=True, metavar="S", help="For --wait."
)
@remote_options
@click.pass_obj
def rotate_ca(
    common: Common,
    cluster: str | None,
    step: message.RotationStep | None,
    force: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Replace a cluster's CA and bundle signer in three steps, without cutting anybody off."""
    from edgegc.cli.failure import Failure
    from edgegc.cli.output import emit_fields, emit_json, note
    from edgegc.cli.progress import spinner
    from edgegc.cli.remote import ask, find_cluster
    from edgegc.model import message

    if force and step is None:
        raise click.UsageError("--force goes with --step")

    async def question(client: Client) -> tuple[str, message.CaRotation]:
        cluster_id = await find_cluster(client, cluster or common.cluster)
        if step is None:
            found = await client.ca_rotation(cluster_id)
        else:
            with spinner(common, "the box takes the step"):
                found = await client.rotate_ca(cluster_id, message.CaRotationStep(step=step, force=force))
        if wait:
            found = await _applied(common, client, cluster_id, timeout_s)
        return (await client.cluster(cluster_id)).name, found

    name, found = ask(common, question, doing=None)
    if common.json:
        emit_json(found)
    elif common.quiet:
        click.echo(found.phase)
    else:
        emit_fields(
            common,
            (
                ("phase", found.phase),
                ("old CA" if found.new_fingerprint else "CA", found.old_fingerprint),
                *((("new CA", found.new_fingerprint),) if found.new_fingerprint else ()),
                ("waiting for", [each.name for each in found.waiting_for]),
                ("ready", found.ready),
            ),
        )
    if wait and found.waiting_for:
        raise Failure(
            f"after {timeout_s:g} s {len(found.waiting_for)} have not applied this step: "
            "they may be offline; 'edgegc node list' says since when"
        )
    if found.phase != "none":
        note(common, what_follows(name, found))
    elif step == "retire":
        note(common, "the CA is replaced; now take a backup: one from before knows none of the new keys")


def what_follows(cluster: str, found: message.CaRotation) -> str:
    """Return what is to be done next in a rotation under way, and who is waited for."""
    command = (
        f"'edgegc cluster rotate-ca {cluster} --step {'issue' if found.phase == 'prepared' else 'retire'}'"
    )
    if found.ready:
        return f"every node has applied this, {command} is next"
    names = [each.name for each in found.waiting_for]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"waiting for {', '.join(names[:MOST_NAMES])}{more}, then {command}"


async def _applied(common: Common, client: Client, cluster_id: str, timeout_s: float) -> message.CaRotation:
    """Return the rotation once everybody has applied its last step, or as it is at the deadline."""
    import trio

    from edgegc.cli.progress import count

    deadline = trio.current_time() + timeout_s
    most = 0
    with count(common, "nodes that have applied it") as show:
        while True:
            found = await client.ca_rotation(cluster_id)
            waiting = len(found.waiting_for)
            most = max(most, waiting)
            show(most - waiting, most)
            if not waiting or trio.current_time() >= deadline:
                return found
            await trio.sleep(min(LOOK_EVERY_S, max(0.0, deadline - trio.current_time())))
