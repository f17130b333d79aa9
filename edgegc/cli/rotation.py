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
    from edgegc.cli.remote import ask, find_cluster
    from edgegc.model import message

    if force and step is None:
        raise click.UsageError("--force goes with --step")

    async def question(client: Client) -> message.CaRotation:
        cluster_id = await find_cluster(client, cluster or common.cluster)
        if step is None:
            found = await client.ca_rotation(cluster_id)
        else:
            found = await client.rotate_ca(cluster_id, message.CaRotationStep(step=step, force=force))
        return await _applied(client, cluster_id, timeout_s) if wait else found

    found = ask(common, question)
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
        following = "issue" if found.phase == "prepared" else "retire"
        if found.ready:
            note(
                common,
                f"every node has applied this: 'edgegc cluster rotate-ca --step {following}' may follow",
            )
        else:
            note(common, f"--step {following} may follow when nobody is waited for any more")


async def _applied(client: Client, cluster_id: str, timeout_s: float) -> message.CaRotation:
    """Return the rotation once everybody has applied its last step, or as it is at the deadline."""
    import trio

    deadline = trio.current_time() + timeout_s
    while True:
        found = await client.ca_rotation(cluster_id)
        if not found.waiting_for or trio.current_time() >= deadline:
            return found
        await trio.sleep(min(LOOK_EVERY_S, max(0.0, deadline - trio.current_time())))
