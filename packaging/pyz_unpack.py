"""How a ``.pyz`` unpacks itself: once, completely or not at all, whatever happens in between. Stdlib only.

shiv extracts and renames without a sync, so a power cut can leave a tree with empty files that it never looks at
again. Here a tree counts only when it has a marker, and the marker is written after everything before it has reached
the disk. Whoever runs from a tree holds a shared lock on it, so that pruning spares the trees of older versions that
still run. shiv's bootstrap then finds the tree where it would have put it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

MARKER = ".edgegc-complete"
SYSTEM_ROOT = Path("/var/lib/edgegc/.shiv")
"""For root with a home that can't be written, as under systemd's ProtectHome or on a read-only image."""
NEEDED_MIB = 50
"""About what a tree takes; only said, not checked: the file system knows best."""

_held: list[int] = []
"""Locks that the process keeps until it ends."""


def main() -> None:
    """Make sure that the tree of the running archive is there and complete."""
    archive = Path(sys.argv[0]).resolve()
    try:
        with zipfile.ZipFile(archive) as opened:
            build_id = json.loads(opened.read("environment.json"))["build_id"]
            target = unpack_root() / f"{archive.name}_{build_id}"
            ensure(opened, target)
    except OSError as error:
        sys.exit(
            f"edgegc: can't unpack {archive} into {unpack_root()}: {error.strerror or error}; "
            f"it needs about {NEEDED_MIB} MiB there, or name another directory with SHIV_ROOT"
        )


def unpack_root() -> Path:
    """Return the directory of all trees: ``SHIV_ROOT``, else ``~/.shiv``, else one in the state directory."""
    named = os.environ.get("SHIV_ROOT")
    if named:
        return Path(named)
    root = Path("~/.shiv").expanduser()
    nearest = root if root.exists() else root.parent
    if not os.access(nearest, os.W_OK):
        state_home = os.environ.get("XDG_STATE_HOME")
        root = SYSTEM_ROOT if os.geteuid() == 0 or not state_home else Path(state_home) / "edgegc" / ".shiv"
    os.environ["SHIV_ROOT"] = str(root)  # for shiv, and for the processes that we start of ourselves
    return root


def ensure(archive: zipfile.ZipFile, target: Path) -> None:
    """Return once ``target`` is complete, with a shared lock on it that lasts as long as the process."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = _locked(target, fcntl.LOCK_SH)
    if not (target / MARKER).exists():
        os.close(lock)
        lock = _locked(target, fcntl.LOCK_EX)
        if not (target / MARKER).exists():  # nobody else was quicker
            _extract(archive, target)
            prune(target)
        # Back to shared: nobody can get in between to any harm, the tree is complete now.
        fcntl.flock(lock, fcntl.LOCK_SH)
    _held.append(lock)


def prune(keep: Path) -> None:
    """Remove the trees of other builds that nobody runs from. What can't be removed now is left for the next time."""
    for marker in keep.parent.glob(f"*/{MARKER}"):
        tree = marker.parent
        if tree == keep:
            continue
        with contextlib.suppress(OSError):
            lock = _locked(tree, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                marker.unlink()  # first: half a tree must not count
                shutil.rmtree(tree, ignore_errors=True)
                _lock_path(tree).unlink()
            finally:
                os.close(lock)


def _extract(archive: zipfile.ZipFile, target: Path) -> None:
    partial = target.with_name(target.name + ".tmp")
    for leftover in (partial, target):
        if leftover.exists():
            shutil.rmtree(leftover)
    try:
        for entry in archive.infolist():
            if entry.filename.startswith("site-packages/"):
                extracted = archive.extract(entry, partial)
                os.chmod(extracted, entry.external_attr >> 16)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    # One sync for thousands of files: an fsync of each takes minutes on an SD card.
    os.sync()
    partial.rename(target)
    descriptor = os.open(target / MARKER, os.O_WRONLY | os.O_CREAT, 0o644)
    os.fsync(descriptor)
    os.close(descriptor)
    for directory in (target, target.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)


def _lock_path(tree: Path) -> Path:
    return tree.with_name(f".{tree.name}.lock")


def _locked(tree: Path, how: int) -> int:
    """Return a descriptor that holds the tree's lock; raises BlockingIOError with LOCK_NB."""
    path = _lock_path(tree)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass  # it was pruned while we waited: take the next one
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
