"""The server: accepts connections, serves each in our own nursery, and stops in order: trigger, drain, cancel.

Stands where Hypercorn has ``serve()``, which handles signals its own way, runs the lifespan protocol (a crash of
a task started there is swallowed; nothing of ours needs it, so it is not run), and never ends while one client
does not read. Knows the application only as an ASGI callable.
"""

from __future__ import annotations

import errno
import logging
import resource
from typing import TYPE_CHECKING, Final

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from edgegc.api import problem
from edgegc.api.access import AccessLog, request_id_of
from edgegc.api.connection import Connection
from edgegc.api.link import prepare
from edgegc.api.reactor import Reactor
from edgegc.api.service import Service
from edgegc.api.vigil import Vigil

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from hypercorn.typing import ASGIFramework

    from edgegc.api.lane_protocol import Lane
    from edgegc.api.listeners import Listener
    from edgegc.settings import Settings

logger = logging.getLogger(__name__)

ACCEPT_BURST: Final = 64
"""Connections taken per wake-up. One per scheduler pass, as ``trio.serve_listeners`` does, starves new clients while
the connected ones are served: of 1,000 that came at once a fifth timed out.
"""
OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
ACCEPT_PAUSE_S: Final = 0.1
"""How long to wait for somebody to leave when there is no file descriptor for another client."""
ACCEPT_LOG_S: Final = 30.0
"""How often, at most, that is logged."""
KEEP_ALIVE_REQUESTS: Final = 10_000_000
"""Hypercorn closes a connection after 1,000: a polling agent would reconnect, with TLS, for nothing."""
RESERVED_DESCRIPTORS: Final = 128
"""Kept from clients, for the database, the lighthouses and the operator's socket: a 503 is better than a lighthouse
that can't be started.
"""
REFUSE_S: Final = 1.0
"""How long a connection past the cap is kept to read its 503."""
REFUSALS: Final = 64
"""How many of those at a time; further ones are just closed."""


class Server:
    """Accepts and holds connections. One per daemon; ``log`` has its counters."""

    def __init__(
        self,
        app: ASGIFramework,
        settings: Settings,
        *,
        log: AccessLog,
        release: Callable[[], None],
        lane: Lane | None = None,
    ) -> None:
        head_bytes = settings.limits.head_bytes
        self._service = Service(
            app=app,
            log=log,
            head_bytes=head_bytes,
            lane=lane,
            reactor=Reactor(lane) if lane is not None else None,
            config=hypercorn_config(log, head_bytes=head_bytes),
            context=WorkerContext(None),
            vigil=Vigil(),
        )
        self._limit = _connection_limit(settings)
        self._graceful_s = settings.api.graceful_timeout_s
        self._log = log
        self._release = release
        self._connections: set[Connection] = set()
        self._refusing = 0
        self._all_closed = trio.Event()

    async def run(
        self,
        listeners: Sequence[Listener],
        *,
        shutdown: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``shutdown``, then drain. Closes the listeners in every case.

        Shutdown: listening ends, idle connections close, answers under way get ``api.graceful_timeout_s``, the rest
        is cancelled. Cancelling this does the same without the drain. A client can delay neither.
        """
        async with trio.open_nursery() as connections:
            connections.start_soon(self._service.vigil.run)
            if self._service.reactor is not None:
                connections.start_soon(self._service.reactor.run)
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, connections)
                    task_status.started()
                    await shutdown.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    listener.close()
                await self._drain()
            finally:
                for listener in listeners:
                    listener.close()
                # Cancelling does not reach a shielded send: this does.
                for connection in self._connections:
                    connection.abort()
                connections.cancel_scope.cancel()

    async def _drain(self) -> None:
        await self._service.stop()
        self._release()
        for connection in tuple(self._connections):
            connection.stop()
        if not self._connections:
            return
        with trio.move_on_after(self._graceful_s) as waiting:
            await self._all_closed.wait()
        if waiting.cancelled_caught:
            logger.warning("%d connections did not finish in time and are cut", len(self._connections))

    async def _accept(self, listener: Listener, connections: trio.Nursery) -> None:
        logged_at = float("-inf")
        while True:
            await trio.lowlevel.wait_readable(listener.socket)
            try:
                for _ in range(ACCEPT_BURST):
                    accepted, _ = listener.socket.accept()
                    self._admit(accepted, listener, connections)
            except BlockingIOError:
                continue
            except ConnectionError:
                continue  # The client left while it waited to be accepted.
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    raise
                self._log.accept_errors += 1
                now = trio.current_time()
                if now - logged_at >= ACCEPT_LOG_S:
                    logged_at = now
                    logger.error(
                        "can't accept connections: %s (%d open, file descriptor limit %d); clients wait in the backlog",
                        error.strerror,
                        len(self._connections),
                        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                    )
                await trio.sleep(ACCEPT_PAUSE_S)

    def _admit(self, accepted: socket.socket, listener: Listener, connections: trio.Nursery) -> None:
        accepted.setblocking(False)
        if listener.kind == "tcp":
            try:
                prepare(accepted)
            except OSError:  # The client has left already.
                accepted.close()
                return
            # The operator's socket is never refused: it is how one finds out who has all the connections.
            if self._limit is not None and len(self._connections) >= self._limit:
                self._log.connections_refused += 1
                if listener.tls is None and self._refusing < REFUSALS:
                    self._refusing += 1
                    connections.start_soon(self._refuse, accepted)
                else:
                    accepted.close()
                return
        connection = Connection(self._service, accepted, tls=listener.tls, admin=listener.kind == "admin")
        self._connections.add(connection)
        self._log.connections_total += 1
        self._log.connections_open = len(self._connections)
        connections.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception:
            # One client must not end the others' connections, let alone the daemon.
            logger.exception("a connection crashed")
        finally:
            self._connections.discard(connection)
            self._log.connections_open = len(self._connections)
            if self._service.stopping and not self._connections:
                self._all_closed.set()

    async def _refuse(self, accepted: socket.socket) -> None:
        """Answer 503 without reading the request, and give the client a moment to read that."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        request_id = request_id_of(None)
        made = problem.answer(
            503,
            "too many connections",
            request_id=request_id,
            headers=(("retry-after", str(problem.RETRY_AFTER_S)),),
        )
        head = "".join(
            f"{name}: {value}\r\n"
            for name, value in (
                *made.headers,
                ("content-length", str(len(made.body))),
                ("x-request-id", request_id),
                ("connection", "close"),
            )
        )
        try:
            async with stream:
                with trio.move_on_after(REFUSE_S):
                    await stream.send_all(
                        f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + made.body
                    )
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
        except trio.BrokenResourceError:
            pass
        finally:
            self._refusing -= 1


def _connection_limit(settings: Settings) -> int | None:
    """Return how many connections may be open; None for no limit. Never more than there are file descriptors for."""
    if not settings.limits.enabled:
        return None
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return settings.limits.connections
    return max(1, min(settings.limits.connections, descriptors - RESERVED_DESCRIPTORS))


def hypercorn_config(log: AccessLog, *, head_bytes: int) -> Config:
    """Return what the general path's protocol is to know."""
    config = Config()
    config.logger_class = lambda _config: log  # type: ignore[assignment,return-value]
    config.keep_alive_max_requests = KEEP_ALIVE_REQUESTS
    config.h11_max_incomplete_size = head_bytes
    config.include_server_header = False
    return config
