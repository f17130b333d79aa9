"""Files that a crash or a power cut leaves either old or new, never half. Knows no contents.

Blocking (fsync takes up to hundreds of milliseconds on an SD card): call it through a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")


class Disk(Protocol):
    """Runs a blocking job on files somewhere; in tests right here."""

    async def __call__(self, job: Callable[[], _T], /) -> _T:
        """Return what ``job`` returns."""


async def in_thread(job: Callable[[], _T], /) -> _T:
    """Run a blocking job in a thread; not cancellable once begun."""
    return await trio.to_thread.run_sync(job)


def identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from the one that replaces it (another inode, time or size); None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600, gid: int | None = None) -> None:
    """Replace ``path`` by a file with this content, permissions and group, durably.

    Temporary file in the same directory, fsync, rename, fsync of the directory. Raises OSError, and leaves the old file.
    """
    # A leading dot and this ending: watchers and directory listings skip it.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if gid is not None:
                os.fchown(file.fileno(), -1, gid)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file, durably; fine if there is none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    fsync_directory(path.parent)


def fsync_directory(directory: Path) -> None:
    """Make renames and removals in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
