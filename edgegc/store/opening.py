"""Makes the connections of a database: its file, the pragmas of each, its migrations. Knows no job and no thread."""

from __future__ import annotations

import os
import sqlite3
import uuid
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from edgegc import errors
from edgegc.store import backups
from edgegc.store.gate import check_database
from edgegc.store.migrations import Plan, bring_up_to_date
from edgegc.store.snapshot import fsync

if TYPE_CHECKING:
    from pathlib import Path

BUSY_TIMEOUT_MS: Final = 2000
"""How long a write waits for another program (``sqlite3 edgegc.db``) that holds the write lock."""
WRITER_CACHE_KIB: Final = 2048
READER_CACHE_KIB: Final = 2048
"""Page caches; the kernel caches the file beside them. The writer's holds what a batch of a thousand nodes changes: with
half of it pages go to the log before the commit and come back, two reads for each node."""
CACHED_STATEMENTS: Final = 256
"""Prepared statements kept per connection: more than all aggregates have."""
ROOM_TO_OPEN_BYTES: Final = 262_144
"""What opening takes: the ``-shm`` (32 KiB), a schema's worth of write-ahead log. With less, room is what is missing."""


def open_pair(path: Path | None, source: str, plan: Plan) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Check, create or migrate, and return the connections of writer and reader."""
    directory: Path | None = None
    if path is not None:
        if not check_database(path, plan):
            _make_file(path)
        directory = path.parent / backups.DIRECTORY
    opened: list[sqlite3.Connection] = []
    try:
        writer = connect(source, read_only=False)
        opened.append(writer)
        bring_up_to_date(writer, plan, backups=directory)
        reader = connect(source, read_only=True)
    except BaseException as error:
        for connection in opened:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise errors.Unavailable(
                f"the database {path or 'in memory'} could not be opened: {_why(error, path)}"
            ) from error
        raise
    return writer, reader


def _why(error: sqlite3.Error, path: Path | None) -> str:
    """Return what is wrong for a person. SQLite calls it an I/O error where a full disk has no room for its ``-shm``."""
    if path is not None:
        disk = os.statvfs(path.parent)
        if disk.f_bavail * disk.f_frsize < ROOM_TO_OPEN_BYTES or disk.f_favail == 0 < disk.f_files:
            return f"its disk is full ({error}): make room and start again; nothing was changed"
    return str(error)


def connect(source: str, *, read_only: bool) -> sqlite3.Connection:
    """Return a connection for the writer, or for one who reads. Raises sqlite3.Error."""
    # Not bound to the thread that opens it: it is handed over to the thread that uses it.
    connection = sqlite3.connect(
        source, uri=True, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
    )
    try:
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            # A checkpoint must not land in somebody's request: housekeeping makes them, bound_log at the worst.
            "wal_autocheckpoint = 0",
            f"cache_size = -{READER_CACHE_KIB if read_only else WRITER_CACHE_KIB}",
            "temp_store = MEMORY",
            # Functions with side effects can't hide in the schema of a file that was restored from elsewhere.
            "trusted_schema = OFF",
            f"query_only = {int(read_only)}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def file_source(path: Path) -> str:
    """Return what SQLite is to open for a file."""
    # mode=rw: SQLite must never make the file, it would make it readable for everybody.
    return f"file:{quote(str(path))}?mode=rw"


def memory_source() -> str:
    """Return what SQLite is to open for a new database without a file."""
    # The memdb file system, not a shared cache: two connections see one database, with proper locking.
    return f"file:/edgegc-{uuid.uuid4()}?vfs=memdb"


def _make_file(path: Path) -> None:
    """Make the empty file that SQLite then fills; its log files take over the mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        fsync(path.parent)
    except OSError as error:
        raise errors.Unavailable(f"the database {path} could not be created: {error.strerror}") from error
