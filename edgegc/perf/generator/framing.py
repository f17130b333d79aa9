"""Where an HTTP/1.1 answer ends, from whatever pieces it arrives in: its status, and whether its connection may be kept.

Pure: bytes in, no I/O, no clock. Bodies are counted, not kept. No answers to HEAD: nothing says that they have no body.
"""

from __future__ import annotations

from typing import Final

HEAD_LIMIT_BYTES: Final = 65_536
"""Heads, and trailers, beyond it are malformed: ours are < 1 KB."""
SIZE_LINE_LIMIT_BYTES: Final = 4096
"""Of a chunk's size with its extensions."""

BODYLESS: Final = (204, 304)

_NONE, _HEAD, _LENGTH, _TO_CLOSE, _SIZE, _CHUNK, _CHUNK_END, _TRAILERS = range(8)


class Malformed(Exception):
    """What came is no HTTP/1.1 answer; the connection is of no use any more."""


class Reader:
    """Reads one answer after the other. What is public is of the answer that was begun last."""

    __slots__ = ("_head", "_held", "_left", "_state", "keeps", "read", "status")

    def __init__(self) -> None:
        self.status = 0
        self.keeps = True
        """Whether the connection may carry another request after it."""
        self.read = 0
        """Bytes so far, head included."""
        self._head = b""
        self._state = _NONE
        self._held = b""
        self._left = 0

    @property
    def begun(self) -> bool:
        """Whether some of an answer has come, but not all."""
        return self._state != _NONE

    def value(self, name: bytes) -> bytes | None:
        """Return the value of a field of the head, by its name in lower case; None without one."""
        at = self._head.lower().find(b"\r\n" + name + b":")
        if at < 0:
            return None
        begin = at + len(name) + 3
        return self._head[begin : self._head.index(b"\r", begin)].strip(b" \t")

    def feed(self, piece: bytes) -> bool:
        """Read what has arrived (never nothing); return whether the answer is complete.

        Raises Malformed, also for bytes that come after the end: there is no pipelining, so nobody asked for them.
        """
        state = self._state
        if state == _LENGTH:
            self.read += len(piece)
            return self._take_body(len(piece))
        if state == _NONE:
            self.read = len(piece)
            return self._take_head(piece)
        self.read += len(piece)
        if state == _HEAD:
            return self._take_head(self._held + piece)
        if state == _TO_CLOSE:
            return False
        return self._take_chunks(self._held + piece)

    def end(self) -> bool:
        """The other side closed; return whether that completes the answer: one whose head told no length."""
        complete = self._state == _TO_CLOSE
        self._state = _NONE
        return complete

    def _done(self) -> bool:
        self._state = _NONE
        return True

    def _take_body(self, arrived: int) -> bool:
        left = self._left - arrived
        if left > 0:
            self._left = left
            return False
        if left:
            raise Malformed("more bytes than the answer has")
        self._state = _NONE
        return True

    def _take_head(self, arrived: bytes) -> bool:
        end = arrived.find(b"\r\n\r\n")
        if end < 0:
            if len(arrived) > HEAD_LIMIT_BYTES:
                raise Malformed("a head without an end")
            self._held = arrived
            self._state = _HEAD
            return False
        # With the CRLF of its last line, so that every field ends with one.
        head = arrived[: end + 2]
        begin = end + 4
        self._held = b""
        code = head[9:12]
        if head[:7] != b"HTTP/1." or head[8:9] != b" " or not code.isdigit() or head[12:13] not in b" \r":
            raise Malformed("not a status line")
        self.status = status = int(code)
        if status < 200:
            if status == 101 or status < 100:
                raise Malformed(f"status {status}")
            # "100 Continue" and its like come before the answer.
            self._state = _NONE
            return begin < len(arrived) and self._take_head(arrived[begin:])
        fields = head.lower()
        self._head = head
        self.keeps = fields[5:8] == b"1.1" and (
            b"\r\nconnection:" not in fields or b"close" not in _values(fields, b"connection")
        )
        if status in BODYLESS:
            self._left = 0
        elif b"\r\ntransfer-encoding:" in fields:
            if _values(fields, b"transfer-encoding") != [b"chunked"]:
                raise Malformed("a transfer coding that is not chunked")
            self._state = _SIZE
            return begin < len(arrived) and self._take_chunks(arrived[begin:])
        else:
            at = fields.find(b"\r\ncontent-length:")
            if at < 0:
                self.keeps = False
                self._state = _TO_CLOSE
                return False
            length = fields[at + 17 : fields.index(b"\r", at + 17)].strip(b" \t")
            if not length.isdigit() or fields.find(b"\r\ncontent-length:", at + 17) >= 0:
                length = _agreed_length(fields)
            self._left = int(length)
        self._state = _LENGTH
        return self._take_body(len(arrived) - begin)

    def _take_chunks(self, arrived: bytes) -> bool:
        at = 0
        while at < len(arrived):
            state = self._state
            if state == _CHUNK:
                taken = min(self._left, len(arrived) - at)
                at += taken
                self._left -= taken
                if not self._left:
                    self._state = _CHUNK_END
                continue
            if state == _CHUNK_END:
                if len(arrived) - at < 2:
                    break
                if arrived[at : at + 2] != b"\r\n":
                    raise Malformed("a chunk longer than its size")
                at += 2
                self._state = _SIZE
                continue
            end = arrived.find(b"\r\n", at)
            limit = SIZE_LINE_LIMIT_BYTES if state == _SIZE else HEAD_LIMIT_BYTES
            if (len(arrived) if end < 0 else end) - at > limit:
                raise Malformed("a line without an end")
            if end < 0:
                break
            line = arrived[at:end]
            at = end + 2
            if state == _SIZE:
                self._left = _chunk_size(line)
                self._state = _CHUNK if self._left else _TRAILERS
            elif not line:
                if at < len(arrived):
                    raise Malformed("more bytes than the answer has")
                self._held = b""
                return self._done()
        self._held = arrived[at:]
        return False


def _values(fields: bytes, name: bytes) -> list[bytes]:
    """Return what a field lists, over all the lines it has. ``fields`` is the head in lower case."""
    lines = [line[len(name) + 1 :] for line in fields.split(b"\r\n") if line.startswith(name + b":")]
    return [value.strip(b" \t") for line in lines for value in line.split(b",")]


def _agreed_length(fields: bytes) -> bytes:
    """Return the one length that all lines name: repeated ones that agree are allowed (RFC 9110, 8.6)."""
    told = set(_values(fields, b"content-length"))
    length = told.pop()
    if told or not length.isdigit():
        raise Malformed("a content-length that is no length")
    return length


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip(b" \t")
    if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
        raise Malformed("a chunk size that is no number")
    return int(digits, 16)
