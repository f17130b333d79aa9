"""A whole daemon on a temporary directory, in the test's own event loop, with clients that speak to it over sockets."""

from __future__ import annotations

import base64
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from edgegc import daemon
from edgegc.nebula import keys
from edgegc.settings import Api, Data, Limits, Settings
from tests.raw_http import RawClient, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@dataclass
class Box:
    """A daemon that runs. Requests without a token go through the admin socket, the others over TCP."""

    data: Path
    port: int
    ended: trio.Event = field(default_factory=trio.Event)
    _kept: dict[str, RawClient] = field(default_factory=dict)

    async def client(self, kind: str = "tcp") -> RawClient:
        """Return a new connection."""
        if kind == "admin":
            return await RawClient.unix(self.data / "admin.sock")
        return await RawClient.tcp(self.port)

    async def request(
        self, method: str, path: str, *, token: str | None = None, over: str | None = None, **more: Any
    ) -> Reply:
        """Send a request on a kept connection; ``over`` is ``tcp`` or ``admin``."""
        kind = over or ("admin" if token is None else "tcp")
        for _ in range(2):
            if kind not in self._kept:
                self._kept[kind] = await self.client(kind)
            try:
                return await self._kept[kind].request(method, path, token=token, **more)
            except (EOFError, trio.BrokenResourceError):
                # The server closed it after the answer before, as it does after a malformed request.
                await self._kept.pop(kind).aclose()
        raise AssertionError("the server closes before it answers")

    async def stop(self) -> None:
        """Ask the daemon to end, as systemd does; ``ended`` says when it has."""
        signal.raise_signal(signal.SIGTERM)

    async def made(self, path: str, body: Any, **more: Any) -> Any:
        """Create something; return it."""
        reply = await self.request("POST", path, body=body, **more)
        assert reply.status == 201, reply.body
        return reply.json

    async def cluster(self, name: str = "home", **more: Any) -> dict[str, Any]:
        """Make a tenant and a cluster of it."""
        tenant = await self.made("/api/v1/tenants", {"name": f"{name}-owner"})
        body = {"tenant_id": tenant["id"], "name": name, "network_cidr": "10.42.0.0/16", **more}
        cluster: dict[str, Any] = await self.made("/api/v1/clusters", body)
        return cluster

    async def key(self, cluster_id: str, **more: Any) -> str:
        """Make an enrolment key."""
        made = await self.made(f"/api/v1/enrollment-keys?cluster_id={cluster_id}", more)
        return str(made["key"])

    async def enrolled(self, cluster_id: str, name: str, **more: Any) -> dict[str, Any]:
        """Enrol a node with a key of its own."""
        key = await self.key(cluster_id)
        node: dict[str, Any] = await self.made(
            "/api/v1/enroll", {"name": name, "public_key": public_key(), **more}, token=key
        )
        return node

    async def admin(self, cluster_id: str, name: str = "boss") -> dict[str, Any]:
        """Make an admin node of a cluster."""
        node: dict[str, Any] = await self.made(
            f"/api/v1/nodes?cluster_id={cluster_id}",
            {"name": name, "role": "admin", "public_key": public_key()},
        )
        return node


def public_key() -> str:
    """Return a new node's public key, as PEM."""
    return keys.pem_x25519_public(keys.generate_x25519().public)


def digest_bytes(text: str) -> bytes:
    """Return what a base64 header says."""
    return base64.b64decode(text, validate=True)


def box_settings(
    data: Path, *, api: dict[str, Any] | None = None, limits: dict[str, Any] | None = None
) -> Settings:
    """Return settings of a daemon on any free port."""
    return Settings(
        data=Data(dir=data),
        api=Api(**{"listen": ("127.0.0.1:0",), "graceful_timeout_s": 1.0} | (api or {})),
        limits=Limits(**{"json_body_bytes": 100_000, "enrolment_burst": 1000} | (limits or {})),
    )


@asynccontextmanager
async def running_box(data: Path, settings: Settings | None = None) -> AsyncIterator[Box]:
    """Run a daemon on ``data`` until the context ends."""
    ended = trio.Event()

    async def run(task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        await daemon.run(settings or box_settings(data), task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        urls = await nursery.start(run)
        box = Box(data, int(urls[0].rpartition(":")[2]), ended)
        try:
            yield box
        finally:
            await RawClient.close_all()
            nursery.cancel_scope.cancel()
