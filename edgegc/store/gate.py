"""Owns what must hold before a data directory is opened: nobody else uses it, and its database is one of ours.

Writes nothing but the lock file. Every refusal is an :class:`errors.Error` that says what to do; there is no
fallback, because starting on an empty database beside a damaged one would lose what could still be saved.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from edgegc import errors
from edgegc.store.migrations import APPLICATION_ID, Plan, newer, user_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

LOCK_FILE = "lock"
RESTORING_FILE = "restoring"
"""There from before the first file of a restore is put in its place until after the last one."""

QUICK_CHECK_S = 1.0
"""The start looks for damage for this long at most; a database too large for that is checked by ``verify``."""

# The database header, https://www.sqlite.org/fileformat.html#the_database_header: 100 bytes, big-endian.
_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_USER_VERSION = slice(60, 64)
_APPLICATION_ID = slice(68, 72)

_CHECK_INSTRUCTIONS = 100_000


@contextmanager
def lock_data_directory(directory: Path) -> Iterator[None]:
    """Hold a data directory for this process. Raises Conflict while another one does.

    ``flock`` belongs to the open file, so the kernel gives it up however the process ends, and a second
    opening in the same process is refused as well.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise errors.NotFound(f"there is no data directory {directory}") from None
    except OSError as error:
        raise errors.Forbidden(f"the data directory {directory} can't be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            by = f"process {holder}" if holder.isdigit() else "another process"
            raise errors.Conflict(
                f"the data directory {directory} is in use by {by}: stop it, or use another --data-dir"
            ) from None
        # Only for the sentence above; on a full disk the lock is just as good without it.
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            logger.warning("the process id could not be written to %s: %s", path, error)
        yield
    finally:
        os.close(descriptor)


def refuse_half_restored(directory: Path) -> None:
    """Raise Conflict where a restore into a data directory was interrupted: what lies there need not fit together."""
    if (directory / RESTORING_FILE).exists():
        raise errors.Conflict(
            f"a restore into {directory} was interrupted: run the same 'edgegc restore' again; "
            "what it replaces is kept beside it"
        )


def check_database(path: Path, plan: Plan) -> bool:
    """Return whether there is a database, having looked at it without changing it.

    Raises Conflict for one of a newer edgegc, Invalid for a damaged file or one of another program, Forbidden
    for one that can't be read and written.
    """
    try:
        # For writing too: SQLite opens a file that it may not write to read-only, without a word.
        with path.open("r+b") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise errors.Forbidden(f"{path} can't be opened for reading and writing: {error.strerror}") from error
    if not header:
        # A start that died before it wrote anything.
        return False
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise _damaged(path, "it is not a SQLite file")
    # First by the bare header: SQLite never sees, and so never touches, a file that is refused here.
    if int.from_bytes(header[_USER_VERSION], "big") > plan.version:
        raise newer(int.from_bytes(header[_USER_VERSION], "big"), plan)
    if int.from_bytes(header[_APPLICATION_ID], "big") not in (0, APPLICATION_ID):
        raise _foreign(path)
    return _check_content(path, plan)


def open_unused(path: Path) -> sqlite3.Connection:
    """Open a database that nobody else has open, for reading. Raises sqlite3.Error."""
    # Without a log nothing can change under us, and ``immutable`` leaves not even a -shm file behind.
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, isolation_level=None, timeout=1.0)


def _check_content(path: Path, plan: Plan) -> bool:
    """Look through SQLite, which also reads a write-ahead log that a crash left behind; read-only."""
    try:
        connection = open_unused(path)
        try:
            found = user_version(connection)
            if found > plan.version:
                raise newer(found, plan)
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if application_id != APPLICATION_ID and tables:
                raise _foreign(path)
            _quick_check(connection, path)
            return bool(tables)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def _quick_check(connection: sqlite3.Connection, path: Path) -> None:
    give_up_at = time.monotonic() + QUICK_CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > give_up_at, _CHECK_INSTRUCTIONS)
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        logger.info("%s is too large to be checked whole at every start", path)
        return
    if verdict != "ok":
        raise _damaged(path, verdict)


def _damaged(path: Path, reason: str) -> errors.Error:
    return errors.Invalid(
        f"{path} is damaged ({reason}): nothing was changed; restore a backup, or move it away"
    )


def _foreign(path: Path) -> errors.Error:
    return errors.Invalid(
        f"{path} is a database of another program: nothing was changed; use another --data-dir"
    )
