"""``edgegc settings``: what is in force here, and where each value came from."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgegc.cli.options import Common, Group, data_dir_option, default_data_dir, local_options


@click.group(cls=Group, example="edgegc settings show")
def settings() -> None:
    """The server's settings: flags, then EDGEGC_SECTION_KEY, then the TOML file, then defaults."""


@settings.command(example="edgegc settings show --config /etc/edgegc.toml")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The settings file that 'serve' is given. [default: edgegc.toml in the data directory, if it is there]",
)
@data_dir_option
@local_options
@click.pass_obj
def show(common: Common, config: Path | None) -> None:
    """Show every setting, its value, and where it came from."""
    from edgegc.cli.output import Column, emit_json, emit_table
    from edgegc.settings_source import keys, load

    loaded = load(
        config, {"data.dir": common.given_data_dir}, os.environ, default_data_dir=default_data_dir()
    )
    rows = [
        (key, getattr(getattr(loaded.settings, section), name), loaded.sources[key])
        for key in keys()
        for section, _, name in [key.partition(".")]
    ]
    if common.json:
        emit_json(
            {
                "settings": [
                    {"key": key, "value": str(value) if isinstance(value, Path) else value, "source": source}
                    for key, value, source in rows
                ]
            }
        )
    else:
        columns = (Column("KEY"), Column("VALUE", flexible=True), Column("SOURCE", flexible=True))
        emit_table(common, columns, [(key, value, source) for key, value, source in rows])
