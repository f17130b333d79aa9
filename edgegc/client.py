"""Typed client of our HTTP API, over Trio: what agents, the CLI, the performance suite and users call.

Knows every endpoint and its bodies, and nothing of servers' insides nor of connections: see :mod:`edgegc.transport`, which
also says how failures look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from edgegc import errors
from edgegc.connection import PinMismatch, Target, Unreachable, Untrusted
from edgegc.model import message
from edgegc.transport import SLOWEST_BODY_BYTES_PER_S, TIMEOUT_S, Response, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Bundle", "Client", "PinMismatch", "Polled", "Response", "Target", "Unreachable", "Untrusted"]

UPLOAD_S: Final = 180.0
"""An upload may have to wait for two minutes until it is its turn."""
MAX_ASKED_S: Final = 86_400
"""No server may ask an agent to stay away for longer than a day."""

MAINTENANCE_S: Final = 900.0
"""A large database on a slow card is copied or checked in minutes."""


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


class Client(Transport):
    """A client of one control plane: a :class:`~edgegc.transport.Transport` with a method for each endpoint.

    What it has no method for can be asked for with :meth:`call` and :meth:`request`.
    """

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

    async def create_nodes(
        self, batch: message.NodeBatch, *, cluster_id: str | None = None
    ) -> message.NodesCreated:
        """Make many nodes, or none; the answer alone shows their tokens."""
        return await self.call(
            message.NodesCreated, "POST", "/api/v1/nodes/batch", body=batch, query={"cluster_id": cluster_id}
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

    async def set_node_lighthouse(self, node_id: str, lighthouse: message.LighthouseSet) -> message.NodeView:
        """Make a node a lighthouse."""
        path = f"/api/v1/nodes/{_segment(node_id)}/lighthouse"
        return await self.call(message.NodeView, "PUT", path, body=lighthouse)

    async def unset_node_lighthouse(self, node_id: str) -> None:
        """Make a lighthouse a plain node again."""
        await self.request("DELETE", f"/api/v1/nodes/{_segment(node_id)}/lighthouse")

    async def set_node_relay(self, node_id: str) -> message.NodeView:
        """Let a node relay for others."""
        return await self.call(message.NodeView, "PUT", f"/api/v1/nodes/{_segment(node_id)}/relay")

    async def unset_node_relay(self, node_id: str) -> None:
        """Stop a node from relaying."""
        await self.request("DELETE", f"/api/v1/nodes/{_segment(node_id)}/relay")

    async def policy(self, *, cluster_id: str | None = None) -> message.Policy:
        """Return the cluster's firewall policy."""
        return await self.call(message.Policy, "GET", "/api/v1/policy", query={"cluster_id": cluster_id})

    async def set_policy(
        self, policy: message.Policy, *, cluster_id: str | None = None, dry_run: bool = False
    ) -> message.PolicyChange:
        """Replace the cluster's firewall policy; with ``dry_run`` only say which nodes that would change."""
        return await self.call(
            message.PolicyChange,
            "PUT",
            "/api/v1/policy",
            body=policy,
            query={"cluster_id": cluster_id, "dry_run": dry_run or None},
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

    async def upload_bundle(
        self, body: bytes, *, cluster_id: str | None = None, sent: Callable[[int], None] | None = None
    ) -> message.BundleView:
        """Make a tar.gz what the nodes of an uploaded cluster run; ``sent`` is told of its bytes as they go out."""
        return await self.call(
            message.BundleView,
            "POST",
            "/api/v1/config/bundle",
            body=body,
            query={"cluster_id": cluster_id},
            headers={"Content-Type": "application/gzip"},
            timeout_s=UPLOAD_S + len(body) / SLOWEST_BODY_BYTES_PER_S,
            sent=sent,
        )

    async def bundles(self, *, cluster_id: str | None = None) -> message.BundleList:
        """Return the bundles of an uploaded cluster that are kept, the newest first."""
        return await self.call(message.BundleList, "GET", "/api/v1/bundles", query={"cluster_id": cluster_id})

    async def download_bundle(
        self,
        version: int,
        write: Callable[[bytes], object],
        *,
        limit_bytes: int,
        cluster_id: str | None = None,
    ) -> str:
        """Give a bundle of an uploaded cluster piece by piece to ``write``; return the digest that the server announces.

        (``sha256:<hex>``.)
        """
        head = await self.download(
            "GET",
            f"/api/v1/bundles/{version}",
            write,
            query={"cluster_id": cluster_id},
            limit_bytes=limit_bytes,
        )
        return head.headers.get("edgegc-digest", "")

    async def activate_bundle(self, version: int, *, cluster_id: str | None = None) -> message.BundleView:
        """Make a bundle of the history what the nodes run, in a new version."""
        return await self.call(
            message.BundleView,
            "POST",
            f"/api/v1/bundles/{version}/activate",
            query={"cluster_id": cluster_id},
        )

    async def delete_bundle(self, version: int, *, cluster_id: str | None = None) -> None:
        """Delete a bundle that is not active."""
        await self.request("DELETE", f"/api/v1/bundles/{version}", query={"cluster_id": cluster_id})

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

    async def delete_tenant(self, tenant_id: str, *, cascade: bool = False) -> None:
        """Delete a tenant; with ``cascade`` also its clusters and their nodes."""
        path = f"/api/v1/tenants/{_segment(tenant_id)}"
        await self.request("DELETE", path, query={"cascade": "true" if cascade else None})

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

    async def delete_cluster(self, cluster_id: str, *, cascade: bool = False) -> None:
        """Delete a cluster; with ``cascade`` also its nodes."""
        path = f"/api/v1/clusters/{_segment(cluster_id)}"
        await self.request("DELETE", path, query={"cascade": "true" if cascade else None})

    async def ca_rotation(self, cluster_id: str) -> message.CaRotation:
        """Return how far the rotation of a cluster's authority is."""
        return await self.call(
            message.CaRotation, "GET", f"/api/v1/clusters/{_segment(cluster_id)}/ca/rotation"
        )

    async def rotate_ca(self, cluster_id: str, step: message.CaRotationStep) -> message.CaRotation:
        """Take a step of the rotation of a cluster's authority."""
        return await self.call(
            message.CaRotation, "POST", f"/api/v1/clusters/{_segment(cluster_id)}/ca/rotation", body=step
        )

    async def create_api_token(self, token: message.ApiTokenCreate) -> message.ApiTokenView:
        """Make an API token; the answer alone shows it."""
        return await self.call(message.ApiTokenView, "POST", "/api/v1/api-tokens", body=token)

    async def api_tokens(self) -> message.ApiTokenList:
        """Return all API tokens."""
        return await self.call(message.ApiTokenList, "GET", "/api/v1/api-tokens")

    async def revoke_api_token(self, token_id: str) -> None:
        """Revoke an API token; it stops at once."""
        await self.request("DELETE", f"/api/v1/api-tokens/{_segment(token_id)}")

    async def lighthouses(self) -> message.LighthouseList:
        """Return the box's own lighthouses."""
        return await self.call(message.LighthouseList, "GET", "/api/v1/lighthouses")

    async def restart_lighthouse(self, cluster_id: str) -> None:
        """Ask for a restart of a cluster's lighthouse."""
        await self.request("POST", f"/api/v1/lighthouses/{_segment(cluster_id)}/restart")

    async def stop_lighthouse(self, cluster_id: str) -> None:
        """Ask to end a cluster's lighthouse until the daemon starts again."""
        await self.request("POST", f"/api/v1/lighthouses/{_segment(cluster_id)}/stop")

    async def resources(
        self, *, window_s: float | None = None, step_s: float | None = None
    ) -> message.Resources:
        """Return sampled resources of the box."""
        return await self.call(
            message.Resources, "GET", "/api/v1/resources", query={"window_s": window_s, "step_s": step_s}
        )

    async def backup(self) -> message.BackupView:
        """Copy the database into the box's ``backups``."""
        return await self.call(
            message.BackupView, "POST", "/api/v1/maintenance/backup", timeout_s=MAINTENANCE_S
        )

    async def backups(self) -> message.BackupList:
        """Return the copies of the database that the box keeps."""
        return await self.call(
            message.BackupList, "GET", "/api/v1/maintenance/backups", timeout_s=MAINTENANCE_S
        )

    async def download_backup(self, name: str, write: Callable[[bytes], object], *, limit_bytes: int) -> None:
        """Give a copy of the database piece by piece to ``write``."""
        await self.download(
            "GET", f"/api/v1/maintenance/backups/{_segment(name)}", write, limit_bytes=limit_bytes
        )

    async def checkpoint(self) -> message.Maintained:
        """Bring the database's log into its file."""
        return await self._maintain("checkpoint")

    async def compact(self) -> message.Maintained:
        """Give back what deleted rows left free in the database."""
        return await self._maintain("compact")

    async def accept_clock(self) -> message.Maintained:
        """Say that the box's clock is right now, and was ahead when the newest changes were made."""
        return await self._maintain("clock")

    async def verify(self) -> message.Maintained:
        """Check the database."""
        return await self._maintain("verify")

    async def _maintain(self, step: str) -> message.Maintained:
        return await self.call(
            message.Maintained, "POST", f"/api/v1/maintenance/{step}", timeout_s=MAINTENANCE_S
        )

    async def audit(self, *, cursor: str | None = None, page_size: int | None = None) -> message.AuditList:
        """Return who did what, a page of it, newest first."""
        return await self.call(
            message.AuditList, "GET", "/api/v1/audit", query={"cursor": cursor, "page_size": page_size}
        )

    async def rollout(self, *, cluster_id: str | None = None) -> message.Rollout:
        """Return who runs what."""
        return await self.call(message.Rollout, "GET", "/api/v1/rollout", query={"cluster_id": cluster_id})


def _segment(value: str) -> str:
    return quote(value, safe="")


def _seconds(text: str | None) -> float | None:
    """Return a header's seconds, or None where it is absent or not a sane number."""
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds <= MAX_ASKED_S else None
