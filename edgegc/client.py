"""Typed client of our HTTP API, over Trio: what agents, the CLI, the performance suite and users call.

Knows nothing of servers' insides. Failures are the :class:`~edgegc.errors.Error` that the server raised, rebuilt
from its ``application/problem+json``; or Unreachable, Untrusted, PinMismatch of :mod:`edgegc.connection`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import trio

from edgegc import __version__, errors, problem
from edgegc.connection import (
    Connection,
    Head,
    PinMismatch,
    Target,
    Unreachable,
    Untrusted,
    connect,
    parse_target,
)
from edgegc.model import message

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Bundle", "Client", "PinMismatch", "Polled", "Response", "Target", "Unreachable", "Untrusted"]

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
"""From sending a request to the head of its answer, unless the call says otherwise (long polls do)."""
SLOWEST_BODY_BYTES_PER_S: Final = 8192
"""A body has ``timeout_s`` plus its limit at this rate: a slow radio link may finish, a stalled server may not."""
BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Of an answer kept in memory: 500 nodes with 256 routes each are < 5 MB."""
IDLE_CONNECTIONS: Final = 4
"""Kept for reuse per client. A TLS one costs 21 KiB on either side."""
MAX_ASKED_S: Final = 86_400
"""No server may ask an agent to stay away for longer than a day."""

Query = Mapping[str, str | int | float | bool | None]
Body = msgspec.Struct | bytes | None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Polled(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a version check. ``spread_s`` and ``interval_s``: what the server asks of us, where it does."""

    version: int
    spread_s: float | None = None
    interval_s: float | None = None


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A downloaded bundle and what its headers claim; nothing of it is verified yet."""

    body: bytes
    version: str
    digest: str
    signature: str


class Client:
    """A client of one control plane. Use as a context manager, or call :meth:`close`.

    ``url``: ``https://…``, ``http://…``, or ``unix:///path/admin.sock``. ``token``: sent as bearer. ``pin``: see
    :mod:`edgegc.connection`. Connections are kept alive and reused; concurrent calls open more. Every call may be
    cancelled: its connection is closed, and whether a write was done is unknown.
    """

    def __init__(self, url: str, *, token: str | None = None, pin: str | None = None) -> None:
        self.target = parse_target(url, pin=pin)
        self._headers = [("User-Agent", f"edgegc/{__version__}"), ("Accept", "application/json")]
        if token is not None:
            self._headers.append(("Authorization", f"Bearer {token}"))
        self._idle: list[Connection] = []
        self._keeps = True

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client remains usable, but keeps none from now on."""
        self._keeps = False
        while self._idle:
            self._idle.pop().close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Body = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        limit_bytes: int = BODY_LIMIT_BYTES,
        accept: Container[int] = (),
    ) -> Response:
        """Ask, and return the complete answer.

        ``body``: a Struct goes as JSON, bytes as they are (set ``Content-Type``). A query value None is left out.
        ``accept``: statuses ≥ 400 that are returned instead of raised. Raises errors.Error as the server said it,
        TooLarge where the answer passes ``limit_bytes``, Unreachable, Untrusted.
        """
        received = bytearray()
        head = await self.download(
            method,
            path,
            received.extend,
            body=body,
            query=query,
            headers=headers,
            timeout_s=timeout_s,
            limit_bytes=limit_bytes,
            accept=accept,
        )
        return Response(status=head.status, headers=head.headers, body=bytes(received))

    async def download(
        self,
        method: str,
        path: str,
        write: Callable[[bytes], object],
        *,
        body: Body = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        limit_bytes: int = BODY_LIMIT_BYTES,
        accept: Container[int] = (),
    ) -> Head:
        """Ask, give the answer's body piece by piece to ``write``, and return its head; otherwise as :meth:`request`."""
        fields = [*self._headers, *(headers or {}).items()]
        payload = None
        if isinstance(body, msgspec.Struct):
            payload = msgspec.json.encode(body)
            fields.append(("Content-Type", "application/json"))
        elif body is not None:
            payload = body
        connection, head = await self._ask(method, _with_query(path, query), fields, payload, timeout_s)
        refused = head.status >= 400 and head.status not in accept
        refusal = bytearray()
        finished = False
        try:
            with trio.move_on_after(timeout_s + limit_bytes / SLOWEST_BODY_BYTES_PER_S) as scope:
                await _copy_body(connection, head, refusal.extend if refused else write, limit_bytes)
            if scope.cancelled_caught:
                raise Unreachable(f"{self.target} sends its answer too slowly")
            finished = True
        finally:
            if not (finished and self._keep(connection)):
                connection.close()
        if refused:
            raise problem.rebuild(head, bytes(refusal))
        return head

    async def call(self, answer: type[T], method: str, path: str, **options: Any) -> T:
        """Make a :meth:`request` and return its JSON body as ``answer``."""
        response = await self.request(method, path, **options)
        try:
            return msgspec.json.decode(response.body, type=answer)
        except msgspec.DecodeError as error:
            raise errors.Error(
                f"the answer of {self.target} to {method} {path} is not understood: {error}"
            ) from error

    async def _ask(
        self, method: str, path: str, fields: list[tuple[str, str]], payload: bytes | None, timeout_s: float
    ) -> tuple[Connection, Head]:
        """Send a request, over an idle connection where one is still quiet, and wait for the head of the answer."""
        idle = self._take_idle()
        if idle is not None:
            try:
                return idle, await _exchange(idle, method, path, fields, payload, timeout_s)
            except Unreachable:
                # The server closed it just while we asked. Asking again is safe only where nothing can be done twice.
                if not idle.closed_unanswered or method != "GET":
                    raise
        fresh = await connect(self.target)
        return fresh, await _exchange(fresh, method, path, fields, payload, timeout_s)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_quiet():
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> bool:
        if not self._keeps or len(self._idle) >= IDLE_CONNECTIONS or not connection.recycle():
            return False
        self._idle.append(connection)
        return True

    # Open

    async def health(self) -> message.Health:
        """Return ``GET /health/ready``, whatever its status."""
        return await self.call(message.Health, "GET", "/health/ready", accept=(503,))

    async def version(self) -> message.VersionInfo:
        """Return what the server runs."""
        return await self.call(message.VersionInfo, "GET", "/api/v1/version")

    async def metrics(self) -> str:
        """Return the Prometheus text."""
        return (await self.request("GET", "/metrics")).body.decode()

    async def enroll(self, enroll: message.Enroll) -> message.Enrolled:
        """Become a node; the client's token is the enrolment key."""
        return await self.call(message.Enrolled, "POST", "/api/v1/enroll", body=enroll)

    # The node's own calls

    async def poll(
        self,
        *,
        current: int | None = None,
        wait_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> Polled:
        """Ask for the effective version, held for up to ``wait_s`` while it is ``current``."""
        response = await self.request(
            "GET",
            "/api/v1/config/version",
            query={"current": current, "wait": wait_s if wait_s > 0 else None},
            headers=headers,
            timeout_s=TIMEOUT_S + wait_s,
        )
        try:
            version = msgspec.json.decode(response.body, type=message.EffectiveVersion).version
        except msgspec.DecodeError as error:
            raise errors.Error(
                f"the version that {self.target} answers is not understood: {error}"
            ) from error
        return Polled(
            version=version,
            spread_s=_seconds(response.headers.get("edgegc-spread")),
            interval_s=_seconds(response.headers.get("edgegc-interval")),
        )

    async def bundle(self, *, limit_bytes: int) -> Bundle:
        """Download the node's bundle of at most ``limit_bytes``; NotFound while it has none."""
        response = await self.request(
            "GET", "/api/v1/config/bundle", headers={"Accept": "application/gzip"}, limit_bytes=limit_bytes
        )
        return Bundle(
            body=response.body,
            version=response.headers.get("edgegc-version", ""),
            digest=response.headers.get("edgegc-digest", ""),
            signature=response.headers.get("edgegc-signature", ""),
        )

    async def report(self, report: message.Report) -> None:
        """Say what this node runs."""
        await self.request("POST", "/api/v1/report", body=report)

    async def own_routes(self) -> message.Routes:
        """Return the routes behind this node."""
        return await self.call(message.Routes, "GET", "/api/v1/routes")

    async def set_own_routes(self, routes: message.Routes) -> message.Routes:
        """Replace the routes behind this node."""
        return await self.call(message.Routes, "PUT", "/api/v1/routes", body=routes)

    async def cluster_routes(self, *, cluster_id: str | None = None) -> message.ClusterRoutes:
        """Return all routes of the cluster."""
        return await self.call(
            message.ClusterRoutes, "GET", "/api/v1/routes/cluster", query={"cluster_id": cluster_id}
        )

    async def topology(self, *, cluster_id: str | None = None) -> message.Topology:
        """Return lighthouses, relays and routes of the cluster."""
        return await self.call(message.Topology, "GET", "/api/v1/topology", query={"cluster_id": cluster_id})

    async def certificate(self, public_key: str) -> message.CertificateIssued:
        """Have a certificate made for a key (PEM): the first one, or a rotation."""
        body = message.CertificateRequest(public_key=public_key)
        return await self.call(message.CertificateIssued, "POST", "/api/v1/certificate", body=body)

    # Cluster admin. ``cluster_id`` may be left out by a node, and is needed by an operator.

    async def nodes(
        self, query: message.NodeQuery | None = None, *, cluster_id: str | None = None
    ) -> message.NodePage:
        """Return one page of nodes."""
        asked = msgspec.structs.asdict(query or message.NodeQuery())
        return await self.call(
            message.NodePage, "GET", "/api/v1/nodes", query={**asked, "cluster_id": cluster_id}
        )

    async def create_node(
        self, node: message.NodeCreate, *, cluster_id: str | None = None
    ) -> message.NodeView:
        """Make a node; the answer alone shows its token."""
        return await self.call(
            message.NodeView, "POST", "/api/v1/nodes", body=node, query={"cluster_id": cluster_id}
        )

    async def node(self, node_id: str) -> message.NodeView:
        """Return a node."""
        return await self.call(message.NodeView, "GET", f"/api/v1/nodes/{_segment(node_id)}")

    async def update_node(self, node_id: str, change: message.NodeUpdate) -> message.NodeView:
        """Change a node."""
        return await self.call(message.NodeView, "PATCH", f"/api/v1/nodes/{_segment(node_id)}", body=change)

    async def delete_node(self, node_id: str) -> None:
        """Delete a node: its certificates and its token are revoked."""
        await self.request("DELETE", f"/api/v1/nodes/{_segment(node_id)}")

    async def rotate_node_token(self, node_id: str) -> message.NodeToken:
        """Give a node a new token; the old one stops at once."""
        return await self.call(message.NodeToken, "POST", f"/api/v1/nodes/{_segment(node_id)}/token")

    async def set_node_routes(self, node_id: str, routes: message.Routes) -> message.NodeView:
        """Replace the routes behind a node, without the limit of ``allowed_routes``."""
        return await self.call(
            message.NodeView, "PUT", f"/api/v1/nodes/{_segment(node_id)}/routes", body=routes
        )

    async def create_enrolment_key(
        self, key: message.EnrolmentKeyCreate, *, cluster_id: str | None = None
    ) -> message.EnrolmentKeyView:
        """Make an enrolment key; the answer alone shows it."""
        return await self.call(
            message.EnrolmentKeyView,
            "POST",
            "/api/v1/enrollment-keys",
            body=key,
            query={"cluster_id": cluster_id},
        )

    async def enrolment_keys(self, *, cluster_id: str | None = None) -> message.EnrolmentKeyList:
        """Return the enrolment keys that are not revoked."""
        return await self.call(
            message.EnrolmentKeyList, "GET", "/api/v1/enrollment-keys", query={"cluster_id": cluster_id}
        )

    async def revoke_enrolment_key(self, key_id: str) -> None:
        """Revoke an enrolment key."""
        await self.request("DELETE", f"/api/v1/enrollment-keys/{_segment(key_id)}")

    # Operator

    async def tenants(self) -> message.TenantList:
        """Return all tenants."""
        return await self.call(message.TenantList, "GET", "/api/v1/tenants")

    async def create_tenant(self, tenant: message.TenantCreate) -> message.TenantView:
        """Make a tenant."""
        return await self.call(message.TenantView, "POST", "/api/v1/tenants", body=tenant)

    async def tenant(self, tenant_id: str) -> message.TenantView:
        """Return a tenant."""
        return await self.call(message.TenantView, "GET", f"/api/v1/tenants/{_segment(tenant_id)}")

    async def update_tenant(self, tenant_id: str, change: message.TenantUpdate) -> message.TenantView:
        """Rename a tenant."""
        return await self.call(
            message.TenantView, "PATCH", f"/api/v1/tenants/{_segment(tenant_id)}", body=change
        )

    async def clusters(self) -> message.ClusterList:
        """Return all clusters that the caller may see."""
        return await self.call(message.ClusterList, "GET", "/api/v1/clusters")

    async def create_cluster(self, cluster: message.ClusterCreate) -> message.ClusterView:
        """Make a cluster."""
        return await self.call(message.ClusterView, "POST", "/api/v1/clusters", body=cluster)

    async def cluster(self, cluster_id: str) -> message.ClusterView:
        """Return a cluster."""
        return await self.call(message.ClusterView, "GET", f"/api/v1/clusters/{_segment(cluster_id)}")

    async def update_cluster(self, cluster_id: str, change: message.ClusterUpdate) -> message.ClusterView:
        """Change a cluster."""
        return await self.call(
            message.ClusterView, "PATCH", f"/api/v1/clusters/{_segment(cluster_id)}", body=change
        )

    async def lighthouses(self) -> message.LighthouseList:
        """Return the box's own lighthouses."""
        return await self.call(message.LighthouseList, "GET", "/api/v1/lighthouses")

    async def resources(
        self, *, window_s: float | None = None, step_s: float | None = None
    ) -> message.Resources:
        """Return sampled resources of the box."""
        return await self.call(
            message.Resources, "GET", "/api/v1/resources", query={"window_s": window_s, "step_s": step_s}
        )

    async def rollout(self, *, cluster_id: str | None = None) -> message.Rollout:
        """Return who runs what."""
        return await self.call(message.Rollout, "GET", "/api/v1/rollout", query={"cluster_id": cluster_id})


async def _exchange(
    connection: Connection,
    method: str,
    path: str,
    fields: list[tuple[str, str]],
    payload: bytes | None,
    timeout_s: float,
) -> Head:
    try:
        with trio.move_on_after(timeout_s):
            await connection.send(method, path, fields, payload)
            return await connection.head()
        raise Unreachable(f"{connection.target} does not answer within {timeout_s:g} s")
    except BaseException:
        connection.close()
        raise


async def _copy_body(
    connection: Connection, head: Head, write: Callable[[bytes], object], limit_bytes: int
) -> None:
    declared = head.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise errors.TooLarge(
            f"{connection.target} answers with {declared} bytes; at most {limit_bytes} are taken"
        )
    received = 0
    while piece := await connection.chunk():
        received += len(piece)
        if received > limit_bytes:
            raise errors.TooLarge(
                f"{connection.target} answers with more than the {limit_bytes} bytes that are taken"
            )
        write(piece)


def _with_query(path: str, query: Query | None) -> str:
    given = [(name, _plain(value)) for name, value in (query or {}).items() if value is not None]
    return f"{path}?{urlencode(given)}" if given else path


def _plain(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _segment(value: str) -> str:
    return quote(value, safe="")


def _seconds(text: str | None) -> float | None:
    """Return a header's seconds, or None where it is absent or not a sane number."""
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds <= MAX_ASKED_S else None
