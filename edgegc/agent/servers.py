"""The addresses of a control plane, tried in order, beginning with the one that was good last. Knows no questions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from edgegc.client import Client, Unreachable, Untrusted
from edgegc.connection import parse_target
from edgegc.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.agent.settings import Cluster
    from edgegc.model.manifest import Server

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Servers:
    """The servers of one cluster. ``connect`` makes a client; ``on_good`` hears of a server that answered."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        on_good: Callable[[Server], Awaitable[None]],
        connect: Callable[[Server, str], Client] | None = None,
    ) -> None:
        self._connect = connect or _connect
        self._on_good = on_good
        self._cluster = cluster
        self._servers: tuple[Server, ...] = ()
        self._good = 0
        self._clients: dict[Server, Client] = {}
        self.use(cluster)

    def use(self, cluster: Cluster) -> None:
        """Use the servers of these settings from now on; the one that was good stays first choice if it is among them."""
        good = self.good
        self._cluster = cluster
        self._servers = (*cluster.servers, *((cluster.fallback,) if cluster.fallback else ()))
        self._good = self._servers.index(good) if good in self._servers else 0
        self.close()

    @property
    def good(self) -> Server | None:
        """The server that answered last, or is asked first."""
        return self._servers[self._good] if self._servers else None

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self._servers) > 1

    def prefer(self, url: str | None) -> None:
        """Begin with the server at this address, if it is one of them: it was good before our start."""
        self._good = next((n for n, server in enumerate(self._servers) if server.url == url), self._good)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    async def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Put a question to the first server that can be reached, and return its answer.

        Raises what the server said; where none can be reached, what the last one tried failed with.
        """
        servers = self._servers
        failure: Unreachable | Untrusted | Unavailable = Unreachable(
            "no server is known: edgegc agent set-server"
        )
        for step in range(len(servers)):
            number = (self._good + step) % len(servers)
            server = servers[number]
            try:
                answer = await question(self._client(server))
            except (Unreachable, Untrusted, Unavailable) as error:
                failure = error
                if len(servers) > 1:
                    _log.info("%s: %s; trying the next server", server.url, error.message)
                continue
            if servers is self._servers:
                self._good = number
            await self._on_good(server)
            return answer
        raise failure

    def _client(self, server: Server) -> Client:
        client = self._clients.get(server)
        if client is None:
            self._refuse_readable(server)
            client = self._clients[server] = self._connect(server, self._cluster.node_token)
        return client

    def _refuse_readable(self, server: Server) -> None:
        """Raise Untrusted where the token would be readable on the way, and nobody at this machine has said that it may."""
        target = parse_target(server.url, pin=server.pin)
        if target.readable and not self._cluster.insecure_http:
            raise Untrusted(
                f"{target} is clear text: whoever listens on the way could read this node's token; where it may be, "
                f"'edgegc agent set-server {self._cluster.name} {server.url} --insecure-http' says so"
            )


def _connect(server: Server, token: str) -> Client:
    return Client(server.url, token=token, pin=server.pin)
