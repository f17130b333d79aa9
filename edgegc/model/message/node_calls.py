"""Bodies of the node's own calls: enrolment, version check, report, certificate."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from edgegc.model.manifest import Server
from edgegc.model.message.common import Amount, Mtu, Name, PublicKey, Request
from edgegc.model.node import ReportedState


class Enroll(Request, frozen=True, kw_only=True):
    """``POST /api/v1/enroll``; ``public_key`` is PEM, NEBULA X25519 PUBLIC KEY.

    ``known_as``: ids of the nodes that the machine is already. Where one of them is in the key's cluster, the enrolment is
    refused with 409, and nothing is spent: a machine has one place in a cluster.
    """

    name: Name
    public_key: PublicKey
    mtu: Mtu | None = None
    nebula_version: Annotated[str, Meta(max_length=64)] | None = None
    known_as: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=64)] = ()


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

    public_key: PublicKey


class CertificateIssued(Struct, frozen=True, kw_only=True):
    """The answer to ``POST /api/v1/certificate``: the version whose bundle carries it."""

    version: int
    fingerprint: str
    not_after: datetime
