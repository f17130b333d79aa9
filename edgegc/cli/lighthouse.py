"""``edgegc lighthouse``: the lighthouses that the box itself runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Common, Group, remote_options

if TYPE_CHECKING:
    from edgegc.client import Client


@click.group(cls=Group, example="edgegc lighthouse list")
def lighthouse() -> None:
    """The lighthouses that this box runs, one nebula process per cluster."""


@lighthouse.command("list", example="edgegc lighthouse list")
@remote_options
@click.pass_obj
def list_(common: Common) -> None:
    """List them: state, port, version, memory."""
    from edgegc.cli.node import versions
    from edgegc.cli.output import Column, duration, emit_ids, emit_json, emit_table, mebibytes
    from edgegc.cli.remote import ask

    found = ask(common, lambda client: client.lighthouses())
    if common.json:
        emit_json(found)
        return
    if common.quiet:
        emit_ids(each.cluster_id for each in found.lighthouses)
        return
    emit_table(
        common,
        (
            Column("CLUSTER", flexible=True),
            Column("STATE"),
            Column("PORT", right=True),
            Column("VERSION", right=True),
            Column("UPTIME", right=True),
            Column("MEMORY", right=True, rank=2),
            Column("CPU", right=True, rank=3),
            Column("RESTARTS", right=True, rank=4),
            Column("PID", right=True, rank=5),
            Column("OVERLAY IP", rank=6),
        ),
        [
            (
                each.name,
                each.state,
                each.port,
                versions(each.version_running, each.version_desired),
                None if each.uptime_s is None else duration(each.uptime_s),
                mebibytes(each.rss_bytes),
                None if each.cpu_percent is None else f"{each.cpu_percent:.1f} %",
                each.restarts,
                each.pid,
                each.overlay_ip,
            )
            for each in found.lighthouses
        ],
        empty="no lighthouse: 'edgegc cluster update CLUSTER --provide-lighthouse' runs one",
    )
    for each in found.lighthouses:
        if each.last_error and each.state != "running":
            click.echo(f"{each.name}: {each.last_error}", err=True)


@lighthouse.command(example="edgegc lighthouse restart home")
@click.argument("cluster", required=False)
@remote_options
@click.pass_obj
def restart(common: Common, cluster: str | None) -> None:
    """Restart the lighthouse of a cluster. Open tunnels between nodes stay."""
    from edgegc.cli.output import note
    from edgegc.cli.remote import ask, find_cluster

    async def question(client: Client) -> None:
        cluster_id = await find_cluster(client, cluster or common.cluster)
        await client.request("POST", f"/api/v1/lighthouses/{cluster_id}/restart")

    ask(common, question)
    note(common, "the lighthouse restarts; 'edgegc lighthouse list' shows how it goes")
