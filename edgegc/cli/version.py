"""``edgegc version``: what this file is, exactly."""

from __future__ import annotations

import click

from edgegc.cli.options import Command, Common, local_options


@click.command(cls=Command, example="edgegc version -o json")
@local_options
@click.pass_obj
def version(common: Common) -> None:
    """What this is, exactly: version, commit, Python, platform."""
    from edgegc import build
    from edgegc.cli.output import emit_fields, emit_json

    described = build.describe() | {"api": "v1"}
    if common.json:
        emit_json(described)
    elif common.quiet:
        click.echo(described["version"])
    else:
        emit_fields(common, described.items())
