"""``edgegc agent``: the node's daemon, what it does, and where its control plane is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Common, Group, insecure_http_option, local_options

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY_KEY = "edgegc.cli.agent.directory"


def _remember(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        context.meta[DIRECTORY_KEY] = value
    return value


def config_dir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config-dir``, which may stand before or after the subcommand."""
    return click.option(
        "--config-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        expose_value=False,
        callback=_remember,
        help="Where the agent keeps everything. [default: /var/lib/edgegc-agent]",
    )(function)


def _directory() -> Path:
    from edgegc.agent.settings import DEFAULT_DIRECTORY

    given: Path | None = click.get_current_context().meta.get(DIRECTORY_KEY)
    return (given or DEFAULT_DIRECTORY).absolute()


@click.group(
    cls=Group,
    invoke_without_command=True,
    example="edgegc agent\nedgegc agent status\nedgegc agent set-server home https://198.51.100.7:8443 --pin 3f1c…",
)
@config_dir_option
@local_options
@click.pass_context
def agent(context: click.Context) -> None:
    """Run the node's side: every cluster that this machine has joined, one supervised nebula each.

    SIGTERM leaves every nebula running, to be adopted by the next start; Ctrl-C ends them.
    """
    if context.invoked_subcommand is None:
        run_agent(_directory())


def run_agent(directory: Path) -> None:
    """Run the agent of a directory until a signal ends it."""
    import trio

    from edgegc import logs
    from edgegc.agent.agent import run

    logs.configure()
    trio.run(run, directory)


@agent.command(example="edgegc agent status -o json | jq '.clusters[].state'")
@config_dir_option
@local_options
@click.pass_obj
def status(common: Common) -> None:
    """Show what this machine runs, whether or not the control plane can be reached."""
    from edgegc.agent import status as agent_status
    from edgegc.cli.output import Column, ago, emit_json, emit_table

    directory = _directory()
    running = agent_status.ask(directory)
    shown = running if running is not None else agent_status.from_files(directory)
    if common.json:
        emit_json(shown)
    elif not common.quiet:
        emit_table(
            common,
            (
                Column("CLUSTER", flexible=True),
                Column("STATE"),
                Column("APPLIED", right=True),
                Column("DESIRED", right=True),
                Column("NEBULA"),
                Column("CONTACT", right=True, rank=1),
                Column("ERROR", flexible=True),
            ),
            (
                (
                    each.name,
                    each.state,
                    each.applied_version,
                    each.desired_version,
                    each.nebula.state,
                    ago(each.last_contact_at),
                    each.error,
                )
                for each in shown.clusters
            ),
            empty="this machine has joined no cluster: edgegc join URL --key EGK",
        )
    if running is None and shown.clusters:
        raise Failure(
            f"{agent_status.NOT_RUNNING}: systemctl start edgegc-agent, or edgegc agent", Exit.FAILED
        )


@agent.command("log", example="edgegc agent log\nedgegc agent log home -o json | jq -r '.log[-1].reason'")
@click.argument("cluster", required=False)
@config_dir_option
@local_options
@click.pass_obj
def log(common: Common, cluster: str | None) -> None:
    """Show which versions were applied here when, and which failed and why; the last 50 of each cluster.

    Needs neither the agent nor the control plane. CLUSTER is a name or an id; without it all clusters are shown.
    """
    from edgegc.agent import status as agent_status
    from edgegc.cli.output import Column, emit_json, emit_table

    shown = agent_status.log(_directory(), cluster)
    if common.json:
        emit_json(shown)
    elif not common.quiet:
        emit_table(
            common,
            (
                Column("AT (UTC)"),
                Column("CLUSTER", flexible=True, rank=1),
                Column("VERSION", right=True),
                Column("WHAT"),
                Column("REASON", flexible=True),
            ),
            ((each.at, each.cluster, each.version, each.what, each.reason) for each in shown.log),
            empty="no version was applied here yet",
        )


@agent.command("set-server", example="edgegc agent set-server home https://198.51.100.7:8443 --pin 3f1c…")
@click.argument("cluster")
@click.argument("url")
@click.option(
    "--pin", metavar="SHA256", help="The server's public key; '' for none. [default: the one known so far]"
)
@insecure_http_option
@config_dir_option
@local_options
@click.pass_obj
def set_server(common: Common, cluster: str, url: str, pin: str | None) -> None:
    """Say where the control plane of a cluster is, by name or id; a running agent follows at once.

    Only needed when it moved while this machine could not hear of it.
    """
    import msgspec

    from edgegc.agent import settings
    from edgegc.cli.output import note
    from edgegc.connection import parse_target, refuse_readable
    from edgegc.model.manifest import Server

    target = parse_target(url.rstrip("/"), pin=pin or None)
    if not common.insecure_http:
        refuse_readable(target)

    def change(all_: settings.Settings) -> settings.Settings:
        own = all_.named(cluster)
        known = {each.pin for each in own.servers if each.pin is not None}
        chosen = pin
        if pin is None and len(known) == 1 and url.startswith("https:"):
            (chosen,) = known  # a box that moved took its key along; forgetting it would trust strangers more
        server = Server(url=url.rstrip("/"), pin=chosen.lower() if chosen else None)
        return all_.with_cluster(
            msgspec.structs.replace(own, servers=(server,), fallback=None, insecure_http=common.insecure_http)
        )

    settings.edit(_directory(), change)
    note(common, f"{cluster} is asked for at {url.rstrip('/')} from now on")
