"""Where a run keeps its files: which directory, and what kind of filesystem that is. It decides what an fsync costs.

Knows nothing of what is kept there.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Unavailable
from edgegc.perf import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTS: Final = Path("/proc/self/mountinfo")
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
FALLBACK: Final = Path("/var/tmp")  # noqa: S108  a directory of our own is made in it; unlike /tmp it is never memory
SOCKET_PATH_BYTES: Final = 107
"""What a Unix socket's path may have on Linux (``sun_path`` is 108 with its NUL)."""
ROOM_BYTES: Final = len("/x1234567/data/admin.sock")
"""What is added to the directory's own name until the longest socket: the admin socket in the data directory."""


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """The filesystem that a path is on. ``in_memory``: nothing is ever written to a disk there."""

    kind: str
    point: str
    device: str

    @property
    def in_memory(self) -> bool:
        """Whether an fsync costs nothing, because there is no disk."""
        return self.kind in IN_MEMORY


def mount_of(path: Path, *, mounts: Path = MOUNTS) -> Mount:
    """Return the mount that ``path`` lies on. Raises OSError where the kernel does not tell."""
    wanted = path.resolve()
    found = Mount(kind="unknown", point="/", device="unknown")
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        point, kind, device = _unescaped(head.split()[4]), tail.split()[0], tail.split()[1]
        # A later mount hides an earlier one at the same place.
        if wanted.is_relative_to(point) and len(point) >= len(found.point):
            found = Mount(kind=kind, point=point, device=device)
    return found


def workplace(wanted: Path | None) -> Path:
    """Return the directory in which a run makes its own: the wanted one, else the working directory, else ``/var/tmp``.

    Raises Unavailable, with the remedy, where it can't be used.
    """
    parent = (wanted or (Path.cwd() if os.access(Path.cwd(), os.W_OK | os.X_OK) else FALLBACK)).resolve()
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise Unavailable(f"{parent} is not a directory that can be written in; name another one with --dir")
    longest = len(os.fsencode(parent)) + len(leftovers.name("")) + ROOM_BYTES
    if longest > SOCKET_PATH_BYTES:
        raise Unavailable(
            f"{parent} is too long a name for the sockets that are made below it; name a shorter directory with --dir"
        )
    return parent


def warning(directory: Path) -> str | None:
    """Return what must be said of measuring in a directory; None where nothing."""
    try:
        mount = mount_of(directory)
    except OSError as error:
        return f"what filesystem {directory} is on can't be told: {error.strerror}"
    if mount.in_memory:
        return (
            f"the database lies in memory ({mount.kind} at {mount.point}): a durable write costs nothing there; "
            "name a directory on the device's disk with --dir"
        )
    return None


def closed_at(directory: Path) -> Path | None:
    """Return the first directory on the way into ``directory`` that strangers may not pass through, ``/root`` say; or None."""
    way = directory.resolve()
    return next(
        (each for each in reversed((way, *way.parents)) if not each.stat().st_mode & stat.S_IXOTH), None
    )


@contextmanager
def temporary(parent: Path) -> Iterator[Path]:
    """Make a directory of this process in ``parent`` and remove it, with all in it, at the end."""
    made = Path(tempfile.mkdtemp(prefix=leftovers.name(""), dir=parent))
    # Others may pass through: nebula runs as somebody else, and its directory lies in here.
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _unescaped(text: str) -> str:
    """Return a mount point as it is: the kernel writes blanks and the like as ``\\040``."""
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
