"""A box in the way, as cheap routers and proxies are: it passes on what comes, and cuts a connection that is silent too long.

It makes an agent do what it does behind such a box: give up held questions, and ask every five seconds instead. Knows
nothing of what it passes on.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Unavailable

if TYPE_CHECKING:
    from edgegc.perf.network import Host

SILENT_S: Final = 1.0
"""Longer than any answer that is not held takes on an emulated device, and shorter than it takes an agent to lose patience."""
CHUNK_BYTES: Final = 65_536
BACKLOG: Final = 64
ASKED_APART_S: Final = 3.0
"""Between two questions of an agent that polls every 5 s ± 10 %; one that holds is back within a second or two."""
GIVEN_UP_S: Final = 120.0
"""An agent gives held questions up after three that broke, and a plain one that got through after each."""


class Middlebox:
    """Listens at ``port`` of a machine, and connects to ``target_port`` there."""

    def __init__(self, host: Host, *, port: int, target_port: int, silent_s: float = SILENT_S) -> None:
        self._host = host
        self._port = port
        self._target_port = target_port
        self._silent_s = silent_s
        self._connected: dict[str, list[float]] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass on, and cut, until cancelled. Raises Unavailable where it can't listen."""
        with trio.socket.from_stdlib_socket(
            self._host.socket(socket.AF_INET, socket.SOCK_STREAM)
        ) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                await listening.bind((self._host.address, self._port))
            except OSError as error:
                raise Unavailable(f"nobody can listen in {self._host.name}: {error.strerror}") from error
            listening.listen(BACKLOG)
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    client, (address, *_) = await listening.accept()
                    self._connected.setdefault(address, []).append(trio.current_time())
                    nursery.start_soon(self._pass_on, client)

    async def until_polled(self, address: str) -> None:
        """Wait until a machine's agent asks every few seconds, and holds no question any more.

        It is told by its connections: what is silent between two questions is cut, too. Raises errors.Error where it
        never does.
        """
        began = trio.current_time()
        with trio.move_on_after(GIVEN_UP_S):
            while True:
                times = [at for at in self._connected.get(address, ()) if at >= began]
                if len(times) >= 2 and times[-1] - times[-2] >= ASKED_APART_S:
                    return
                await trio.sleep(self._silent_s / 10)
        raise Error(f"the agent does not give up held questions within {GIVEN_UP_S:.0f} s")

    async def _pass_on(self, client: trio.socket.SocketType) -> None:
        target = trio.socket.from_stdlib_socket(self._host.socket(socket.AF_INET, socket.SOCK_STREAM))
        with client, target:
            try:
                await target.connect((self._host.address, self._target_port))
            except OSError:
                return
            with trio.CancelScope(deadline=trio.current_time() + self._silent_s) as both:
                async with trio.open_nursery() as nursery:
                    for source, sink in ((client, target), (target, client)):
                        nursery.start_soon(self._pump, source, sink, both)

    async def _pump(
        self, source: trio.socket.SocketType, sink: trio.socket.SocketType, both: trio.CancelScope
    ) -> None:
        try:
            while passing := await source.recv(CHUNK_BYTES):
                both.deadline = trio.current_time() + self._silent_s
                with memoryview(passing) as left:
                    sent = 0
                    while sent < len(left):
                        sent += await sink.send(left[sent:])
        except OSError:
            pass
        both.cancel()
