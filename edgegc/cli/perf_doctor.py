"""``edgegc perf doctor``: one line for each thing that spoils measurements, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from edgegc import errors
from edgegc.cli import perf_options
from edgegc.cli.options import Command, Common, local_options

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.perf.device import Device
    from edgegc.perf.fitness import Check

UNFIT: Final = 3
"""The exit code for a machine that can't be measured on."""


@click.command(
    cls=Command, example="edgegc perf doctor\nedgegc perf doctor --device 512M:25% --dir /mnt/card"
)
@click.option(
    "--device",
    metavar="MEMORY:CPU",
    help="Whether this device can be emulated here. [default: whether 512M:25% can]",
)
@perf_options.nebula
@perf_options.directory("Where the servers will keep their data.")
@local_options
@click.pass_obj
def doctor(common: Common, device: str | None, nebula: Path | None, directory: Path | None) -> int:
    """Check whether this machine is fit to measure on: processors, other load, heat, memory, disk, the generator's speed.

    It takes some ten seconds and changes nothing. Exit 0 if it is fit, 3 if what is measured now could not be trusted.
    """
    from edgegc.perf import filesystem
    from edgegc.perf.device import Device

    try:
        emulated = Device.parse(device) if device else None
    except errors.Invalid as error:
        raise click.UsageError(error.message) from None
    checks = examined(common, filesystem.workplace(directory), emulated=emulated, nebula=nebula)
    show(common, checks)
    return UNFIT if unfit(checks) else 0


def examined(common: Common, directory: Path, *, emulated: Device | None, nebula: Path | None) -> list[Check]:
    """Look at this machine, with something on the terminal meanwhile."""
    import trio

    from edgegc.cli.progress import spinner
    from edgegc.perf.doctor import examine

    with spinner(common, "looking at this machine"):
        return trio.run(lambda: examine(directory, emulated=emulated, nebula=nebula))


def unfit(checks: list[Check]) -> list[Check]:
    """Return what must be mended before anything is measured."""
    return [check for check in checks if check.state == "fail"]


def show(common: Common, checks: list[Check]) -> None:
    """Print what was found."""
    from edgegc.cli.output import colored, emit_json, emit_sentence, paint

    if common.json:
        emit_json({"fit": not unfit(checks), "checks": checks})
        return
    longest = max(len(check.name) for check in checks)
    for check in checks:
        if common.quiet and check.state == "ok":
            continue
        state = paint(f"{check.state:<4}", color=False)
        if colored(common):
            state = click.style(state, fg={"ok": "green", "warn": "yellow", "fail": "red"}[check.state])
        click.echo(f"{state}  {check.name:<{longest}}  {check.sentence}")
        if check.remedy is not None:
            emit_sentence(f"{'':<{longest + 4}}→ {check.remedy}")
