"""``edgegc restore``: a data directory from a backup, and in words what no backup can know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgegc.cli.options import Command, Common, data_dir_option, local_options

if TYPE_CHECKING:
    from edgegc.control.restoring import Restored


@click.command(
    cls=Command,
    example="edgegc verify /mnt/usb/edgegc.tar\nedgegc restore /mnt/usb/edgegc.tar\nsystemctl start edgegc",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The data directory to make. [default: that of --data-dir]",
)
@click.option(
    "--master-key",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="For a backup without secrets. [default: the one in DIR]",
)
@click.option("--force", is_flag=True, help="Where there is a control plane already: move it aside.")
@data_dir_option
@local_options
@click.pass_obj
def restore(common: Common, file: Path, into: Path | None, master_key: Path | None, force: bool) -> None:
    """Make a data directory from FILE, which 'edgegc backup' wrote, or from a database in 'backups'.

    FILE is checked first. Nothing is overwritten: with --force what is there is moved into DIR/replaced-TIME, but for
    keys and settings of the same box that FILE does not hold, as a database alone holds none: those stay.
    The daemon must not run on DIR; nebula may, and is adopted by the next start.
    """
    import time

    from edgegc.cli.output import Column, cell, emit_json, emit_table, note
    from edgegc.cli.progress import bar
    from edgegc.control import restoring

    target = (into or common.data_dir).absolute()
    with bar(common, "reading the backup", file.stat().st_size, then="checking and restoring it") as done:
        restored = restoring.restore(
            file.absolute(), target, master_key=master_key, force=force, now=int(time.time()), done=done
        )
    unknown = _unknown(restored)
    if common.json:
        emit_json(_as_json(restored, unknown))
        return
    if common.quiet:
        return
    click.echo(f"{target} is restored, as of {cell(restored.created_at)} UTC")
    if restored.replaced is not None:
        click.echo(f"what was there is in {restored.replaced}; remove it when you are sure")
    emit_table(
        common,
        (Column("CLUSTER", flexible=True), Column("VERSION", right=True), Column("NODES", right=True)),
        [(each.name, each.version, each.nodes) for each in restored.clusters],
    )
    note(common, "\nWhat the backup can't know:")
    for sentence in unknown:
        note(common, f"- {sentence}")


def _unknown(restored: Restored) -> list[str]:
    """Return what happened since the backup, as far as it matters now."""
    since = [
        "nodes that enrolled since must join again; until then they run on, and their certificates stay valid",
        "nodes that were deleted since are back: delete them again",
        "certificates, tokens and keys that were revoked since are good again: revoke them again",
        "changes that were made since are undone on every node, as soon as it asks",
    ]
    if not restored.tls_key:
        since.append(
            "the TLS key is not in the backup: put it into tls/, or every node needs "
            "'edgegc agent set-server CLUSTER URL --pin PIN'"
        )
    since += [
        f"{url} is what nodes are told to ask: on a box with another address change api.public_urls in "
        "edgegc.toml and, with 'edgegc cluster update', lighthouse_public_addresses; tell nodes with "
        "'edgegc agent set-server CLUSTER URL'"
        for url in _public_urls(restored.into)[:1]
    ]
    return since


def _public_urls(directory: Path) -> tuple[str, ...]:
    from edgegc import errors
    from edgegc.settings_source import load

    try:
        return load(None, {"data.dir": directory}, {}).settings.api.public_urls
    except errors.Error:
        return ()


def _as_json(restored: Restored, unknown: list[str]) -> dict[str, Any]:
    return {
        "into": str(restored.into),
        "created_at": restored.created_at,
        "clusters": restored.clusters,
        "replaced": None if restored.replaced is None else str(restored.replaced),
        "unknown": unknown,
    }
