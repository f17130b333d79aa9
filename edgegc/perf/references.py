"""What our server is compared with, in the same run: the least that a Python server can do, and plain Quart.

``raw_echo``: bare Trio ``receive_some``/``send_all`` that answers a version check's bytes: what no server on Trio can beat.
It can also be made bad in known ways, for the suite to be tested with. ``plain_quart``: the smallest honest Quart-Trio route
on Hypercorn. Knows nothing of our server.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import struct
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec
import trio

from edgegc.errors import Unavailable
from edgegc.perf import respawn
from edgegc.perf.child import child
from edgegc.perf.plan import Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

Name = Literal["raw_echo", "plain_quart"]

COMMANDS: Final[dict[Name, str]] = {"raw_echo": "_raw-echo", "plain_quart": "_plain-quart"}
"""The hidden commands that they are processes of."""
PATH: Final = "/api/v1/config/version"
REQUEST: Final = (
    b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer none\r\n\r\n"
)
"""What both answer: as long as ours but for the token."""
ANSWER: Final = {"version": 1}
"""What ours says in an answer to a version check."""
BACKLOG: Final = 4096
"""Connections that wait to be accepted: the kernel's own limit cuts it to ``net.core.somaxconn``."""
READ_BYTES: Final = 65_536
KEEP_ALIVE_S: Final = 75.0
"""Between its turns a connection waits; as long as ours does."""
START_TIMEOUT_S: Final = 60.0
"""Importing Quart takes a second here, fifteen on a small board."""
HOST: Final = "127.0.0.1"
KIND_OF_BYTES: Final = "application/gzip"
"""Of a body of so many bytes: a bundle's."""
MS_PER_S: Final = 1000


class Cage(Protocol):
    """What an emulated device must be able to do: have a command started inside."""

    def wrap(self, argv: Sequence[str]) -> Sequence[str]:
        """Return the command line that starts ``argv`` inside."""


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """What a raw echo does wrong, so that it can be seen whether that is measured. Zero: nothing."""

    delay_ms: float = 0
    """Before each answer; others are answered meanwhile."""
    stall_every_ms: float = 0
    stall_ms: float = 0
    """So often the whole process stops for so long: nobody is answered."""
    drop_every: int = 0
    """Each such request is never answered."""
    reset_every: int = 0
    """At each such request the connection is reset."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A reference that answers."""

    pid: int
    target: Target


@asynccontextmanager
async def running(
    name: Name,
    *,
    cpu: int | None = None,
    cage: Cage | None = None,
    body_bytes: int = 0,
    flaws: Flaws | None = None,
) -> AsyncIterator[Running]:
    """Start a reference and wait until it answers; leaving ends it.

    ``cpu``: the core that it stays on. ``body_bytes``: answer so many bytes instead of a version check's. ``flaws``: of a
    raw echo only. Raises Unavailable, with its last words, where it does not start.
    """
    words = [COMMANDS[name], "--body-bytes", str(body_bytes)]
    if flaws is not None:
        for flaw, value in vars(flaws).items():
            words += [f"--{flaw.replace('_', '-')}", str(value)]
    argv: Sequence[str] = respawn.perf(*words)
    if cage is not None:
        argv = cage.wrap(argv)
    async with child(argv, cpu=cpu) as process:
        port = await _port_of(process.incoming)
        if port is None:
            raise Unavailable(f"the reference {name} did not start: {await process.last_words()}")
        yield Running(pid=process.pid, target=Target(host=HOST, port=port))


async def _port_of(said: trio.abc.ReceiveStream) -> int | None:
    """Return the port that it listens at, which it says in its only line; None where it does not."""
    line = b""
    with trio.move_on_after(START_TIMEOUT_S):
        while not line.endswith(b"\n"):
            piece = await said.receive_some(READ_BYTES)
            if not piece:
                return None
            line += piece
        return int(line)
    return None


# What the hidden commands run.


def raw_echo(*, body_bytes: int, flaws: Flaws) -> None:
    """Be a raw echo until SIGTERM, or the end of standard input."""
    echo = _Echo(_answer(body_bytes), flaws)

    async def serve() -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(_listen()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_told, nursery.cancel_scope)
            if flaws.stall_ms:
                nursery.start_soon(echo.stall)
            nursery.start_soon(trio.serve_listeners, echo.serve, [listener])
            _say_port(listener.socket.getsockname()[1])

    trio.run(serve)


_NONE: Final = Flaws()


class _Echo:
    def __init__(self, answer: bytes, flaws: Flaws) -> None:
        self._answer = answer
        self._flaws = flaws
        self._requests = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while await self._request(stream):
                if self._flaws != _NONE and not await self._flawed(stream):
                    continue
                await stream.send_all(self._answer)
        await trio.aclose_forcefully(stream)

    async def _request(self, stream: trio.SocketStream) -> bool:
        """Read one request; return False where there is no other. Nobody asks before the answer to the last has come."""
        read = await stream.receive_some(READ_BYTES)
        while read and not read.endswith(b"\r\n\r\n"):
            read += (more := await stream.receive_some(READ_BYTES))
            if not more:
                return False
        return bool(read)

    async def _flawed(self, stream: trio.SocketStream) -> bool:
        """Do what is wrong with this request; return whether it is answered all the same."""
        flaws = self._flaws
        self._requests += 1
        if flaws.reset_every and self._requests % flaws.reset_every == 0:
            # Closing with a linger of zero sends a reset.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)
            raise trio.BrokenResourceError
        if flaws.drop_every and self._requests % flaws.drop_every == 0:
            return False
        if flaws.delay_ms:
            await trio.sleep(flaws.delay_ms / MS_PER_S)
        return True

    async def stall(self) -> None:
        while True:
            await trio.sleep(self._flaws.stall_every_ms / MS_PER_S)
            time.sleep(self._flaws.stall_ms / MS_PER_S)  # noqa: ASYNC251  to stop everything is what is wanted


def plain_quart(*, body_bytes: int) -> None:
    """Be a Quart-Trio application on Hypercorn until SIGTERM, or the end of standard input."""
    from hypercorn.config import Config
    from hypercorn.trio import serve
    from quart import Response
    from quart_trio import QuartTrio

    app = QuartTrio("plain_quart")
    content = _content(body_bytes)

    @app.get(PATH)
    async def version() -> Response | dict[str, int]:
        # As one would write it: a dict becomes JSON, a body is given as it is.
        return Response(content, mimetype=KIND_OF_BYTES) if body_bytes else ANSWER

    listening = _listen()
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.backlog = BACKLOG
    # Left at 1000 it would be the reconnecting that is measured, too.
    config.keep_alive_max_requests = sys.maxsize
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.errorlog = None

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_told, nursery.cancel_scope)
            urls = await nursery.start(partial(serve, app, config))
            _say_port(int(urls[0].rpartition(":")[2]))

    trio.run(run)


def _content(body_bytes: int) -> bytes:
    """Return a body. Noise, as a bundle is."""
    return random.Random(0).randbytes(body_bytes)


def _answer(body_bytes: int) -> bytes:
    """Return a whole answer: of a version check as our server gives it, or of so many bytes."""
    if body_bytes:
        body, kind = _content(body_bytes), KIND_OF_BYTES
    else:
        body, kind = msgspec.json.encode(ANSWER), "application/json"
    fields = {
        "content-type": kind,
        "content-length": str(len(body)),
        "etag": '"1"',
        "cache-control": "no-store",
        "date": "Thu, 01 Jan 2026 00:00:00 GMT",
        "x-request-id": "0" * 32,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 200 \r\n{head}\r\n".encode() + body


def _listen() -> socket.socket:
    # Started by hand, 1024 files would be all; the generator has more connections than that.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind((HOST, 0))
    listening.listen(BACKLOG)
    return listening


def _say_port(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


async def _until_told(scope: trio.CancelScope) -> None:
    """Cancel at SIGTERM, or when standard input ends: nobody is there any more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_signal, nursery.cancel_scope)
        nursery.start_soon(_end_of_input, nursery.cancel_scope)
    scope.cancel()


async def _signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            break
    scope.cancel()


async def _end_of_input(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        async for _ in stdin:
            pass
    scope.cancel()
