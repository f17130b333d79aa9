"""From stored nodes and clusters, with what is known in memory, to the bodies that callers see. Reads no rows."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from msgspec import UNSET

from edgegc.model.cluster import rotation_phase
from edgegc.model.message import (
    BundleView,
    CaView,
    CertificateView,
    ClusterView,
    EnrolmentKeyView,
    NodeView,
    TenantView,
    rfc3339,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from edgegc.control.control import Control
    from edgegc.model.bundle import UploadedBundle
    from edgegc.model.cluster import Authority, Cluster, Signer
    from edgegc.model.credential import EnrolmentKey
    from edgegc.model.node import Node
    from edgegc.model.tenant import Tenant


def tenant_view(tenant: Tenant) -> TenantView:
    """Return a tenant as callers see it."""
    return TenantView(id=tenant.id, name=tenant.name, created_at=rfc3339(tenant.created_at))


def cluster_view(cluster: Cluster, authorities: Sequence[Authority]) -> ClusterView:
    """Return a cluster as callers see it, with the one of its authorities that signs."""
    authority = next((each for each in authorities if each.phase == "active"), None)
    return ClusterView(
        id=cluster.id,
        tenant_id=cluster.tenant_id,
        name=cluster.name,
        network_cidr=cluster.network_cidr,
        mode=cluster.mode,
        provide_lighthouse=cluster.provide_lighthouse,
        provide_relay=cluster.provide_relay,
        lighthouse_port=cluster.lighthouse_port,
        lighthouse_public_addresses=cluster.lighthouse_public_addresses,
        allowed_routes=cluster.allowed_routes,
        certificate_lifetime_s=cluster.certificate_lifetime_s,
        supersede_grace_s=cluster.supersede_grace_s,
        version=cluster.version,
        nodes=cluster.node_count,
        ca=None
        if authority is None
        else CaView(
            fingerprint=authority.fingerprint,
            not_after=rfc3339(authority.not_after),
            phase=rotation_phase(authorities),
        ),
        created_at=rfc3339(cluster.created_at),
    )


def node_view(
    control: Control,
    node: Node,
    *,
    network_cidr: str,
    token: str | None = None,
    signers: Sequence[Signer] | None = None,
) -> NodeView:
    """Return a node as callers see it: its row, its effective version, and what it last said of itself.

    ``token`` and ``signers`` are for the answer that made it.
    """
    presence = control.fleet.presence(node.id)
    return NodeView(
        id=node.id,
        name=node.name,
        role=node.role,
        overlay_ip=overlay_cidr(node.overlay_ip, network_cidr),
        mtu=node.mtu,
        groups=node.groups,
        listen_port=node.listen_port,
        is_lighthouse=node.is_lighthouse,
        is_relay=node.is_relay,
        public_addresses=node.public_addresses,
        routes=node.routes,
        version=control.roll.effective(node.id),
        applied_version=presence.applied_version,
        state=control.fleet.state_of(node.id),
        error=presence.error,
        nebula_version=presence.nebula_version,
        enrolled_at=_time(node.enrolled_at),
        last_seen_at=_time(presence.last_seen_at),
        certificate=None
        if node.certificate is None
        else CertificateView(
            fingerprint=node.certificate.fingerprint, not_after=rfc3339(node.certificate.not_after)
        ),
        created_at=rfc3339(node.created_at),
        updated_at=rfc3339(node.updated_at),
        node_token=UNSET if token is None else token,
        signers=UNSET if signers is None else signer_texts(signers),
    )


def signer_texts(signers: Sequence[Signer]) -> tuple[str, ...]:
    """Return bundle signers as agents pin them: base64 of the raw public keys."""
    return tuple(base64.b64encode(signer.public_key).decode() for signer in signers)


def key_view(key: EnrolmentKey, *, text: str | None = None) -> EnrolmentKeyView:
    """Return an enrolment key as callers see it; ``text`` is the key itself, shown once."""
    return EnrolmentKeyView(
        id=key.id,
        label=key.label,
        uses=key.uses,
        used=key.used,
        groups=key.groups,
        expires_at=rfc3339(key.expires_at),
        created_at=rfc3339(key.created_at),
        key=UNSET if text is None else text,
    )


def bundle_view(bundle: UploadedBundle, *, active: bool) -> BundleView:
    """Return an uploaded bundle as callers see it."""
    return BundleView(
        version=bundle.version,
        digest=bundle.digest,
        size=bundle.size,
        uploaded_at=rfc3339(bundle.uploaded_at),
        active=active,
    )


def overlay_cidr(overlay_ip: str | None, network_cidr: str) -> str | None:
    """Return an overlay address with its network's prefix length."""
    return None if overlay_ip is None else f"{overlay_ip}/{network_cidr.partition('/')[2]}"


def _time(at: int | None) -> datetime | None:
    return None if at is None else rfc3339(at)
