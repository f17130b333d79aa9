"""The command line's root: which commands there are. Imports none of them before it is used."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from edgegc import __version__
from edgegc.cli.failure import Exit, report
from edgegc.cli.options import LazyGroup, cluster_options

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "quickstart": ("edgegc.cli.quickstart:quickstart", "Make this machine a control plane, and serve."),
    "serve": ("edgegc.cli.serve:serve", "Run the control plane."),
    "join": ("edgegc.cli.join:join", "Make this machine a node."),
    "agent": ("edgegc.cli.agent:agent", "Run the node's daemon, or ask it."),
    "status": ("edgegc.cli.status:status", "One screen: clusters, lighthouses, nodes, resources."),
    "tenant": ("edgegc.cli.tenant:tenant", "Owners of clusters."),
    "cluster": ("edgegc.cli.cluster:cluster", "Nebula networks."),
    "node": ("edgegc.cli.node:node", "Members of a cluster."),
    "key": ("edgegc.cli.key:key", "Enrolment keys: with one, a machine becomes a node."),
    "token": ("edgegc.cli.token:token", "API tokens, for people and programs."),
    "route": ("edgegc.cli.route:route", "Subnets behind nodes."),
    "policy": ("edgegc.cli.policy:policy", "The firewall of a cluster."),
    "topology": ("edgegc.cli.topology:topology", "Lighthouses, relays and routes of a cluster."),
    "bundle": ("edgegc.cli.bundle:bundle", "Bundles of clusters whose admin makes them."),
    "lighthouse": ("edgegc.cli.lighthouse:lighthouse", "The lighthouses that this box runs."),
    "rollout": ("edgegc.cli.rollout:rollout", "Who runs what."),
    "audit": ("edgegc.cli.audit:audit", "Who did what."),
    "doctor": ("edgegc.cli.doctor:doctor", "Check this machine, and say what to do."),
    "backup": ("edgegc.cli.backup:backup", "Write everything that can't be made again to one file."),
    "restore": ("edgegc.cli.restore:restore", "Make a data directory from a backup."),
    "verify": ("edgegc.cli.maintain:verify", "Check a backup, or this box's database."),
    "compact": ("edgegc.cli.maintain:compact", "Give back what deleted rows left free."),
    "clock": ("edgegc.cli.clock:clock", "Whether the box trusts its clock, and how to say that it may."),
    "service": ("edgegc.cli.service:service", "systemd units."),
    "settings": ("edgegc.cli.settings:settings", "The server's settings."),
    "completion": ("edgegc.cli.completion:completion", "Completion for a shell."),
    "perf": ("edgegc.cli.perf:perf", "Measure what this box carries."),
    "version": ("edgegc.cli.version:version", "What this is, exactly."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    example="edgegc quickstart --public 203.0.113.9:4242\nedgegc node list\nedgegc node list -o json | jq '.nodes[].name'",
)
@click.version_option(__version__, prog_name="edgegc", message="%(prog)s %(version)s")
@cluster_options
def cli() -> None:
    """Ground control for Nebula overlay networks on small boxes."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments`` default to the process's own."""
    try:
        code = cli.main(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name="edgegc",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else Exit.FAILED
    except BaseException as error:
        return report(error)
    return code if isinstance(code, int) else Exit.DONE


def main() -> NoReturn:
    """Run the command that the process was started with."""
    _open_standard_files()
    sys.exit(run())


def _open_standard_files() -> None:
    """Give a process that was started without stdin, stdout or stderr the null device there.

    Python would have None for them, and the next file that is opened, a database perhaps, would get the number that
    every stray message is written to.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  as long as the process
