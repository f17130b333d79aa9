"""The command line is what its contract lists: no command more, none less, and each explains itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from edgegc.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ALONE = "serve quickstart join agent status topology rollout audit doctor backup restore verify compact clock version"
GROUPS = {
    "agent": "status log set-server",
    "tenant": "create list show update delete",
    "cluster": "create list show update delete rotate-ca",
    "node": "create list show update delete rotate-token set-lighthouse unset-lighthouse set-relay unset-relay",
    "key": "create list revoke",
    "token": "create list revoke",
    "route": "list set",
    "policy": "show set",
    "bundle": "upload list download activate delete inspect",
    "lighthouse": "list restart stop logs",
    "service": "show",
    "settings": "show",
    "completion": "",
    "perf": "doctor list run serve capacity load report compare baseline profile",
    "perf baseline": "save list show",
}
COMMANDS = {*ALONE.split(), *GROUPS} | {
    f"{group} {one}" for group, commands in GROUPS.items() for one in commands.split()
}


def walked(
    group: click.Group, context: click.Context, before: str = ""
) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = f"{before} {name}".strip()
        yield path, command
        if isinstance(command, click.Group):
            yield from walked(command, click.Context(command, info_name=name, parent=context), path)


def every_command() -> dict[str, click.Command]:
    return dict(walked(cli, click.Context(cli, info_name="edgegc")))


def test_every_command_of_the_contract_is_there_and_no_other() -> None:
    found = {path for path in every_command() if not path.startswith("completion ")}
    assert found == COMMANDS


@pytest.mark.parametrize("path", sorted(every_command()))
def test_help_says_what_a_command_does_and_gives_an_example(path: str) -> None:
    said = CliRunner().invoke(cli, [*path.split(), "--help"])
    assert said.exit_code == 0, said.output
    assert said.output.startswith("Usage: ")
    assert "Example" in said.output


@pytest.mark.parametrize("path", sorted(every_command()))
def test_every_option_says_what_it_is_for(path: str) -> None:
    command = every_command()[path]
    silent = [
        one.name
        for one in command.params
        if isinstance(one, click.Option) and not one.hidden and not one.help
    ]
    assert not silent


@pytest.mark.parametrize("path", ["node update", "cluster update"])
def test_a_change_claims_no_default_for_what_is_not_given(path: str) -> None:
    said = CliRunner().invoke(cli, [*path.split(), "--help"]).output
    assert said.count("[default:") == said.count("[default: table]")
