"""``edgegc completion``: the script that teaches a shell our commands."""

from __future__ import annotations

import click

from edgegc.cli.options import Command, local_options


@click.command(
    cls=Command,
    example="edgegc completion bash > /etc/bash_completion.d/edgegc\n"
    "edgegc completion zsh > /usr/local/share/zsh/site-functions/_edgegc\n"
    "edgegc completion fish > /etc/fish/completions/edgegc.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@local_options
def completion(shell: str) -> None:
    """Print the completion script for a shell. A new shell knows it."""
    from click.shell_completion import get_completion_class

    from edgegc.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three shells that the argument allows"
    click.echo(kind(cli, {}, "edgegc", "_EDGEGC_COMPLETE").source())
