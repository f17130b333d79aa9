"""Bodies about nodes, as an administrator makes, changes and lists them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from edgegc.model.message.common import (
    DEFAULT_MTU,
    DISTINCT,
    Groups,
    Mtu,
    Name,
    OverlayAddress,
    Port,
    PublicAddress,
    PublicKey,
    Request,
)
from edgegc.model.node import Role, State


class NodeCreate(Request, frozen=True, kw_only=True):
    """``POST /api/v1/nodes``."""

    name: Name
    role: Role = "member"
    mtu: Mtu = DEFAULT_MTU
    groups: Groups = ()
    overlay_ip: OverlayAddress | None = None
    listen_port: Port | None = None
    public_key: PublicKey | None = None


class NodeBatch(Request, frozen=True, kw_only=True):
    """``POST /api/v1/nodes/batch``: all of them are made, or none."""

    nodes: Annotated[tuple[NodeCreate, ...], Meta(min_length=1, max_length=1000)]


class NodeUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/nodes/{id}``; ``listen_port`` null means: the agent decides."""

    name: Name | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    mtu: Mtu | UnsetType = UNSET
    groups: Groups | UnsetType = UNSET
    overlay_ip: OverlayAddress | UnsetType = UNSET
    listen_port: Port | None | UnsetType = UNSET


class MtuUpdate(Request, frozen=True, kw_only=True):
    """``PATCH /api/v1/nodes/{id}/mtu``."""

    mtu: Mtu


class CertificateView(Struct, frozen=True, kw_only=True):
    """The certificate that a node's bundle carries."""

    fingerprint: str
    not_after: datetime


class NodeView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node. ``overlay_ip`` is in CIDR form; ``version`` the effective one; ``node_token`` only in the answer that made it,
    there with ``signers`` (base64 Ed25519 public keys) in an uploaded cluster: whoever sets such a node up by hand pins them.
    """

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
    signers: tuple[str, ...] | UnsetType = UNSET


class NodesCreated(Struct, frozen=True, kw_only=True):
    """The answer to ``POST /api/v1/nodes/batch``: the nodes in the order asked for, each with its token, shown once."""

    nodes: tuple[NodeView, ...]


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

    public_addresses: Annotated[
        tuple[PublicAddress, ...], Meta(min_length=1, max_length=16, extra_json_schema=DISTINCT)
    ]
