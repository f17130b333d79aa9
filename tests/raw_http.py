"""A client that speaks HTTP/1.1 byte by byte, so that a test can also do what no decent client does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import trio

if TYPE_CHECKING:
    import ssl

LIMIT_S = 10.0
"""Nothing here takes long: whoever waits longer has met a bug."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection, used for one request after another."""

    opened: ClassVar[list[RawClient]] = []

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.opened.append(self)
        self.stream = stream
        self._read = b""

    @classmethod
    async def tcp(cls, port: int, *, tls: ssl.SSLContext | None = None) -> RawClient:
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_hostname="localhost", https_compatible=True)
        return cls(stream)

    @classmethod
    async def unix(cls, path: object) -> RawClient:
        return cls(await trio.open_unix_socket(str(path)))

    async def send(self, content: bytes) -> None:
        await self.stream.send_all(content)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send a request, return its answer. ``body``: bytes as they are, anything else as JSON."""
        lines = {"Host": "localhost", **(headers or {})}
        content = b""
        if body is not None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            lines.setdefault("Content-Type", "application/json")
            lines.setdefault("Content-Length", str(len(content)))
        if token is not None:
            lines["Authorization"] = f"Bearer {token}"
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        await self.send(head.encode("latin-1") + content)
        return await self.reply(head_only=method == "HEAD")

    async def reply(self, *, head_only: bool = False) -> Reply:
        with trio.fail_after(LIMIT_S):
            while b"\r\n\r\n" not in self._read:
                await self._more()
            head, self._read = self._read.split(b"\r\n\r\n", 1)
            first, *rest = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in rest)}
            status = int(first.split(" ")[1])
            if head_only or status in (204, 304):
                return Reply(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Reply(status, headers, await self._chunks())
            length = int(headers["content-length"])
            while len(self._read) < length:
                await self._more()
            body, self._read = self._read[:length], self._read[length:]
            return Reply(status, headers, body)

    async def reply_head(self) -> bytes:
        """Return what there is of an answer's head, up to its blank line."""
        with trio.fail_after(LIMIT_S):
            while b"\r\n\r\n" not in self._read:
                await self._more()
        return self._read

    async def closed(self) -> bool:
        """Wait until the server closes; return whether it did, rather than say more."""
        with trio.fail_after(LIMIT_S):
            try:
                return not self._read and not await self.stream.receive_some()
            except trio.BrokenResourceError:
                return True

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)

    @classmethod
    async def close_all(cls) -> None:
        """Close every client that a test has opened and left."""
        with trio.CancelScope(shield=True):
            while cls.opened:
                await cls.opened.pop().aclose()

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._read:
                await self._more()
            line, self._read = self._read.split(b"\r\n", 1)
            length = int(line, 16)
            while len(self._read) < length + 2:
                await self._more()
            body, self._read = body + self._read[:length], self._read[length + 2 :]
            if length == 0:
                return body

    async def _more(self) -> None:
        received = await self.stream.receive_some()
        if not received:
            raise EOFError(f"the server closed after {self._read!r}")
        self._read += received
