"""From stored rows to what nebula runs with: bundles for nodes, specifications for the box's own lighthouses.

A pure function of the rows, the version and the renderer's revision: the same bundle has the same bytes after a
restart. Runs inside a read; knows no cache and no caller.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from edgegc.control import signing, topology_reading
from edgegc.model.bundle import UploadedBundle
from edgegc.model.lighthouse import LighthouseSpec
from edgegc.model.manifest import Server, signed_text
from edgegc.model.message import Topology
from edgegc.model.policy import Policy
from edgegc.model.version import effective_version
from edgegc.nebula import bundle, config, keys
from edgegc.store import authorities, bundles, certificates, clusters, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.model.cluster import Cluster
    from edgegc.model.node import Node
    from edgegc.store.vault import Vault

RESTART_STEP_S = 15
"""Restarts of a cluster's lighthouses and relays lie this far apart: relayed traffic gaps while one is away."""


MOST_CONFIGS = 16
"""Texts of one cluster that are kept between renderings: with thousands of routes one is a few hundred KB."""


class SignedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle as it is sent. ``digest`` is the lower-case hex SHA-256 of ``body``, ``signature`` base64."""

    body: bytes
    version: int
    digest: str
    signature: str


class SignedUpload(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded bundle as it is sent to a node: as :class:`SignedBundle`, but for the body, of ``size`` bytes, which
    stays in the store.
    """

    body_id: int
    size: int
    version: int
    digest: str
    signature: str


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """What the nodes of an uploaded cluster get, as of its ``wide_version``, and what signs it for each of them."""

    wide_version: int
    bundle: UploadedBundle
    signer_private: bytes

    def __repr__(self) -> str:
        """Show the version only: a traceback must not hold the signer's private key."""
        return f"Upload(wide_version={self.wide_version})"


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What all bundles of a cluster are made from, as of its ``wide_version``: nothing in it changes in between."""

    wide_version: int
    topology: Topology
    gateways: dict[str, str]
    blocklist: tuple[str, ...]
    ca_pem: str
    signers: tuple[bytes, ...]
    signer_private: bytes
    signer_since: int
    former_signer_private: bytes | None
    restart_delays_s: dict[str, int]
    configs: dict[tuple[int, tuple[str, ...], Policy], bytes]
    """By MTU, groups and policy, of nodes that the topology does not name: in a fleet nearly all have the same one."""

    def __repr__(self) -> str:
        """Show the version only: a traceback must not hold the signer's private key."""
        return f"Common(wide_version={self.wide_version})"

    def signer_for(self, applied_version: int | None) -> bytes:
        """Return the private key whose signature a node accepts.

        During a rotation a node that has not applied the version that names the new signer gets the replaced one's,
        which it trusts: so an agent that was away for a phase still follows. That lasts until the old signer is retired.
        """
        if self.former_signer_private is not None and (applied_version or 0) < self.signer_since:
            return self.former_signer_private
        return self.signer_private


def read_common(connection: sqlite3.Connection, vault: Vault, cluster: Cluster) -> Common:
    """Return what all bundles of a managed cluster are made from."""
    found = authorities.active_signer(connection, cluster.id)
    if found is None:
        raise AssertionError(f"cluster {cluster.id} has no signer")
    former = authorities.former_signer(connection, cluster.id)
    public = [node.id for node in nodes.topology(connection, cluster.id)]
    # The box's own lighthouse restarts at once, so it is the first in the row.
    first = int(cluster.provide_lighthouse)
    return Common(
        wide_version=cluster.wide_version,
        topology=topology_reading.read(connection, cluster),
        gateways=topology_reading.gateways(connection, cluster.id),
        blocklist=certificates.blocklist(connection, cluster.id),
        ca_pem=_ca_pem(connection, cluster.id),
        signers=tuple(signer.public_key for signer in authorities.signers(connection, cluster.id)),
        signer_private=signing.signer_private(vault, *found),
        signer_since=found[0].since_version,
        former_signer_private=None if former is None else signing.signer_private(vault, *former),
        restart_delays_s={node_id: RESTART_STEP_S * rank for rank, node_id in enumerate(public, first)},
        configs={},
    )


def node_bundle(
    node: Node, cluster: Cluster, common: Common, *, servers: tuple[Server, ...]
) -> SignedBundle | None:
    """Return a node's signed bundle of its effective version, or None while it can have none."""
    version = effective_version(
        own_version=node.own_version,
        wide_version=cluster.wide_version,
        has_bundle=node.certificate is not None,
    )
    if node.certificate is None:
        return None
    body = bundle.build(
        config=_config(node, cluster.policy, common),
        ca_pem=common.ca_pem,
        host_pem=node.certificate.pem,
        cluster_id=cluster.id,
        node_id=node.id,
        version=version,
        signers=common.signers,
        servers=servers,
        listen_port=node.listen_port,
        restart_delay_s=common.restart_delays_s.get(node.id, 0),
    )
    digest = bundle.digest(body)
    return SignedBundle(
        body=body,
        version=version,
        digest=digest,
        signature=_signature(common.signer_for(node.applied_version), node, version=version, digest=digest),
    )


def read_upload(connection: sqlite3.Connection, vault: Vault, cluster: Cluster) -> Upload | None:
    """Return what the nodes of an uploaded cluster get, or None before the first upload."""
    active = bundles.active(connection, cluster.id)
    if active is None:
        return None
    private = _signer_private(connection, vault, cluster.id)
    return Upload(wide_version=cluster.wide_version, bundle=active, signer_private=private)


def sign_upload(node: Node, upload: Upload) -> SignedUpload:
    """Return an uploaded bundle for one node: the same body for all, in the version that it has for this one."""
    version = effective_version(
        own_version=node.own_version, wide_version=upload.wide_version, has_bundle=True
    )
    digest = upload.bundle.digest
    return SignedUpload(
        body_id=upload.bundle.body_id,
        size=upload.bundle.size,
        version=version,
        digest=digest,
        signature=_signature(upload.signer_private, node, version=version, digest=digest),
    )


def lighthouse_spec(connection: sqlite3.Connection, vault: Vault, cluster: Cluster) -> LighthouseSpec | None:
    """Return what the box's own lighthouse of a cluster runs with, or None when it has no key or certificate."""
    box = clusters.lighthouse_key(connection, cluster.id)
    certificate = certificates.current_of_box(connection, cluster.id)
    if box is None or certificate is None:
        return None
    private = vault.unseal(signing.LIGHTHOUSE_PURPOSE, box, context=cluster.id)
    rendered = config.lighthouse_config(
        cluster=cluster,
        topology=topology_reading.read(connection, cluster),
        blocklist=certificates.blocklist(connection, cluster.id),
    )
    return LighthouseSpec(
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        version=max(cluster.wide_version, cluster.lighthouse_version),
        overlay_ip=certificate.overlay_ip,
        port=cluster.lighthouse_port,
        config=rendered,
        ca_pem=_ca_pem(connection, cluster.id),
        certificate_pem=certificate.pem,
        key_pem=keys.pem_x25519_private(private),
        fingerprint=certificate.fingerprint,
    )


def _config(node: Node, policy: Policy, common: Common) -> bytes:
    """Return the text of a node's configuration."""
    key = (node.mtu, node.groups, policy)
    is_named = node.is_lighthouse or node.is_relay or bool(node.routes)
    known = None if is_named else common.configs.get(key)
    if known is not None:
        return known
    text = config.dump(
        config.node_config(
            node=node,
            topology=common.topology,
            gateways=common.gateways,
            policy=policy,
            blocklist=common.blocklist,
        )
    )
    if not is_named:
        if len(common.configs) >= MOST_CONFIGS:
            common.configs.clear()
        common.configs[key] = text
    return text


def _signer_private(connection: sqlite3.Connection, vault: Vault, cluster_id: str) -> bytes:
    found = authorities.active_signer(connection, cluster_id)
    if found is None:
        raise AssertionError(f"cluster {cluster_id} has no signer")
    return signing.signer_private(vault, *found)


def _signature(private: bytes, node: Node, *, version: int, digest: str) -> str:
    text = signed_text(cluster_id=node.cluster_id, node_id=node.id, version=version, digest=digest)
    return base64.b64encode(bundle.sign(private, text)).decode()


def _ca_pem(connection: sqlite3.Connection, cluster_id: str) -> str:
    return "".join(authority.certificate_pem for authority in authorities.authorities(connection, cluster_id))
