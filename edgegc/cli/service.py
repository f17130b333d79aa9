"""``edgegc service``: systemd units for the file that is running."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

import click

from edgegc.cli.options import Common, Group, local_options

UNITS = {"serve": "edgegc.service", "agent": "edgegc-agent.service"}
COMMAND_MARK = "@COMMAND@"


@click.group(
    cls=Group,
    example="edgegc service show serve > /etc/systemd/system/edgegc.service && systemctl daemon-reload",
)
def service() -> None:
    """systemd units for the control plane and for the agent."""


@service.command(example="edgegc service show agent > /etc/systemd/system/edgegc-agent.service")
@click.argument("which", type=click.Choice(["serve", "agent"]))
@local_options
@click.pass_obj
def show(common: Common, which: Literal["serve", "agent"]) -> None:
    """Print the unit that starts this very file."""
    from edgegc.cli.output import emit_json

    unit = render(which)
    if common.json:
        emit_json({"name": UNITS[which], "unit": unit})
    else:
        click.echo(unit, nl=False)


def render(which: Literal["serve", "agent"]) -> str:
    """Return the unit's text for the program that is running."""
    from importlib.resources import files

    template = (files("edgegc") / "units" / UNITS[which]).read_text(encoding="utf-8")
    return template.replace(COMMAND_MARK, " ".join(_quoted(word) for word in own_command()))


def own_command() -> list[str]:
    """Return how to start this program again: its interpreter by absolute path, and the file that was run."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":  # python -m edgegc, or the directory itself
        return [sys.executable, "-m", "edgegc"]
    found = program if program.is_absolute() else Path(os.path.abspath(program))
    return [sys.executable, str(found)]


def _quoted(word: str) -> str:
    """Return a word as systemd reads it back: no specifier, no variable, one argument."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word else word
