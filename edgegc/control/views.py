"""From stored nodes and clusters, with what is known in memory, to the bodies that callers see."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from edgegc.control.presence import Presence
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
from edgegc.model.version import effective_version
from edgegc.store import authorities, clusters

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from datetime import datetime

    from edgegc.control.control import Control
    from edgegc.model.bundle import UploadedBundle
    from edgegc.model.cluster import Authority, Cluster, Signer
    from edgegc.model.credential import EnrolmentKey
    from edgegc.model.node import Node, State
    from edgegc.model.tenant import Tenant


_NEW = Presence()
"""Of a node that nobody has heard of yet."""


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


def node_view(control: Control, node: Node, *, network_cidr: str) -> NodeView:
    """Return a node as callers see it: its row, its effective version, and what it last said of itself."""
    return _node_view(
        node,
        control.fleet.presence(node.id),
        network_cidr=network_cidr,
        version=control.roll.effective(node.id),
        state=control.fleet.state_of(node.id),
    )


def new_node_views(
    connection: sqlite3.Connection, cluster: Cluster, made: Sequence[tuple[Node, str]]
) -> tuple[NodeView, ...]:
    """Return nodes that are being made in this write, as callers see them once it is committed: each with its token and,
    in an uploaded cluster, with the signers that the machine has to know.
    """
    uploaded = cluster.mode == "uploaded"
    # What makes nodes concerns nobody else: the version that concerns all is what it was when the cluster was read.
    wide_version = (clusters.wide_version(connection, cluster.id) or 0) if uploaded else cluster.wide_version
    signers = signer_texts(authorities.signers(connection, cluster.id)) if uploaded else UNSET
    views = []
    for node, token in made:
        view = _node_view(
            node,
            _NEW,
            network_cidr=cluster.network_cidr,
            version=effective_version(
                own_version=node.own_version,
                wide_version=wide_version,
                has_bundle=uploaded or node.certificate is not None,
            ),
            state="offline",
            node_token=token,
            signers=signers,
        )
        views.append(view)
    return tuple(views)


def _node_view(
    node: Node,
    presence: Presence,
    *,
    network_cidr: str,
    version: int,
    state: State,
    node_token: str | UnsetType = UNSET,
    signers: tuple[str, ...] | UnsetType = UNSET,
) -> NodeView:
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
        version=version,
        applied_version=presence.applied_version,
        state=state,
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
        node_token=node_token,
        signers=signers,
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
