"""``edgegc backup``: one file with everything that can't be made again, from a box that runs or one that is stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Command, Common, remote_options

if TYPE_CHECKING:
    from edgegc.client import Client
    from edgegc.store.backup_file import Manifest, Writer


@click.command(cls=Command, example="edgegc backup /mnt/usb/edgegc.tar\nedgegc verify /mnt/usb/edgegc.tar")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--without-secrets",
    is_flag=True,
    help="Leave out master.key and the TLS key: keep those elsewhere, restoring needs them.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The settings file that 'serve' is given. [default: edgegc.toml in the data directory, if it is there]",
)
@remote_options
@click.pass_obj
def backup(common: Common, file: Path, without_secrets: bool, config: Path | None) -> None:
    """Write FILE (mode 0600): database, keys, settings, with a SHA-256 of each.

    Whoever has FILE is the operator of every network in it. The box goes on working meanwhile; every change that was
    answered before is in it. A FILE that is there is replaced when the new one is complete.
    """
    import time

    from edgegc import __version__
    from edgegc.cli.output import emit_json, note, size
    from edgegc.model.message import rfc3339
    from edgegc.store import backup_file

    if common.url is not None and not without_secrets:
        raise click.UsageError(
            "secrets do not leave a box over the network: run this on the box, or add --without-secrets"
        )
    now = int(time.time())
    file = file.absolute()
    with backup_file.create(file) as writer:
        _add_database(common, writer, file, now=now)
        if common.url is None:
            _add_files(common, writer, config, without_secrets=without_secrets, now=now)
        manifest = writer.finish(edgegc=__version__, created_at=rfc3339(now), now=now)
    if common.json:
        emit_json(manifest)
    elif not common.quiet:
        note(common, f"{file}: {size(file.stat().st_size)}, with {', '.join(manifest.files)}")
        _warn(common, manifest, without_secrets)


def _warn(common: Common, manifest: Manifest, without_secrets: bool) -> None:
    from edgegc.cli.output import note
    from edgegc.store import backup_file

    if without_secrets:
        note(
            common,
            f"without secrets: {backup_file.MASTER_KEY} and {backup_file.TLS_KEY} of the data directory "
            "must be kept elsewhere, nothing can be restored without the first",
        )
    elif backup_file.TLS_KEY in manifest.files:
        note(common, "it holds the private keys of every network of this box: keep it like one")


def _add_database(common: Common, writer: Writer, file: Path, *, now: int) -> None:
    from edgegc.cli.remote import ADMIN_SOCKET
    from edgegc.connection import Unreachable

    try:
        _from_daemon(common, writer, now=now)
    except (Failure, Unreachable) as error:
        nobody_serves = isinstance(error, Unreachable) or error.exit_code is Exit.UNREACHABLE
        sent = isinstance(error, Unreachable) and error.sent
        if common.url is not None or not nobody_serves or sent:
            raise
        if not (common.data_dir / ADMIN_SOCKET).parent.is_dir():
            raise Failure(f"there is no data directory {common.data_dir}", Exit.NOT_FOUND) from None
        _from_stopped(common, writer, file, now=now)


def _from_daemon(common: Common, writer: Writer, *, now: int) -> None:
    from edgegc.cli.progress import bar, spinner
    from edgegc.cli.remote import ask
    from edgegc.store import backup_file

    async def question(client: Client) -> None:
        with spinner(common, "the box copies its database"):
            made = await client.backup()
        with (
            bar(common, "writing the backup", made.size) as done,
            writer.streamed(backup_file.DATABASE, made.size, now=now) as write,
        ):

            def take(piece: bytes) -> None:
                write(piece)
                done(len(piece))

            await client.download_backup(made.name, take, limit_bytes=made.size)
        if writer.sha256(backup_file.DATABASE) != made.sha256:
            raise backup_file.BadBackup("the copy of the database was damaged on its way: try again")

    ask(common, question, doing=None)


def _from_stopped(common: Common, writer: Writer, file: Path, *, now: int) -> None:
    """Copy a database that nobody serves, holding its directory against a daemon that starts just now."""
    from contextlib import closing

    from edgegc.cli.progress import bar, spinner
    from edgegc.store import backup_file
    from edgegc.store.gate import check_database, lock_data_directory, open_unused, refuse_half_restored
    from edgegc.store.migrations import released_plan
    from edgegc.store.snapshot import copy_database

    data_dir = common.data_dir.absolute()
    database = data_dir / backup_file.DATABASE
    copy = file.with_name(f".{file.name}.db")
    with lock_data_directory(data_dir):
        refuse_half_restored(data_dir)
        if not check_database(database, released_plan()):
            raise Failure(f"there is no database in {data_dir}: --data-dir names another one", Exit.NOT_FOUND)
        try:
            with spinner(common, "copying the database"), closing(open_unused(database)) as connection:
                copy_database(connection, copy)
            total = copy.stat().st_size
            with (
                copy.open("rb") as source,
                bar(common, "writing the backup", total) as done,
                writer.streamed(backup_file.DATABASE, total, now=now) as write,
            ):
                while piece := source.read(backup_file.CHUNK_BYTES):
                    write(piece)
                    done(len(piece))
        finally:
            copy.unlink(missing_ok=True)


def _add_files(
    common: Common, writer: Writer, config: Path | None, *, without_secrets: bool, now: int
) -> None:
    """Add what lies beside the database."""
    from edgegc.settings_source import load
    from edgegc.store import backup_file

    data_dir = common.data_dir.absolute()
    settings = load(config, {"data.dir": data_dir}, os.environ).settings
    certificate, key = data_dir / backup_file.TLS_CERTIFICATE, data_dir / backup_file.TLS_KEY
    if settings.tls.mode == "files":
        certificate, key = settings.tls.certificate or certificate, settings.tls.key or key
    sources = {
        backup_file.MASTER_KEY: data_dir / backup_file.MASTER_KEY,
        backup_file.TLS_KEY: key,
        backup_file.TLS_CERTIFICATE: certificate,
        backup_file.SETTINGS: config or data_dir / backup_file.SETTINGS,
    }
    for name, path in sources.items():
        if without_secrets and name in backup_file.SECRETS:
            continue
        if name == backup_file.MASTER_KEY or path.exists():
            writer.add(name, path.read_bytes(), now=now)
