"""Small ``tar.gz`` archives of plain files: a deterministic writer and a strict reader. Knows nothing of their contents.

The reader is written by hand because it stands where hostile input arrives: :mod:`tarfile` follows a dozen
extensions, some of them into endless loops, and trusts sizes. This one takes plain ``ustar`` entries of files and
directories, inflates no more than its limits allow, and has a sentence of its own for each thing that it refuses.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import msgspec

from edgegc.errors import Invalid, TooLarge, UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BLOCK_BYTES = 512
"""Everything in a tar archive is padded to this."""
CHUNK_BYTES = 65_536
"""How much is inflated at a time: what the reader needs beside the archive and the files themselves."""
GZIP_WINDOW_BITS = 31
"""For zlib: the largest window, and a gzip header with its checksum."""
RAW_WINDOW_BITS = -15
"""For zlib: the largest window, and neither header nor checksum: both are written here, for the sake of the comment."""
GZIP_MAGIC = b"\x1f\x8b"
_GZIP_HEADER = GZIP_MAGIC + b"\x08" + b"\x10" + bytes(4) + b"\x02" + b"\x03"
"""Deflate; a comment follows; no time; best compression; Unix (RFC 1952)."""
MAX_COMMENT_BYTES = 255
MAX_NAME_BYTES = 255
"""Name and prefix of a ustar header; also what file systems take for one name."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive may cost whoever reads it; ``api.md`` names these to the uploader. Bytes and a count."""

    body_bytes: int = 10 * 1024 * 1024
    unpacked_bytes: int = 50 * 1024 * 1024
    entries: int = 200


DEFAULT_LIMITS = Limits()


def pack(files: Mapping[str, bytes], *, comment: str = "") -> bytes:
    """Return a ``tar.gz`` of these files, in this order: equal arguments and an equal zlib give equal bytes.

    Owner root, mode 0600, time zero. Names are ASCII of at most 100 characters. The comment (ASCII) stands in the gzip
    header, where :func:`comment_of` finds it without opening the archive.
    """
    tar = bytearray()
    for name, content in files.items():
        tar += _header(name, len(content))
        tar += content
        tar += bytes(-len(content) % BLOCK_BYTES)
    tar += bytes(2 * BLOCK_BYTES)
    compressor = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, RAW_WINDOW_BITS)
    return b"".join(
        (
            _GZIP_HEADER,
            comment.encode("ascii") + b"\0",
            compressor.compress(tar),
            compressor.flush(),
            struct.pack("<II", zlib.crc32(tar), len(tar) % 2**32),
        )
    )


def comment_of(body: bytes) -> str | None:
    """Return the comment of an archive that :func:`pack` made, None of any other. Nothing is inflated for it."""
    if not body.startswith(_GZIP_HEADER):
        return None
    start = len(_GZIP_HEADER)
    end = body.find(b"\0", start, start + MAX_COMMENT_BYTES + 1)
    comment = body[start:end]
    return comment.decode("ascii") if end >= 0 and comment.isascii() else None


def unpack(body: bytes, *, limits: Limits = DEFAULT_LIMITS) -> dict[str, bytes]:
    """Return the files of a ``tar.gz`` by name, in the archive's order; directories are skipped.

    A leading ``./`` is dropped. Raises :class:`UnsupportedMedia` if this is no gzip at all, :class:`TooLarge` past a
    limit, :class:`Invalid` for everything else. At most ``limits.unpacked_bytes`` are ever inflated.
    """
    if len(body) > limits.body_bytes:
        raise TooLarge(f"the archive has {len(body)} bytes, {limits.body_bytes} are allowed")
    return {entry.name: b"".join(entry.pieces()) for entry in scan(io.BytesIO(body).read, limits=limits)}


class Entry:
    """A file of an archive that is being read: name, size in bytes, and its content, which can be had once, now."""

    def __init__(self, name: str, size: int, inflated: _Inflated) -> None:
        self.name = name
        self.size = size
        self._inflated = inflated
        self._left = size

    def pieces(self) -> Iterator[bytes]:
        """Yield what is left of the content, at most :data:`CHUNK_BYTES` at a time."""
        while self._left:
            piece = self._inflated.read(min(self._left, CHUNK_BYTES))
            self._left -= len(piece)
            yield piece


def scan(read: Callable[[int], bytes], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Entry]:
    """Yield the files of a ``tar.gz`` in the archive's order, in little memory; the same rules as :func:`unpack`.

    ``read(size)`` returns the next bytes of the archive, none at its end. An entry's content is passed over where it
    was not read before the next step. Only who comes to the end knows that the archive is sound.
    """
    inflated = _Inflated(read, limits)
    names: set[str] = set()
    for name, size in _entries(inflated, limits):
        if name in names:
            raise Invalid(f"the archive holds {name!r} twice")
        names.add(name)
        if size > inflated.left:
            raise inflated.bomb(name)
        entry = Entry(name, size, inflated)
        yield entry
        for _ in entry.pieces():
            pass
        inflated.read(-size % BLOCK_BYTES)


class _Inflated:
    """What a gzip body inflates to, read forward, a piece at a time."""

    def __init__(self, read: Callable[[int], bytes], limits: Limits) -> None:
        self._inflater = zlib.decompressobj(GZIP_WINDOW_BITS)
        self._read = read
        self._source = read(CHUNK_BYTES)
        if not self._source.startswith(GZIP_MAGIC):
            raise UnsupportedMedia("the archive is not gzip")
        self._buffer = bytearray()
        self._left = limits.unpacked_bytes
        self._limit = limits.unpacked_bytes

    @property
    def left(self) -> int:
        """How many bytes may still be read."""
        return len(self._buffer) + self._left

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes."""
        if size > self.left:
            raise self.bomb()
        while len(self._buffer) < size:
            if not self._more():
                raise Invalid("the archive ends in the middle of an entry")
        with memoryview(self._buffer) as view:
            taken = bytes(view[:size])
        del self._buffer[:size]
        return taken

    def finish(self) -> None:
        """Read to the end: nothing but zeros may be left, and the gzip checksum has to be right."""
        while True:
            if self._buffer.strip(b"\0"):
                raise Invalid("the archive goes on after its end mark")
            self._buffer.clear()
            if not self._more():
                break
        if self._inflater.unused_data or self._source or self._read(1):
            raise Invalid("the archive has something behind its gzip stream")

    def _more(self) -> bool:
        """Inflate one more piece; False at the end of the gzip stream."""
        if self._inflater.eof:
            return False
        # What zlib has taken it may still hold back: the end of the source is not yet the end of what comes out.
        if not self._source:
            self._source = self._read(CHUNK_BYTES)
        is_end = not self._source
        try:
            piece = self._inflater.decompress(self._source, min(CHUNK_BYTES, self._left + 1))
        except zlib.error:
            raise Invalid("the archive's gzip stream is damaged") from None
        self._source = self._inflater.unconsumed_tail
        if is_end and not piece and not self._inflater.eof:
            raise Invalid("the archive's gzip stream is cut off")
        if len(piece) > self._left:
            raise self.bomb()
        self._left -= len(piece)
        self._buffer += piece
        return True

    def bomb(self, name: str | None = None) -> TooLarge:
        """Return the error for an archive that would unpack to more than is allowed, with the file that is too much."""
        with_what = "" if name is None else f" with {name!r}"
        return TooLarge(f"the archive unpacks to more than {self._limit} bytes{with_what}")


def _entries(inflated: _Inflated, limits: Limits) -> Iterator[tuple[str, int]]:
    """Yield name and size of each file; its content has to be read before the next step."""
    count = 0
    while True:
        header = inflated.read(BLOCK_BYTES)
        if not any(header):
            if any(inflated.read(BLOCK_BYTES)):
                raise Invalid("the archive's end mark is half there")
            inflated.finish()
            return
        count += 1
        if count > limits.entries:
            raise TooLarge(f"the archive has more than {limits.entries} entries")
        checksum = _octal(header[148:156], "a checksum")
        if checksum != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
            raise Invalid(f"the header of the archive's entry {count} is damaged")
        name = _name(header)
        size = _octal(header[124:136], f"the size of {name!r}")
        kind = header[156:157]
        if kind == b"5":
            if size:
                raise Invalid(f"the archive's directory {name!r} has a content")
            continue
        _check_kind(kind, name)
        if not name:
            raise Invalid("the archive holds a file without a name")
        yield name, size


def _name(header: bytes) -> str:
    raw = header[:100].split(b"\0", 1)[0]
    # Only POSIX archives have a prefix here: GNU's, with another magic, keep times in the same place.
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0", 1)[0]):
        raw = prefix + b"/" + raw
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise Invalid(f"the archive holds a name that is not UTF-8: {raw!r}") from None
    if not name.isprintable():
        raise Invalid(f"the archive holds a name with characters that can't be shown: {name!r}")
    if name.startswith("/"):
        raise Invalid(f"the archive holds the absolute path {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"the archive holds {name!r}, a path outside of itself")
    name = "/".join(parts)
    if len(name.encode()) > MAX_NAME_BYTES:
        raise Invalid(f"the archive holds a name of more than {MAX_NAME_BYTES} bytes")
    return name


def _check_kind(kind: bytes, name: str) -> None:
    if kind in (b"0", b"\0"):
        return
    if kind in (b"1", b"2"):
        raise Invalid(f"the archive's entry {name!r} is a link")
    if kind in (b"3", b"4", b"6"):
        raise Invalid(f"the archive's entry {name!r} is a device or a pipe")
    raise Invalid(
        f"the archive's entry {name!r} is of the kind {kind!r}; "
        "only plain files and directories are taken (tar --format=ustar)"
    )


def _octal(field: bytes, what: str) -> int:
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits or digits.strip(b"01234567"):
        raise Invalid(f"the archive holds {what} that is no octal number")
    return int(digits, 8)


def _header(name: str, size: int) -> bytes:
    encoded = name.encode("ascii")
    assert 0 < len(encoded) <= 100  # names are ours
    header = bytearray(BLOCK_BYTES)
    header[: len(encoded)] = encoded
    header[100:108] = b"0000600\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
