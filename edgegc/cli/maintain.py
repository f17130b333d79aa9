"""``edgegc verify`` and ``edgegc compact``: of the box that serves, of one that is stopped, or of a backup file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Command, Common, remote_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.client import Client
    from edgegc.model.message import Maintained

CHECKING = "checking the database"
COMPACTING = "compacting the database"


@click.command(cls=Command, example="edgegc verify\nedgegc verify /mnt/usb/edgegc.tar")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@remote_options
@click.pass_obj
def verify(common: Common, file: Path | None) -> None:
    """Prove that FILE is a whole backup that opens; without FILE check this box's database.

    SHA-256 of each part, SQLite's integrity and foreign key checks, and that the key belongs to the database.
    """
    if file is not None:
        _print(common, _verify_file(common, file.absolute()))
        return
    done = _ask_daemon(common, lambda client: client.verify(), CHECKING)
    _print(common, done if done is not None else _verify_stopped(common))


@click.command(cls=Command, example="edgegc compact")
@remote_options
@click.pass_obj
def compact(common: Common) -> None:
    """Rebuild the database without what deleted rows left free. Writes wait meanwhile, the networks don't notice."""
    done = _ask_daemon(common, lambda client: client.compact(), COMPACTING)
    _print(common, done if done is not None else _compact_stopped(common))


def _print(common: Common, done: Maintained) -> None:
    from edgegc.cli.output import emit_json

    if common.json:
        emit_json(done)
    elif done.ok and not common.quiet:
        click.echo(f"ok: {done.detail} ({done.duration_ms:.0f} ms)")
    if not done.ok:
        raise Failure(done.detail)


def _ask_daemon(
    common: Common, question: Callable[[Client], Awaitable[Maintained]], doing: str
) -> Maintained | None:
    """Return the daemon's answer, None where no daemon runs on the data directory, but it is there."""
    from edgegc.cli.remote import ask
    from edgegc.connection import Unreachable

    try:
        return ask(common, question, doing=doing)
    except (Failure, Unreachable) as error:
        nobody_serves = isinstance(error, Unreachable) or error.exit_code is Exit.UNREACHABLE
        sent = isinstance(error, Unreachable) and error.sent
        if common.url is not None or not nobody_serves or sent or not common.data_dir.is_dir():
            raise
        return None


def _verify_file(common: Common, file: Path) -> Maintained:
    import os
    import tempfile
    import time

    from edgegc.cli.output import cell
    from edgegc.cli.progress import bar
    from edgegc.control import restoring
    from edgegc.model.message import Maintained
    from edgegc.store.backup_file import BadBackup

    started = time.monotonic()
    # Beside the file where that may be written: /tmp can be memory.
    beside = file.parent if os.access(file.parent, os.W_OK) else None
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".verify-", dir=beside) as scratch,
            bar(common, "reading the backup", file.stat().st_size, then="checking its database") as done,
        ):
            facts, unpacked = restoring.verify(file, Path(scratch), done=done)
    except BadBackup as error:
        return Maintained(ok=False, duration_ms=_since(started), detail=error.message)
    nodes = sum(each.nodes for each in facts.clusters)
    what = f"{_count(len(facts.clusters), 'cluster')}, {_count(nodes, 'node')}"
    if unpacked.manifest is not None:
        what = f"as of {cell(unpacked.manifest.created_at)} UTC, {what}"
    if not any(name.endswith("master.key") for name in unpacked.small):
        what += ", without secrets"
    return Maintained(ok=True, duration_ms=_since(started), detail=f"{file.name} can be restored: {what}")


def _verify_stopped(common: Common) -> Maintained:
    import time

    from edgegc.cli.progress import spinner
    from edgegc.control import restoring
    from edgegc.model.message import Maintained
    from edgegc.store import backup_file
    from edgegc.store.gate import lock_data_directory, refuse_half_restored

    started = time.monotonic()
    data_dir = common.data_dir.absolute()
    with spinner(common, CHECKING), lock_data_directory(data_dir):
        refuse_half_restored(data_dir)
        try:
            facts = restoring.examine(data_dir / backup_file.DATABASE)
            key = data_dir / backup_file.MASTER_KEY
            restoring.check_key(facts, key.read_bytes(), name=str(key))
        except backup_file.BadBackup as error:
            return Maintained(ok=False, duration_ms=_since(started), detail=error.message)
    return Maintained(
        ok=True,
        duration_ms=_since(started),
        detail="the database passes its integrity and foreign key checks; no daemon serves it",
    )


def _compact_stopped(common: Common) -> Maintained:
    import time

    import trio

    from edgegc.cli.progress import spinner
    from edgegc.model.message import Maintained
    from edgegc.store import backup_file
    from edgegc.store.database import open_database

    path = common.data_dir.absolute() / backup_file.DATABASE
    if not path.exists():
        raise Failure(f"there is no database in {common.data_dir}", Exit.NOT_FOUND)
    started = time.monotonic()

    async def main() -> str:
        async with open_database(path) as database:
            done = await database.compact()
        return f"the database has {done.after} bytes, it had {done.before}"

    with spinner(common, COMPACTING):
        detail = trio.run(main)
    return Maintained(ok=True, detail=detail, duration_ms=_since(started))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _since(started: float) -> float:
    import time

    return round((time.monotonic() - started) * 1000, 1)
