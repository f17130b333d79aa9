"""Owns how a complete, self-contained copy of a live database is written, and how one is checked. Knows no schema.

The copy is one file without a write-ahead log, taken from one read snapshot while writes go on beside it.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES_PER_STEP = 512
"""2 MiB between looks at whether to go on: a fraction of a second even on a slow card."""


def copy_database(
    source: sqlite3.Connection, destination: Path, *, may_continue: Callable[[], None] = lambda: None
) -> None:
    """Copy all of ``source`` to ``destination`` (mode 0600), atomically and fsynced; an existing file is replaced.

    ``may_continue`` is called every few pages and stops the copy by raising. Raises OSError and sqlite3.Error;
    then ``destination`` is as it was.
    """
    partial = destination.with_name(f".{destination.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        target = sqlite3.connect(partial, isolation_level=None)
        try:
            # Durable by the fsync below, all or nothing by the rename.
            target.execute("PRAGMA synchronous = OFF")
            # The snapshot must be ours: without a transaction the copy starts over whenever another
            # connection writes, and on a busy box would never end.
            source.execute("BEGIN")
            try:
                source.execute("SELECT 1 FROM sqlite_schema").fetchone()
                source.backup(target, pages=PAGES_PER_STEP, progress=lambda *_: may_continue())
            finally:
                source.execute("ROLLBACK")
            # The header came over in WAL mode; a copy that is one file can be moved by anything.
            target.execute("PRAGMA journal_mode = DELETE")
        finally:
            target.close()
        fsync(partial)
        partial.rename(destination)
        fsync(destination.parent)
    finally:
        partial.unlink(missing_ok=True)


def faults(connection: sqlite3.Connection) -> list[str]:
    """Return what is wrong with a database by SQLite's integrity and foreign key checks; empty when nothing is."""
    found = [line for (line,) in connection.execute("PRAGMA integrity_check(100)") if line != "ok"]
    broken = connection.execute("PRAGMA foreign_key_check").fetchmany(100)
    return found + [f"a row of {table} refers to nothing in {parent}" for table, _, parent, _ in broken]


def fsync(path: Path) -> None:
    """Bring a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
