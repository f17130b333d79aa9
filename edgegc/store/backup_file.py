"""Owns the file that ``edgegc backup`` writes: one plain tar of known names, with a manifest that has a SHA-256 of each.

Knows no database and no data directory. The manifest comes last, so that a file that was cut short has none. The reader
takes nothing but these names and plain files, whoever wrote the tar.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc import errors
from edgegc.store.snapshot import fsync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "edgegc.db"
MASTER_KEY: Final = "master.key"
TLS_KEY: Final = "tls/key.pem"
TLS_CERTIFICATE: Final = "tls/certificate.pem"
SETTINGS: Final = "edgegc.toml"
NAMES: Final = (DATABASE, MASTER_KEY, TLS_KEY, TLS_CERTIFICATE, SETTINGS)
SECRETS: Final = (MASTER_KEY, TLS_KEY, TLS_CERTIFICATE)
"""What is left out without secrets. A certificate is none, but is of no use without its key."""

SMALL_BYTES: Final = 1024 * 1024
"""More than any key, certificate chain or settings file has."""
CHUNK_BYTES: Final = 256 * 1024
SQLITE_MAGIC: Final = b"SQLite format 3\0"


class BadBackup(errors.Error):
    """A file is no backup, or was damaged. Nothing was done with it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a backup. ``sha256`` in hex."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``. ``edgegc``: the version that wrote the backup; ``files`` by name."""

    format: int
    edgegc: str
    created_at: datetime
    files: dict[str, Entry]


class Writer:
    """Adds files to a backup; made by :func:`create`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, content: bytes, *, now: int) -> None:
        """Add a small file."""
        with self.streamed(name, len(content), now=now) as write:
            write(content)

    @contextmanager
    def streamed(self, name: str, size: int, *, now: int) -> Iterator[Callable[[bytes], None]]:
        """Add a file of ``size`` bytes piece by piece. BadBackup where it turns out to have another size."""
        self._header(name, size, now=now)
        digest = hashlib.sha256()
        written = 0

        def write(piece: bytes) -> None:
            nonlocal written
            written += len(piece)
            digest.update(piece)
            self._file.write(piece)

        yield write
        if written != size:
            raise BadBackup(f"{name} has {written} bytes where {size} were announced: try again")
        self._file.write(bytes(-size % tarfile.BLOCKSIZE))
        self._entries[name] = Entry(size=size, sha256=digest.hexdigest())

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file that was added."""
        return self._entries[name].sha256

    def finish(self, *, edgegc: str, created_at: datetime, now: int) -> Manifest:
        """Add the manifest, and return it."""
        manifest = Manifest(format=FORMAT, edgegc=edgegc, created_at=created_at, files=self._entries)
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        self._header(MANIFEST, len(content), now=now)
        self._file.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        return manifest

    def _header(self, name: str, size: int, *, now: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, 0o600, now
        self._file.write(member.tobuf(tarfile.USTAR_FORMAT))


@contextmanager
def create(path: Path) -> Iterator[Writer]:
    """Write a backup to ``path`` (mode 0600): there, complete and on the disk when the context is left, or not at all.

    A file that is there is replaced at the end. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield Writer(file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    fsync(path.parent)


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. The database is a file; the others, by name, are in memory.

    ``manifest`` None: it was a bare copy of the database, as they lie in ``backups``.
    """

    database: Path
    small: dict[str, bytes]
    manifest: Manifest | None


def unpack(path: Path, into: Path, *, done: Callable[[int], None] = lambda _: None) -> Unpacked:
    """Read a backup, put its database into the directory ``into``, and check everything against the manifest.

    ``done`` is told of bytes that were read, in the end of all. Raises BadBackup, saying what is wrong; OSError.
    """
    database = into / DATABASE
    with path.open("rb") as file:
        bare = file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
        file.seek(0)
        if bare:
            _save(file, database, done=done)
            return Unpacked(database=database, small={}, manifest=None)
        small, found = _read_tar(file, path, database, done=done)
        # The other files, and the archive's own blocks.
        done(path.stat().st_size - (found[DATABASE].size if DATABASE in found else 0))
    manifest = _manifest(small.pop(MANIFEST, None), path)
    missing = manifest.files.keys() - found.keys()
    if missing:
        raise BadBackup(f"{path} is damaged: it lacks {', '.join(sorted(missing))}")
    if DATABASE not in manifest.files:
        raise BadBackup(f"{path} holds no database")
    for name, entry in found.items():
        if name == MANIFEST:
            continue
        if manifest.files.get(name) != entry:
            raise BadBackup(f"{path} is damaged: {name} is not what the manifest says")
    return Unpacked(database=database, small=small, manifest=manifest)


def _read_tar(
    file: IO[bytes], path: Path, database: Path, *, done: Callable[[int], None]
) -> tuple[dict[str, bytes], dict[str, Entry]]:
    small: dict[str, bytes] = {}
    found: dict[str, Entry] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name = member.name
                if name not in (*NAMES, MANIFEST) or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise BadBackup(f"{path} is no backup: it holds {name!r}, which has no place in one")
                if name in found:
                    raise BadBackup(f"{path} is no backup: it holds {name} twice")
                content = tar.extractfile(member)
                assert content is not None
                if name == DATABASE:
                    found[name] = _save(content, database, done=done)
                elif member.size > SMALL_BYTES:
                    raise BadBackup(f"{path} is no backup: {name} has {member.size} bytes")
                else:
                    small[name] = content.read()
                    found[name] = Entry(size=member.size, sha256=hashlib.sha256(small[name]).hexdigest())
    except tarfile.TarError as error:
        raise BadBackup(f"{path} is no backup, or was cut short: {error}") from error
    return small, found


def _manifest(content: bytes | None, path: Path) -> Manifest:
    if content is None:
        raise BadBackup(f"{path} is no complete backup: it has no {MANIFEST}, which comes last")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise BadBackup(f"{path} is damaged: its {MANIFEST}: {error}") from error
    if manifest.format != FORMAT:
        raise BadBackup(
            f"{path} has format {manifest.format}, this edgegc knows {FORMAT}: use the edgegc that wrote it, {manifest.edgegc}"
        )
    return manifest


def _save(source: IO[bytes], path: Path, *, done: Callable[[int], None]) -> Entry:
    digest = hashlib.sha256()
    size = 0
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := source.read(CHUNK_BYTES):
            digest.update(piece)
            file.write(piece)
            size += len(piece)
            done(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return Entry(size=size, sha256=digest.hexdigest())
