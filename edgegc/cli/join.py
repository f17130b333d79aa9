"""``edgegc join``: makes this machine a node of a cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgegc.cli.options import Command, Common, insecure_http_option, local_options

if TYPE_CHECKING:
    from edgegc.agent.join import Joined


@click.command(
    cls=Command,
    example="edgegc join https://198.51.100.7:8443 --key egk_… --pin 3f1c… --start\n"
    "echo egk_… | edgegc join https://198.51.100.7:8443 --key -",
)
@click.argument("url")
@click.option("--key", metavar="EGK|-", help="The enrolment key; - reads it from stdin. [env: EDGEGC_KEY]")
@click.option("--name", metavar="NAME", help="The node's name. [default: the host's]")
@click.option("--pin", metavar="SHA256", help="The server's public key. [env: EDGEGC_PIN]")
@click.option(
    "--config-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the agent keeps everything. [default: /var/lib/edgegc-agent]",
)
@click.option(
    "--nebula",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The nebula executable. [default: look for it]",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Where this machine is a node of the cluster already, make it another one.",
)
@insecure_http_option
@click.option("--start", is_flag=True, help="Run the agent afterwards, in the foreground.")
@local_options
@click.pass_obj
def join(
    common: Common,
    url: str,
    key: str | None,
    name: str | None,
    pin: str | None,
    config_dir: Path | None,
    nebula: Path | None,
    replace: bool,
    start: bool,
) -> None:
    """Make this machine a node of a cluster.

    Its private key is made here and stays here. A second join adds a cluster; a running agent picks it up.
    """
    import trio

    from edgegc.agent.join import join as become_node
    from edgegc.agent.settings import DEFAULT_DIRECTORY
    from edgegc.cli.progress import spinner

    directory = (config_dir or DEFAULT_DIRECTORY).absolute()
    enrolment_key = _key(key)

    async def run() -> Joined:
        return await become_node(
            directory,
            url=url,
            pin=pin or common.pin,
            key=enrolment_key,
            name=name,
            nebula=nebula,
            replace=replace,
            insecure_http=common.insecure_http,
        )

    with spinner(common, "joining"):
        joined = trio.run(run)
    _show(common, joined, directory=directory, starts=start)
    if start:
        _start(common, directory)


def _key(given: str | None) -> str:
    key = sys.stdin.readline().strip() if given == "-" else given or os.environ.get("EDGEGC_KEY", "")
    if not key:
        raise click.UsageError("no enrolment key: --key EGK, --key - with the key on stdin, or EDGEGC_KEY")
    if not key.startswith("egk_"):
        raise click.UsageError("an enrolment key starts with egk_: make one with 'edgegc key create'")
    return key


def _show(common: Common, joined: Joined, *, directory: Path, starts: bool) -> None:
    from edgegc.cli.output import emit_json, note

    cluster = joined.cluster
    if common.json:
        emit_json(
            {
                "cluster_id": cluster.id,
                "cluster_name": cluster.name,
                "node_id": cluster.node_id,
                "name": cluster.node_name,
                "overlay_ip": joined.overlay_ip,
                "tun_device": cluster.tun_device,
            }
        )
    elif common.quiet:
        click.echo(cluster.node_id)
    else:
        address = f" at {joined.overlay_ip}" if joined.overlay_ip else ""
        click.echo(f"joined cluster {cluster.name} as {cluster.node_name}{address}")
        if cluster.mode == "uploaded":
            home = directory / cluster.id
            note(
                common,
                f"unless its bundle brings a certificate: have {home}/host.pub signed (nebula-cert sign -in-pub), "
                f"and put the result at {home}/host.crt",
            )
    if joined.warning:
        click.echo(f"edgegc: {joined.warning}", err=True)
    if not starts:
        from edgegc.agent import status

        if status.ask(directory) is None:
            note(
                common,
                "now start the agent: systemctl enable --now edgegc-agent, or edgegc agent in a terminal",
            )


def _start(common: Common, directory: Path) -> None:
    """Become the agent: a new program, in whose command line and environment there is no enrolment key to be seen."""
    from edgegc.agent.agent import lock_directory
    from edgegc.cli.output import note
    from edgegc.cli.service import own_command
    from edgegc.errors import Conflict

    try:
        os.close(lock_directory(directory))
    except Conflict:
        note(common, "the agent runs already, and picks the cluster up by itself")
        return
    command = [*own_command(), "agent", "--config-dir", str(directory)]
    environment = {name: value for name, value in os.environ.items() if name != "EDGEGC_KEY"}
    sys.stdout.flush()
    os.execve(command[0], command, environment)
