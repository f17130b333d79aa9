"""Bodies about clusters and their certificate authority."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import UNSET, Meta, Struct, UnsetType

from edgegc.model.cluster import Mode, RotationPhase
from edgegc.model.message.common import DISTINCT, RFC1918, Id, Name, Network, Port, PublicAddress, Request

PublicAddresses = Annotated[tuple[PublicAddress, ...], Meta(max_length=16, extra_json_schema=DISTINCT)]
AllowedRoutes = Annotated[tuple[Network, ...], Meta(max_length=64, extra_json_schema=DISTINCT)]


class ClusterCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/clusters``."""

    tenant_id: Id
    name: Name
    network_cidr: Network
    mode: Mode = "managed"
    provide_lighthouse: bool = False
    provide_relay: bool = True
    lighthouse_port: Port = 4242
    lighthouse_public_addresses: PublicAddresses = ()
    allowed_routes: AllowedRoutes = RFC1918
    certificate_lifetime_s: Annotated[int, Meta(ge=60, le=157_680_000)] = 15_552_000
    supersede_grace_s: Annotated[int, Meta(ge=0, le=86_400)] = 600


class ClusterUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/clusters/{id}``."""

    IMMUTABLE: ClassVar = ("tenant_id", "mode", "network_cidr")
    """What a cluster has and no PATCH can change; a request with one of them is told so."""

    name: Name | UnsetType = UNSET
    provide_lighthouse: bool | UnsetType = UNSET
    provide_relay: bool | UnsetType = UNSET
    lighthouse_port: Port | UnsetType = UNSET
    lighthouse_public_addresses: PublicAddresses | UnsetType = UNSET
    allowed_routes: AllowedRoutes | UnsetType = UNSET
    certificate_lifetime_s: Annotated[int, Meta(ge=60, le=157_680_000)] | UnsetType = UNSET
    supersede_grace_s: Annotated[int, Meta(ge=0, le=86_400)] | UnsetType = UNSET


class CaView(Struct, frozen=True, kw_only=True):
    """The active certificate authority of a cluster."""

    fingerprint: str
    not_after: datetime
    phase: RotationPhase


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
