"""``edgegc lighthouse``: the lighthouses that the box itself runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Common, Group, remote_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.client import Client

FOLLOW_EVERY_S = 1.0


@click.group(cls=Group, example="edgegc lighthouse list")
def lighthouse() -> None:
    """The lighthouses that this box runs, one nebula process per cluster."""


@lighthouse.command("list", example="edgegc lighthouse list")
@remote_options
@click.pass_obj
def list_(common: Common) -> None:
    """List them: state, port, version, memory."""
    from edgegc.cli.node import versions
    from edgegc.cli.output import Column, duration, emit_list, size
    from edgegc.cli.remote import ask

    found = ask(common, lambda client: client.lighthouses())
    emit_list(
        common,
        found,
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
                size(each.rss_bytes),
                None if each.cpu_percent is None else f"{each.cpu_percent:.1f} %",
                each.restarts,
                each.pid,
                each.overlay_ip,
            )
            for each in found.lighthouses
        ],
        ids=(each.cluster_id for each in found.lighthouses),
        empty="no lighthouse: 'edgegc cluster update CLUSTER --provide-lighthouse' runs one",
    )
    if common.json or common.quiet:
        return
    for each in found.lighthouses:
        if each.last_error and each.state != "running":
            click.echo(f"{each.name}: {each.last_error}", err=True)


@lighthouse.command(example="edgegc lighthouse restart home")
@click.argument("cluster", required=False)
@click.option("--all", "all_", is_flag=True, help="Every lighthouse of this box.")
@remote_options
@click.pass_obj
def restart(common: Common, cluster: str | None, all_: bool) -> None:
    """Restart the lighthouse of a cluster. Open tunnels between nodes stay."""
    from edgegc.cli.output import note

    _tell(common, cluster, all_, lambda client, cluster_id: client.restart_lighthouse(cluster_id))
    note(common, "it restarts; 'edgegc lighthouse list' shows how it goes")


@lighthouse.command(example="edgegc lighthouse stop --all")
@click.argument("cluster", required=False)
@click.option("--all", "all_", is_flag=True, help="Every lighthouse of this box.")
@remote_options
@click.pass_obj
def stop(common: Common, cluster: str | None, all_: bool) -> None:
    """End the nebula process of a cluster, which outlives the daemon; the daemon's next start runs it again.

    Works without the daemon too; there, name the cluster by its id.
    """
    from edgegc.cli.output import note
    from edgegc.connection import Unreachable

    try:
        _tell(common, cluster, all_, lambda client, cluster_id: client.stop_lighthouse(cluster_id))
    except (Failure, Unreachable) as error:
        nobody_serves = isinstance(error, Unreachable) or error.exit_code is Exit.UNREACHABLE
        if common.url is not None or not nobody_serves:
            raise
        _stop_without_daemon(common, None if all_ else cluster or common.cluster, all_, error.message)
        return
    note(
        common,
        "it stops, until the next start of the daemon; "
        "'edgegc cluster update CLUSTER --no-provide-lighthouse' is for good",
    )


@lighthouse.command(example="edgegc lighthouse logs home -f")
@click.argument("cluster", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@remote_options
@click.pass_obj
def logs(common: Common, cluster: str | None, follow: bool) -> None:
    """Print the newest lines of a lighthouse's own log."""
    import trio

    from edgegc.cli.output import cell, emit_json
    from edgegc.cli.remote import find_cluster, open_client

    async def main() -> None:
        async with open_client(common) as client:
            cluster_id = await find_cluster(client, cluster or common.cluster)
            shown: tuple[str, ...] = ()
            while True:
                tail = await _tail(client, cluster_id)
                fresh = unseen(shown, tail)
                if common.json:
                    for line in fresh:
                        emit_json({"line": line})
                else:
                    for line in fresh:
                        click.echo(cell(line))
                if not follow:
                    return
                shown = tail
                await trio.sleep(FOLLOW_EVERY_S)

    trio.run(main)


def unseen(shown: tuple[str, ...], tail: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines of ``tail`` that come after those already shown, two windows over one growing log."""
    for overlap in range(min(len(shown), len(tail)), 0, -1):
        if shown[-overlap:] == tail[:overlap]:
            return tail[overlap:]
    return tail


async def _tail(client: Client, cluster_id: str) -> tuple[str, ...]:
    for each in (await client.lighthouses()).lighthouses:
        if each.cluster_id == cluster_id:
            return each.log_tail
    raise Failure("this box runs no lighthouse for that cluster", Exit.NOT_FOUND)


def _stop_without_daemon(common: Common, wanted: str | None, all_: bool, why: str) -> None:
    """End what is recorded in the data directory, which nobody serves (``why`` says how we know)."""
    import trio

    from edgegc import errors
    from edgegc.cli.output import note
    from edgegc.lighthouse.orphans import recorded, stop_recorded
    from edgegc.store.gate import lock_data_directory

    data_dir = common.data_dir.absolute()
    known = recorded(data_dir)
    if not known:
        raise Failure(why, Exit.UNREACHABLE)
    if not all_ and wanted not in known and (wanted is not None or len(known) > 1):
        raise Failure(
            f"without the daemon a lighthouse is named by its cluster's id, one of: {', '.join(known)}",
            Exit.NOT_FOUND if wanted is not None else Exit.USAGE,
        )
    try:
        # Against a daemon that starts just now, and would start again what we end.
        with lock_data_directory(data_dir):
            ended = trio.run(stop_recorded, data_dir, None if all_ else wanted or known[0])
    except errors.NotFound:
        raise Failure(why, Exit.UNREACHABLE) from None
    for each in ended:
        if each.outcome == "still running":
            raise Failure(f"nebula (pid {each.pid}) does not end, not even by SIGKILL")
        note(
            common, f"{each.cluster_id}: {each.outcome} (pid {each.pid}), until the next start of the daemon"
        )


def _tell(
    common: Common, cluster: str | None, all_: bool, wish: Callable[[Client, str], Awaitable[None]]
) -> None:
    from edgegc.cli.remote import ask, find_cluster

    if all_ and (cluster or common.cluster):
        raise click.UsageError("name a cluster, or say --all, not both")

    async def question(client: Client) -> None:
        if all_:
            ids = [each.cluster_id for each in (await client.lighthouses()).lighthouses]
        else:
            ids = [await find_cluster(client, cluster or common.cluster)]
        for cluster_id in ids:
            await wish(client, cluster_id)

    ask(common, question)
