"""``edgegc perf``: which commands the laboratory has. Imports none of them before it is used.

Some are no commands for people: the laboratory's own processes, which it starts by their names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

import click

from edgegc.cli.options import LazyGroup, local_options

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "doctor": ("edgegc.cli.perf_doctor:doctor", "Whether this machine is fit to measure on."),
    "list": ("edgegc.cli.perf_run:list_", "Scenarios: what each proves, how long it takes, how much memory."),
    "run": ("edgegc.cli.perf_run:run", "Measure this box, or another release on it."),
    "serve": ("edgegc.cli.perf_serve:serve", "The server that the scenarios use, for other tools to ask."),
    "load": ("edgegc.cli.perf_load:load", "A simulated fleet: so many nodes that poll."),
    "capacity": (
        "edgegc.cli.perf_load:capacity",
        "The most nodes that this box carries, and what limits it.",
    ),
    "profile": ("edgegc.cli.perf_profile:profile", "Where a scenario spends its time or memory, or waits."),
    "report": ("edgegc.cli.perf_report:report", "Show what a run found: text, Markdown, HTML, CSV, JSON."),
    "compare": ("edgegc.cli.perf_report:compare", "Tell whether a release is slower than another."),
    "baseline": ("edgegc.cli.perf_report:baseline", "Reports that are kept to compare later ones with."),
}
PROCESSES: Final[Mapping[str, str]] = {
    "_generator": "edgegc.cli.perf_processes:generator",
    "_raw-echo": "edgegc.cli.perf_processes:raw_echo",
    "_plain-quart": "edgegc.cli.perf_processes:plain_quart",
    "_store": "edgegc.cli.perf_processes:store",
    "_profiled": "edgegc.cli.perf_processes:profiled",
    "_ask": "edgegc.cli.perf_processes:ask",
}
"""Started by the laboratory, as ``edgegc perf NAME``; shown to nobody."""


class _Laboratory(LazyGroup):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in PROCESSES:
            module, _, attribute = PROCESSES[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Laboratory,
    lazy=COMMANDS,
    example="edgegc perf run --out before.json\nedgegc perf run --only 'api.*' --device 512M:25%",
)
@local_options
def perf() -> None:
    """Measure: what this box carries, what limits it, and whether a release is slower than another."""
