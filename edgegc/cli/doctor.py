"""``edgegc doctor``: one line for each thing that edgegc needs of this machine, and what to do where it is not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgegc.cli.failure import Failure
from edgegc.cli.options import Command, Common, data_dir_option, default_data_dir, local_options

if TYPE_CHECKING:
    from edgegc.doctor.finding import Finding


@click.command(cls=Command, example="edgegc doctor\nedgegc doctor --agent -o json | jq '.findings[]'")
@click.option("--agent", is_flag=True, help="Check this machine as a node, not as a box.")
@click.option(
    "--config-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="With --agent: where the agent keeps everything. [default: /var/lib/edgegc-agent]",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The settings file that 'serve' is given. [default: edgegc.toml in the data directory, if it is there]",
)
@data_dir_option
@local_options
@click.pass_obj
def doctor(common: Common, agent: bool, config_dir: Path | None, config: Path | None) -> None:
    """Check this machine: nebula, rights, ports, clock, disk, limits, TLS, backups. Exit 1 if anything fails.

    Nothing is changed. It says most to the user that edgegc runs as, which is root as a rule.
    """
    from edgegc.cli.progress import spinner

    with spinner(common, "looking at this machine"):
        found = _examine_node(config_dir) if agent else _examine_box(common, config)
    _print(common, found)
    failed = [each.check for each in found if each.state == "fail"]
    if failed:
        raise Failure(f"not as it must be: {', '.join(failed)}")


def _examine_box(common: Common, config: Path | None) -> list[Finding]:
    import time

    import trio

    from edgegc import errors
    from edgegc.doctor import box
    from edgegc.doctor.finding import fail
    from edgegc.settings_source import load

    try:
        settings = load(
            config, {"data.dir": common.given_data_dir}, os.environ, default_data_dir=default_data_dir()
        ).settings
    except errors.Error as error:
        return [fail("settings", error.message, "correct it; 'edgegc settings show' lists them all")]
    data = settings.data.dir
    if not box.readable(data):
        return [fail("data directory", f"no permission to look into {data}", "run this as root")]
    return trio.run(lambda: box.examine(settings, now=time.time()))


def _examine_node(directory: Path | None) -> list[Finding]:
    import time

    import trio

    from edgegc import errors
    from edgegc.agent.settings import DEFAULT_DIRECTORY
    from edgegc.doctor import node
    from edgegc.doctor.finding import of_error

    try:
        return trio.run(lambda: node.examine((directory or DEFAULT_DIRECTORY).absolute(), now=time.time()))
    except (errors.Error, OSError) as error:
        return [of_error("settings", error)]


def _print(common: Common, found: list[Finding]) -> None:
    from edgegc.cli.output import colored, emit_json, emit_sentence, paint

    if common.json:
        emit_json({"ok": all(each.state != "fail" for each in found), "findings": found})
        return
    longest = max(len(each.check) for each in found)
    for each in found:
        if common.quiet and each.state == "ok":
            continue
        state = paint(f"{each.state:<4}", color=False)
        if colored(common):
            state = click.style(state, fg={"ok": "green", "warn": "yellow", "fail": "red"}[each.state])
        click.echo(f"{state}  {each.check:<{longest}}  {each.detail}")
        if each.remedy is not None:
            emit_sentence(f"{'':<{longest + 4}}→ {each.remedy}")
