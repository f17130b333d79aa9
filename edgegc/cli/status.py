"""``edgegc status``: one screen of the box: clusters, lighthouses, nodes, resources against budget, last backup."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from edgegc.cli.options import Command, Common, remote_options
from edgegc.model import message
from edgegc.model.lighthouse import LighthouseStatus

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.settings import Budgets

WATCH_EVERY_S = 2.0
CLEAR_SCREEN = "\x1b[H\x1b[2J"


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster and how its nodes do. ``rotation``: of its authority, while one is under way."""

    cluster: message.ClusterView
    rollout: message.Rollout
    rotation: message.CaRotation | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What ``-o json`` prints. ``resources``: the newest value of each series of ``GET /api/v1/resources``.

    ``last_backup``: the newest copy of the database that the box keeps; None without any.
    """

    version: message.VersionInfo
    health: message.Health
    clusters: tuple[ClusterStatus, ...]
    lighthouses: tuple[LighthouseStatus, ...]
    resources: dict[str, float]
    last_backup: message.BackupView | None


@click.command(cls=Command, example="edgegc status --watch")
@click.option("--watch", "-w", is_flag=True, help="Again and again, until Ctrl-C.")
@remote_options
@click.pass_obj
def status(common: Common, watch: bool) -> None:
    """One screen: clusters, lighthouses, nodes, resources against budget."""
    import trio

    from edgegc.cli.remote import open_client

    async def main() -> None:
        async with open_client(common) as client:
            while True:
                found = await _ask(client)
                if watch and sys.stdout.isatty():
                    click.echo(CLEAR_SCREEN, nl=False)
                _print(common, found)
                if not watch:
                    return
                await trio.sleep(WATCH_EVERY_S)

    trio.run(main)


async def _ask(client: Client) -> Status:
    clusters = (await client.clusters()).clusters
    resources = await client.resources(window_s=60)
    return Status(
        version=await client.version(),
        health=await client.health(),
        clusters=tuple([await _ask_cluster(client, each) for each in clusters]),
        lighthouses=(await client.lighthouses()).lighthouses,
        resources={name: samples[-1][1] for name, samples in resources.series.items() if samples},
        last_backup=next(iter((await client.backups()).backups), None),
    )


async def _ask_cluster(client: Client, cluster: message.ClusterView) -> ClusterStatus:
    rotates = cluster.ca is not None and cluster.ca.phase != "none"
    return ClusterStatus(
        cluster=cluster,
        rollout=await client.rollout(cluster_id=cluster.id),
        rotation=await client.ca_rotation(cluster.id) if rotates else None,
    )


def _print(common: Common, found: Status) -> None:
    from edgegc.cli.node import versions
    from edgegc.cli.output import Column, colored, emit_json, emit_sentence, emit_table, paint, size
    from edgegc.cli.rotation import what_follows

    if common.json:
        emit_json(found)
        return
    if common.quiet:
        click.echo(found.health.status)
        return
    click.echo(f"edgegc {found.version.version}  {paint(found.health.status, color=colored(common))}")
    for check, sentence in found.health.checks.items():
        if sentence != "ok":
            emit_sentence(f"{check}: {sentence}")
    click.echo()
    emit_table(
        common,
        (
            Column("CLUSTER", flexible=True),
            Column("VERSION", right=True, rank=2),
            Column("NODES", right=True, rank=1),
            Column("ONLINE", right=True),
            Column("BEHIND", right=True),
            Column("FAILED", right=True),
            Column("OFFLINE", right=True),
            Column("NETWORK", rank=3),
        ),
        [
            (
                each.cluster.name,
                each.cluster.version,
                each.rollout.nodes.total,
                each.rollout.nodes.online,
                each.rollout.nodes.behind,
                each.rollout.nodes.failed,
                each.rollout.nodes.offline,
                each.cluster.network_cidr,
            )
            for each in found.clusters
        ],
    )
    if not found.clusters:
        click.echo("no clusters: 'edgegc cluster create NAME --network-cidr CIDR' makes one")
    for name, rotation in ((each.cluster.name, each.rotation) for each in found.clusters):
        # It may have ended between the two questions.
        if rotation is not None and rotation.phase != "none":
            emit_sentence(f"{name}: CA rotation, phase {rotation.phase}: {what_follows(name, rotation)}")
    if found.lighthouses:
        click.echo()
        emit_table(
            common,
            (
                Column("LIGHTHOUSE", flexible=True),
                Column("STATE"),
                Column("PORT", right=True, rank=3),
                Column("RUNS", right=True),
                Column("RESTARTS", right=True, rank=2),
                Column("MEMORY", right=True),
                Column("CPU", right=True, rank=1),
            ),
            [
                (
                    each.name,
                    each.state,
                    each.port,
                    versions(each.version_running, each.version_desired),
                    each.restarts,
                    size(each.rss_bytes),
                    None if each.cpu_percent is None else f"{each.cpu_percent:.1f} %",
                )
                for each in found.lighthouses
            ],
        )
        for each in found.lighthouses:
            if each.last_error and each.state != "running":
                emit_sentence(f"{each.name}: {each.last_error}")
    rows = _resources(found.resources, _budgets(common))
    if rows:
        click.echo()
        emit_table(
            common,
            (Column("RESOURCE", flexible=True), Column("NOW", right=True), Column("BUDGET", right=True)),
            rows,
        )
    click.echo()
    click.echo(_last_backup(found.last_backup))


def _last_backup(last: message.BackupView | None) -> str:
    from edgegc.cli.output import ago, cell, size

    if last is None:
        return "last backup: none; 'edgegc backup FILE' makes one"
    return f"last backup: {ago(last.created_at)} ago, {cell(last.created_at)} UTC, {size(last.size)}"


def _resources(values: dict[str, float], budgets: Budgets | None) -> list[tuple[str, str, str | None]]:
    """Return what the box uses, and what it may use where that is known."""
    from edgegc.cli.output import size

    def percent(value: float) -> str:
        return f"{value:.1f} %"

    def plain(value: float) -> str:
        return f"{value:.1f}".removesuffix(".0")

    most_memory = f"≤ {size(budgets.daemon_rss_bytes)}" if budgets else None
    least_disk = f"≥ {size(budgets.disk_free_bytes)}" if budgets else None
    shown = (
        ("daemon memory", "daemon.rss_bytes", size, most_memory),
        ("daemon private memory", "daemon.private_bytes", size, None),
        ("daemon CPU", "daemon.cpu_percent", percent, None),
        ("daemon file descriptors", "daemon.fds", plain, None),
        ("database", "database.size_bytes", size, None),
        ("its log", "database.wal_bytes", size, None),
        ("disk free", "system.disk_free_bytes", size, least_disk),
        ("memory available", "system.memory_available_bytes", size, None),
        ("system CPU", "system.cpu_percent", percent, None),
        ("load", "system.load1", plain, None),
    )
    return [(title, form(values[name]), budget) for title, name, form, budget in shown if name in values]


def _budgets(common: Common) -> Budgets | None:
    """Return the server's budgets where its settings can be read: on its own box."""
    if common.url is not None:
        return None
    from edgegc import errors
    from edgegc.settings_source import load

    try:
        return load(None, {"data.dir": common.data_dir}, os.environ).settings.budgets
    except errors.Error:
        return None
