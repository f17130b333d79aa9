"""HTTP bodies in both directions, exactly as the API shows them; the typed client and the API share them.

Requests forbid unknown fields. Field limits that a reader of the API must know are :class:`msgspec.Meta`
constraints here, so that they are checked while decoding and shown in the OpenAPI document.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from edgegc.model.cluster import Mode
from edgegc.model.lighthouse import LighthouseStatus
from edgegc.model.manifest import Server
from edgegc.model.node import ReportedState, Role, State

Name = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
]
"""A name of a tenant, cluster or node: letters, digits, ``.``, ``_``, ``-``; 1 to 63 characters."""
Group = Annotated[
    str, Meta(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$")
]
Groups = Annotated[tuple[Group, ...], Meta(max_length=64)]
Mtu = Annotated[int, Meta(ge=1280, le=9000)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Label = Annotated[str, Meta(max_length=200)]
Amount = Annotated[int, Meta(ge=0, le=2**53)]
"""A count or size: more than any real one, and less than what JSON readers and SQLite get wrong."""
DEFAULT_MTU = 1300
RFC1918 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")


def rfc3339(at: int) -> datetime:
    """Return Unix seconds as the aware UTC time that bodies show (``2026-11-23T10:30:00Z``)."""
    return datetime.fromtimestamp(at, UTC)


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of request bodies: unknown fields are an error. UNSET in a PATCH means: leave as it is."""


class Problem(Struct, frozen=True, kw_only=True):
    """``application/problem+json`` (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str


class VersionInfo(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/version``."""

    version: str
    commit: str
    python: str
    platform: str
    api: str = "v1"


# Tenants and clusters


class TenantCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/tenants``."""

    name: Name


class TenantUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/tenants/{id}``."""

    name: Name | UnsetType = UNSET


class TenantView(Struct, frozen=True, kw_only=True):
    """A tenant."""

    id: str
    name: str
    created_at: datetime


class TenantList(Struct, frozen=True, kw_only=True):
    """All tenants."""

    tenants: tuple[TenantView, ...]
    next_cursor: str | None = None


class ClusterCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/clusters``."""

    tenant_id: str
    name: Name
    network_cidr: str
    mode: Mode = "managed"
    provide_lighthouse: bool = False
    provide_relay: bool = True
    lighthouse_port: Port = 4242
    lighthouse_public_addresses: tuple[str, ...] = ()
    allowed_routes: tuple[str, ...] = RFC1918
    certificate_lifetime_s: Annotated[int, Meta(ge=60, le=157_680_000)] = 15_552_000
    supersede_grace_s: Annotated[int, Meta(ge=0, le=86_400)] = 600


class ClusterUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/clusters/{id}``; ``tenant_id``, ``mode`` and ``network_cidr`` are immutable."""

    name: Name | UnsetType = UNSET
    provide_lighthouse: bool | UnsetType = UNSET
    provide_relay: bool | UnsetType = UNSET
    lighthouse_port: Port | UnsetType = UNSET
    lighthouse_public_addresses: tuple[str, ...] | UnsetType = UNSET
    allowed_routes: tuple[str, ...] | UnsetType = UNSET
    certificate_lifetime_s: Annotated[int, Meta(ge=60, le=157_680_000)] | UnsetType = UNSET
    supersede_grace_s: Annotated[int, Meta(ge=0, le=86_400)] | UnsetType = UNSET


class CaView(Struct, frozen=True, kw_only=True):
    """The active certificate authority of a cluster."""

    fingerprint: str
    not_after: datetime
    phase: Literal["none", "prepared", "issued"]


class ClusterView(Struct, frozen=True, kw_only=True):
    """A cluster; ``nodes`` counts them."""

    id: str
    tenant_id: str
    name: str
    network_cidr: str
    mode: Mode
    provide_lighthouse: bool
    provide_relay: bool
    lighthouse_port: int
    lighthouse_public_addresses: tuple[str, ...]
    allowed_routes: tuple[str, ...]
    certificate_lifetime_s: int
    supersede_grace_s: int
    version: int
    nodes: int
    ca: CaView | None
    created_at: datetime


class ClusterList(Struct, frozen=True, kw_only=True):
    """All clusters that the caller may see."""

    clusters: tuple[ClusterView, ...]
    next_cursor: str | None = None


# Nodes


class NodeCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/nodes``."""

    name: Name
    role: Role = "member"
    mtu: Mtu = DEFAULT_MTU
    groups: Groups = ()
    overlay_ip: str | None = None
    listen_port: Port | None = None
    public_key: str | None = None


class NodeUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/nodes/{id}``; ``listen_port`` null means: the agent decides."""

    name: Name | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    mtu: Mtu | UnsetType = UNSET
    groups: Groups | UnsetType = UNSET
    overlay_ip: str | UnsetType = UNSET
    listen_port: Port | None | UnsetType = UNSET


class MtuUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/nodes/{id}/mtu``."""

    mtu: Mtu


class CertificateView(Struct, frozen=True, kw_only=True):
    """The certificate that a node's bundle carries."""

    fingerprint: str
    not_after: datetime


class NodeView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node. ``overlay_ip`` is in CIDR form; ``version`` the effective one; ``node_token`` only in the answer that made it."""

    id: str
    name: str
    role: Role
    overlay_ip: str | None
    mtu: int
    groups: tuple[str, ...]
    listen_port: int | None
    is_lighthouse: bool
    is_relay: bool
    public_addresses: tuple[str, ...]
    routes: tuple[str, ...]
    version: int
    applied_version: int | None
    state: State
    error: str | None
    nebula_version: str | None
    enrolled_at: datetime | None
    last_seen_at: datetime | None
    certificate: CertificateView | None
    created_at: datetime
    updated_at: datetime
    node_token: str | UnsetType = UNSET


class NodeQuery(Struct, frozen=True, kw_only=True):
    """The query of ``GET /api/v1/nodes``. ``cursor`` wins over ``page``."""

    page: int = 1
    page_size: int = 50
    cursor: str | None = None
    name: str | None = None
    group: str | None = None
    role: Role | None = None
    state: State | None = None
    sort: str = "name"


class NodePage(Struct, frozen=True, kw_only=True):
    """One page of nodes; ``total`` counts all that match."""

    nodes: tuple[NodeView, ...]
    total: int
    page: int
    page_size: int
    next_cursor: str | None


class NodeToken(Struct, frozen=True, kw_only=True):
    """``POST /api/v1/nodes/{id}/token``: shown once."""

    node_token: str


class LighthouseSet(Request, frozen=True, kw_only=True):
    """``PUT /api/v1/nodes/{id}/lighthouse``; addresses are ``ip:port``."""

    public_addresses: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]


class Routes(Request, frozen=True, kw_only=True):
    """Routes of one node, as IPv4 CIDRs; in both directions."""

    routes: Annotated[tuple[str, ...], Meta(max_length=256)]


class NodeRoutes(Struct, frozen=True, kw_only=True):
    """Routes of one node, with its name."""

    node_id: str
    name: str
    routes: tuple[str, ...]


class ClusterRoutes(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/routes/cluster``."""

    routes: tuple[NodeRoutes, ...]


class TopologyLighthouse(Struct, frozen=True, kw_only=True):
    """A lighthouse or relay; ``node_id`` None is the box's own."""

    node_id: str | None
    name: str
    overlay_ip: str
    public_addresses: tuple[str, ...]
    is_relay: bool


class Topology(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/topology``."""

    cluster_id: str
    version: int
    lighthouses: tuple[TopologyLighthouse, ...]
    relays: tuple[TopologyLighthouse, ...]
    routes: tuple[NodeRoutes, ...]


# The node's own calls


class Enroll(Request, frozen=True, kw_only=True):
    """``POST /api/v1/enroll``; ``public_key`` is PEM, NEBULA X25519 PUBLIC KEY."""

    name: Name
    public_key: Annotated[str, Meta(max_length=1024)]
    mtu: Mtu | None = None
    nebula_version: Annotated[str, Meta(max_length=64)] | None = None


class Enrolled(Struct, frozen=True, kw_only=True):
    """The answer to an enrolment; ``overlay_ip`` in CIDR form, ``signers`` base64 Ed25519 public keys."""

    node_id: str
    node_token: str
    tenant_id: str
    cluster_id: str
    cluster_name: str
    overlay_ip: str | None
    version: int
    signers: tuple[str, ...]
    servers: tuple[Server, ...]


class EffectiveVersion(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/config/version``."""

    version: int


class Report(Request, frozen=True, kw_only=True):
    """``POST /api/v1/report``."""

    applied_version: Amount
    state: ReportedState
    error: Annotated[str, Meta(max_length=2000)] | None = None
    nebula_version: Annotated[str, Meta(max_length=64)] | None = None
    lighthouse_reached: bool | None = None
    rss_bytes: Amount | None = None
    cpu_percent: Annotated[float, Meta(ge=0)] | None = None


class CertificateRequest(Request, frozen=True, kw_only=True):
    """``POST /api/v1/certificate``; PEM, NEBULA X25519 PUBLIC KEY."""

    public_key: Annotated[str, Meta(max_length=1024)]


class CertificateIssued(Struct, frozen=True, kw_only=True):
    """The answer to ``POST /api/v1/certificate``: the version whose bundle carries it."""

    version: int
    fingerprint: str
    not_after: datetime


# Credentials


class EnrolmentKeyCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/enrollment-keys``; ``uses`` null means unlimited."""

    uses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = 1
    expires_in_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 86_400
    groups: Groups = ()
    label: Label | None = None


class EnrolmentKeyView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An enrolment key; ``key`` only in the answer that made it."""

    id: str
    label: str | None
    uses: int | None
    used: int
    groups: tuple[str, ...]
    expires_at: datetime
    created_at: datetime
    key: str | UnsetType = UNSET


class EnrolmentKeyList(Struct, frozen=True, kw_only=True):
    """The enrolment keys of a cluster that are not revoked."""

    enrollment_keys: tuple[EnrolmentKeyView, ...]
    next_cursor: str | None = None


class ApiTokenCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/api-tokens``; without ``expires_in_s`` the token does not expire."""

    scopes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
    expires_in_s: Annotated[int, Meta(ge=1, le=315_360_000)] | None = None
    label: Label | None = None


class ApiTokenView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API token; ``token`` only in the answer that made it."""

    id: str
    label: str | None
    scopes: tuple[str, ...]
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    token: str | UnsetType = UNSET


class ApiTokenList(Struct, frozen=True, kw_only=True):
    """All API tokens."""

    api_tokens: tuple[ApiTokenView, ...]
    next_cursor: str | None = None


# Fleet and box


class RolloutCounts(Struct, frozen=True, kw_only=True):
    """Nodes by state; the four sum to ``total``."""

    total: int
    online: int
    behind: int
    failed: int
    offline: int


class RolloutBehind(Struct, frozen=True, kw_only=True):
    """A node that does not run its effective version, and since when."""

    id: str
    name: str
    version: int
    applied_version: int | None
    since: datetime | None


class Rollout(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/rollout``."""

    version: int
    nodes: RolloutCounts
    behind: tuple[RolloutBehind, ...]


class LighthouseList(Struct, frozen=True, kw_only=True):
    """The box's own lighthouses."""

    lighthouses: tuple[LighthouseStatus, ...]
    next_cursor: str | None = None


class Resources(Struct, frozen=True, kw_only=True):
    """``GET /api/v1/resources``: per series a list of ``[Unix seconds, value]``."""

    step_s: float
    series: dict[str, tuple[tuple[float, float], ...]]


class Health(Struct, frozen=True, kw_only=True):
    """``GET /health/ready``: one sentence per check, ``ok`` where all is well."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, str]
