"""``edgegc rollout``: who runs what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Command, Common, cluster_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.model import message

LOOK_EVERY_S = 0.5
"""Changes arrive in milliseconds; half a second is what a person feels as at once, and costs the box nothing."""


@click.command(
    cls=Command, example="edgegc node update pi-7 --mtu 1400 && edgegc rollout --wait --timeout 60"
)
@click.option(
    "--wait", "-w", is_flag=True, help="Until all online nodes run what they should; exit 1 at the timeout."
)
@click.option(
    "--timeout", "timeout_s", type=float, default=300, show_default=True, metavar="S", help="For --wait."
)
@cluster_options
@click.pass_obj
def rollout(common: Common, wait: bool, timeout_s: float) -> None:
    """Show which nodes run their newest version, and which do not yet."""
    from edgegc.cli.failure import Failure
    from edgegc.cli.node import versions
    from edgegc.cli.output import Column, ago, emit_fields, emit_json, emit_table, note
    from edgegc.cli.remote import WAITING, ask, cluster_scope

    async def question(client: Client) -> message.Rollout:
        cluster_id = await cluster_scope(client, common)
        if wait:
            return await _settled(client, cluster_id, timeout_s, common)
        return await client.rollout(cluster_id=cluster_id)

    found = ask(common, question, doing=None if wait else WAITING)
    if common.json:
        emit_json(found)
    elif not common.quiet:
        counts = found.nodes
        emit_fields(
            common,
            (
                ("version", found.version),
                ("nodes", counts.total),
                ("online", counts.online),
                ("behind", counts.behind),
                ("failed", counts.failed),
                ("offline", counts.offline),
            ),
        )
        if found.behind:
            click.echo()
            emit_table(
                common,
                (
                    Column("NODE", flexible=True),
                    Column("STATE"),
                    Column("VERSION", right=True),
                    Column("SINCE", right=True),
                    Column("ID", rank=1),
                ),
                [
                    (
                        each.name,
                        each.state,
                        versions(each.applied_version, each.version),
                        ago(each.since),
                        each.id,
                    )
                    for each in found.behind
                ],
            )
            if found.behind_truncated:
                note(common, f"{found.behind_total - len(found.behind)} more, see: edgegc node list")
    if wait:
        unfinished = _unfinished(found)
        if unfinished is not None:
            raise Failure(f"after {timeout_s:g} s {unfinished}")
        note(common, _finished(found))


async def _settled(
    client: Client, cluster_id: str | None, timeout_s: float, common: Common
) -> message.Rollout:
    """Return the rollout once every online node is current, or as it is at the deadline."""
    import trio

    from edgegc.cli.progress import count

    deadline = trio.current_time() + timeout_s
    with count(common, "nodes current") as show:
        while True:
            found = await client.rollout(cluster_id=cluster_id)
            there = found.nodes.total - found.nodes.offline
            show(there - _waiting_for(found), there)
            if _unfinished(found) is None or trio.current_time() >= deadline:
                return found
            await trio.sleep(min(LOOK_EVERY_S, max(0.0, deadline - trio.current_time())))


def _unfinished(found: message.Rollout) -> str | None:
    """Return what is still to come, as the end of a sentence, or None when nothing is."""
    waiting_for = _waiting_for(found)
    if waiting_for:
        return f"{waiting_for} of {found.nodes.total} nodes do not run their newest version"
    if found.nodes.total and not found.nodes.online:
        # That nobody is left behind would be true, and say nothing: right after a start nobody has called yet.
        return f"no node is online: {found.nodes.offline} are offline"
    return None


def _finished(found: message.Rollout) -> str:
    offline = f"; {found.nodes.offline} offline" if found.nodes.offline else ""
    if not found.nodes.total:
        return "there are no nodes"
    return f"all online nodes run their newest version{offline}"


def _waiting_for(found: message.Rollout) -> int:
    """Return how many nodes are there and do not run what they should. Offline ones may be gone for good."""
    return found.nodes.behind + found.nodes.failed
