"""A nebula's log file: opened for appending, bounded by copy-truncate, read by offset. Starts no process.

Never a pipe of ours: when its reader is gone nebula dies on its next line, and when the reader stalls so does
the data plane. Lines of 1.6 to 1.11 are understood, as logrus text, JSON, and slog text.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_BYTES = 1_048_576
"""Rotated when larger; one older file is kept, so a lighthouse's logs take at most about twice this."""

TAIL_BYTES = 65_536
"""How far back :meth:`LogFile.tail` looks."""

CHUNK_BYTES = 262_144
"""Copied at a time while rotating."""

RECENT_LINES = 20
"""An error further back than this is not why nebula ended."""

SENTENCE_LIMIT = 500
"""Characters of nebula's own words that we repeat in an error."""

_VALUE = r'(?:"((?:[^"\\]|\\.)*)"|([^\s,}]+))'
_LEVEL = re.compile(r'(?:\blevel=|"level":\s*)"?([A-Za-z]+)')
_MSG = re.compile(r'(?:\bmsg=|"msg":\s*)' + _VALUE)
_ERROR = re.compile(r'(?:\berror=|"error":\s*)' + _VALUE)
_UDP_PORT = re.compile(r'udpAddr(?:=|":\s*)(?:"?[^\s"{]*:(\d+)"?|\{[^}]*"port":\s*(\d+))')
_BUILD = re.compile(r'(?:\bbuild=|"build":\s*)"?(\d+)\.(\d+)\.(\d+)')
_BAD_LEVELS = frozenset({"error", "fatal", "panic"})


class LogFile:
    """The log of one nebula at ``path``. Methods are synchronous and short; the file may not exist."""

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._tail: tuple[int, tuple[str, ...]] = (0, ())

    def open_append(self) -> int:
        """Return a new file descriptor for a child's output; the caller closes it."""
        # O_APPEND is what makes copy-truncate right: the writer goes on at the new end, not at its old offset.
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def size(self) -> int:
        """Return the size in bytes; 0 without a file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def lines_since(self, offset: int) -> list[str]:
        """Return the complete lines after byte ``offset``; all of them when the file has become shorter."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(offset if offset <= end else 0)
                content = file.read()
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        return complete.decode("utf-8", "replace").splitlines()

    def tail(self, count: int) -> tuple[str, ...]:
        """Return the last ``count`` lines (of the last TAIL_BYTES). Read again only when the file has changed its size."""
        size = self.size()
        if self._tail[0] != size:
            self._tail = (size, tuple(self.lines_since(max(0, size - TAIL_BYTES))))
        return self._tail[1][-count:]

    def rotate(self) -> bool:
        """Copy to ``<name>.1`` and truncate, if larger than the limit. Returns whether it did.

        A line written between the last copy and the truncation is lost: a few microseconds, and a log. Raises OSError
        when the log itself can't be opened.
        """
        if self.size() <= self._limit_bytes:
            return False
        older = self.path.with_name(self.path.name + ".1")
        partial = self.path.with_name(self.path.name + ".1.partial")
        with self.path.open("rb+") as source:
            try:
                with partial.open("wb") as copy:
                    os.fchmod(copy.fileno(), 0o600)  # it names who talks to whom, like the log itself
                    while chunk := source.read(CHUNK_BYTES):
                        copy.write(chunk)
                partial.replace(older)
            except OSError:
                # Most likely the disk is full: then room matters more than history.
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
            source.truncate(0)
        return True


def ready_line(lines: list[str]) -> str | None:
    """Return the line that says nebula is up and takes signals, if it is among ``lines``."""
    return next((line for line in lines if "Nebula interface is active" in line), None)


def udp_port(line: str) -> int | None:
    """Return the UDP port that the ready line names: the true one where the configuration says 0."""
    found = _UDP_PORT.search(line)
    return int(found[1] or found[2]) if found else None


def build(line: str) -> tuple[int, int, int] | None:
    """Return the version that the ready line names: that of the process, whatever is on disk by now."""
    found = _BUILD.search(line)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def is_error(line: str) -> bool:
    """Return whether nebula logged this line as an error or worse."""
    found = _LEVEL.search(line)
    return found is not None and found[1].lower() in _BAD_LEVELS


def sentence(line: str) -> str:
    """Return what a log line says, without time and fields: ``message: error``."""
    parts = [_unquoted(found) for found in (_MSG.search(line), _ERROR.search(line)) if found]
    return (": ".join(parts) or line.strip())[:SENTENCE_LIMIT]


def complaint(lines: list[str]) -> str | None:
    """Return why nebula ended, in its own words: what follows the last log line (a Go panic, say), else the last error."""
    last = next((n for n in range(len(lines), 0, -1) if _LEVEL.search(lines[n - 1])), 0)
    bare = next((line.strip() for line in lines[last:] if line.strip()), None)
    if bare is not None:
        return bare[:SENTENCE_LIMIT]
    return next((sentence(line) for line in reversed(lines[-RECENT_LINES:]) if is_error(line)), None)


def _unquoted(found: re.Match[str]) -> str:
    quoted, bare = found[1], found[2]
    if bare is not None:
        return bare
    return quoted.replace("\\n", " ").replace('\\"', '"').replace("\\\\", "\\")
