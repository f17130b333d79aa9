"""Owns the directory of database copies beside the database: their names, which there are, which have to go.

Blocking; knows no database and no request. Copies that were asked for are ``edgegc-<time>.db``; those that a start made
before a migration are ``before-schema-<n>-from-<m>.db``. Both kinds are kept by number, each its own.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from edgegc.store.snapshot import fsync

DIRECTORY: Final = "backups"
CHUNK_BYTES: Final = 1024 * 1024
_ASKED_FOR: Final = re.compile(r"edgegc-\d{8}T\d{6}Z(?:-\d+)?\.db")
_BEFORE_MIGRATION: Final = re.compile(r"before-schema-\d+-from-\d+\.db")
_PARTIAL: Final = re.compile(r"\..*\.db\.partial")


class Copy(Struct, frozen=True, kw_only=True):
    """One copy. ``written_ns``: when it was complete, in nanoseconds; two may be made in one second."""

    path: Path
    size: int
    written_ns: int

    @property
    def name(self) -> str:
        """The file's name, by which it is asked for."""
        return self.path.name

    @property
    def created_at(self) -> int:
        """The same time in Unix seconds."""
        return self.written_ns // 1_000_000_000


def is_name(text: str) -> bool:
    """Whether a text can be a copy's name; anything else never reaches the file system."""
    return bool(_ASKED_FOR.fullmatch(text) or _BEFORE_MIGRATION.fullmatch(text))


def new_path(directory: Path, *, now: int) -> Path:
    """Return a path for a new copy, named for its time (Unix seconds)."""
    stem = time.strftime("edgegc-%Y%m%dT%H%M%SZ", time.gmtime(now))
    path = directory / f"{stem}.db"
    number = 2
    while path.exists():
        path = directory / f"{stem}-{number}.db"
        number += 1
    return path


def all_(directory: Path) -> list[Copy]:
    """Return the copies, newest first; none where there is no directory."""
    found: list[Copy] = []
    try:
        entries = list(directory.iterdir())
    except FileNotFoundError:
        return []
    for path in entries:
        if not is_name(path.name):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # Removed just now.
        found.append(Copy(path=path, size=status.st_size, written_ns=status.st_mtime_ns))
    return sorted(found, key=lambda copy: (copy.written_ns, copy.name), reverse=True)


def prune(directory: Path, *, keep: int) -> list[str]:
    """Remove all but the newest ``keep`` of each kind, and what a killed process left half-written; return the names.

    Nobody may be writing a copy meanwhile. Who still reads one that goes keeps reading it.
    """
    gone: list[Path] = []
    for kind in (_ASKED_FOR, _BEFORE_MIGRATION):
        gone += [copy.path for copy in all_(directory) if kind.fullmatch(copy.name)][keep:]
    if directory.is_dir():
        gone += [path for path in directory.iterdir() if _PARTIAL.fullmatch(path.name)]
    for path in gone:
        path.unlink(missing_ok=True)
    if gone:
        fsync(directory)
    return [path.name for path in gone]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
