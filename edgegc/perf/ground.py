"""Where scenarios ask: a server of our own, or one that runs already, there in a cluster made for them.

Knows no load. What is made on a server that was there before is deleted again; its own clusters are never touched, nor are
its process and its settings.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil
import trio

from edgegc.client import Client
from edgegc.connection import parse_target, refuse_readable
from edgegc.errors import Conflict, Error, Invalid, Unavailable
from edgegc.model import message
from edgegc.perf import seed
from edgegc.perf.monitor import Processes
from edgegc.perf.plan import Target
from edgegc.perf.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from edgegc.perf.seed import Seeded

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
PROGRAM: Final = "edgegc"
"""In the command line of a server's process, however it was started: anything else that listens is a proxy before it."""
LIMITED: Final = ("status 429", "status 503")
"""How a server's own limits show: on how often one may ask, and on how many may at once."""
CLEAN_UP_S: Final = 60.0
"""What a server that runs is given to delete what was made there: thousands of nodes."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A server that runs already. ``token`` is an operator's. ``insecure_http``: others on the way may read it."""

    url: str
    token: str
    pin: str | None = None
    insecure_http: bool = False

    @property
    def target(self) -> Target:
        """Where the generator connects. Raises Invalid for a URL that is none of a server."""
        parsed = parse_target(self.url)
        if parsed.scheme == "unix" or parsed.prefix:
            raise Invalid(f"--url must be http://HOST:PORT or https://HOST:PORT, not {self.url}")
        return Target(host=parsed.host, port=parsed.port, tls=parsed.scheme == "https")

    @property
    def host(self) -> str | None:
        """The name or address of its machine; None where it is this one."""
        host = self.target.host
        return None if host in LOOPBACK else host

    def client(self) -> Client:
        """Return an operator's client. Raises Invalid for clear text beyond this machine, unless that was allowed."""
        client = Client(self.url, token=self.token, pin=self.pin)
        if not self.insecure_http:
            refuse_readable(client.target)
        return client


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A server with a fleet in it, for as long as it is asked. ``admin`` may do everything in the fleet's tenant.

    ``watched``: it, or its process where it is not ours; None where that is not here or can't be told.
    """

    target: Target
    admin: Client
    seeded: Seeded
    watched: Server | Processes | None

    @property
    def ours(self) -> bool:
        """Whether we started it, with the settings that a scenario wants."""
        return isinstance(self.watched, Server)

    def process(self) -> Server | Processes:
        """Return what is to be watched. Raises Unavailable where its process is not known."""
        if self.watched is None:
            raise Unavailable(
                "left out with --url: it measures the server's process, which is not seen from here"
            )
        return self.watched

    async def restart(self) -> None:
        """Start it anew. Raises Unavailable where it is not ours, and otherwise as :meth:`Server.restart`."""
        if not isinstance(self.watched, Server):
            raise Unavailable("left out with --url: it restarts the server")
        await self.watched.restart()

    def limited(self, errors: Iterable[str]) -> str:
        """Return why a load says nothing, where a server that is not ours limited it; else nothing."""
        met = [kind for kind in LIMITED if kind in errors]
        if self.ours or not met:
            return ""
        return f"the server at --url has limits that it met ({', '.join(met)}): start it with EDGEGC_LIMITS_ENABLED=false"


async def check(elsewhere: Elsewhere, *, i_know: bool) -> message.VersionInfo:
    """Return what a server that runs says of itself, where it may be loaded.

    Raises Conflict where it has clusters, unless ``i_know``; Unreachable where there is none; Invalid for a URL that is
    none, or that others could read.
    """
    async with elsewhere.client() as admin:
        found = (await admin.clusters()).clusters
        version = await admin.version()
    if found and not i_know:
        raise Conflict(
            f"{elsewhere.url} has {len(found)} cluster{'s' * (len(found) > 1)}: a load could slow down what depends on them; say --i-know if that may be"
        )
    return version


@asynccontextmanager
async def borrowed(
    elsewhere: Elsewhere, *, nodes: int, keys: bool, seed_number: int, warn: Callable[[str], None]
) -> AsyncIterator[Ground]:
    """Make a tenant and a cluster with ``nodes`` nodes on a server that runs, and delete them afterwards.

    Deletion is not cut short by cancelling, and given up after a minute: ``warn`` is told of what is left then. Raises
    errors.Error as the server says it.
    """
    async with elsewhere.client() as admin:
        name = f"edgegc-perf-{secrets.token_hex(4)}"
        tenant = await admin.create_tenant(message.TenantCreate(name=name))
        try:
            yield Ground(
                target=elsewhere.target,
                admin=admin,
                seeded=await seed.populate(admin, tenant.id, nodes=nodes, keys=keys, seed=seed_number),
                watched=_process_of(elsewhere.target),
            )
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLEAN_UP_S) as scope:
                try:
                    await admin.delete_tenant(tenant.id, cascade=True)
                except Error as error:
                    warn(f"the tenant {name} is left on the server: {error.message}")
            if scope.cancelled_caught:
                warn(
                    f"the tenant {name} may be left on the server: it was not deleted within {CLEAN_UP_S:.0f} s"
                )


def _process_of(target: Target) -> Processes | None:
    """Return the server that listens at an address of this machine, where it is one, and we may know."""
    if target.host not in LOOPBACK:
        return None
    try:
        found = {
            each.pid
            for each in psutil.net_connections(kind="tcp")
            if each.status == psutil.CONN_LISTEN
            and each.laddr
            and each.laddr.port == target.port
            and each.pid is not None
        }
        if len(found) != 1:
            return None
        (pid,) = found
        named = any(PROGRAM in word for word in psutil.Process(pid).cmdline())
    except psutil.Error:
        return None
    return Processes((pid,)) if named else None
