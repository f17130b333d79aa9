"""Signing: a cluster's authority and signer, and certificates for nodes and the box's lighthouse. Runs inside a write.

Private keys are sealed before they reach a row, each bound to the record that it belongs to. Knows no request.
"""

from __future__ import annotations

import functools
import hashlib
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from edgegc.control import wallclock
from edgegc.control.addresses import LIGHTHOUSE_OFFSET, stored_network
from edgegc.control.write import new_id
from edgegc.model.cluster import Authority, Signer
from edgegc.model.node import Certificate
from edgegc.nebula import certificate as codec
from edgegc.nebula import keys
from edgegc.store import authorities, certificates, clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster, KeyPhase
    from edgegc.model.node import Node
    from edgegc.store.vault import Vault

AUTHORITY_LIFETIME_S = 10 * 365 * 86_400
BACKDATE_S = 3600
"""NotBefore lies this far back: nodes whose clocks lag a little must not take a new certificate for a future one."""

RENEW_AFTER = 2 / 3
RENEW_JITTER = 0.05
"""A fleet that was enrolled in one hour is renewed over days, not in one hour."""

WORTHWHILE_GAIN = 0.1
"""A renewal must move the end by this part of the lifetime, or it is not made: near the authority's end it can't."""

BOX_NAME = "edgegc-lighthouse"
"""The name in the certificates of the box's own lighthouses."""

AUTHORITY_PURPOSE = "authority"
SIGNER_PURPOSE = "signer"
LIGHTHOUSE_PURPOSE = "lighthouse"

_parse_authority = functools.lru_cache(maxsize=64)(codec.parse_pem)


class _Hand(NamedTuple):
    """What signs a cluster's certificates."""

    authority: Authority
    ca: codec.NebulaCertificate
    private: bytes

    def __repr__(self) -> str:
        """Show the authority only: a traceback must not hold its private key."""
        return f"_Hand({self.authority.id})"


def make_authority(
    write: Write, cluster: Cluster, *, phase: KeyPhase = "active", version: int = 0
) -> Authority:
    """Make an authority of a cluster: its first, or the next. Unavailable while the clock is not to be trusted."""
    wallclock.require_trust(write.connection, write.now)
    key = keys.generate_ed25519()
    certificate = codec.self_sign(
        name=cluster.name,
        key=key,
        not_before=write.now - BACKDATE_S,
        not_after=write.now + AUTHORITY_LIFETIME_S,
    )
    authority = Authority(
        id=new_id(),
        cluster_id=cluster.id,
        fingerprint=certificate.fingerprint,
        certificate_pem=certificate.pem(),
        phase=phase,
        not_after=certificate.details.not_after,
        created_at=write.now,
        phase_version=version,
    )
    box = write.vault.seal(AUTHORITY_PURPOSE, key.private, context=authority.id)
    authorities.insert_authority(write.connection, authority, private_key=box)
    return authority


def make_signer(write: Write, cluster_id: str, *, phase: KeyPhase = "active", version: int = 0) -> Signer:
    """Make a bundle signer of a cluster: its first, or the next."""
    key = keys.generate_ed25519()
    signer = Signer(
        id=new_id(),
        cluster_id=cluster_id,
        public_key=key.public,
        phase=phase,
        created_at=write.now,
        since_version=version,
    )
    box = write.vault.seal(SIGNER_PURPOSE, key.private, context=signer.id)
    authorities.insert_signer(write.connection, signer, private_key=box)
    return signer


def turn(write: Write, cluster_id: str, *, version: int) -> None:
    """Let the next authority and the next signer sign from now on; the ones that did stay trusted."""
    authorities.turn(write.connection, cluster_id, version=version)
    write.forget(_hand_key(cluster_id))


def signer_private(vault: Vault, signer: Signer, box: bytes) -> bytes:
    """Return the private key of a bundle signer."""
    return vault.unseal(SIGNER_PURPOSE, box, context=signer.id)


def require_hand(write: Write, cluster_id: str) -> None:
    """See that certificates can be signed, before anything is changed. Unavailable while the clock is not to be trusted."""
    _taken_up(write, cluster_id)


def certify_node(write: Write, cluster: Cluster, node: Node, public_key: bytes) -> Certificate:
    """Sign a node's public key for what the node is now. Unavailable while the clock is not to be trusted."""
    if node.overlay_ip is None:
        raise AssertionError(f"node {node.id} of a managed cluster has no address")
    return _certify(
        write,
        cluster,
        node_id=node.id,
        name=node.name,
        address=IPv4Address(node.overlay_ip),
        subnets=node.routes,
        groups=node.groups,
        public_key=public_key,
    )


def certify_box(write: Write, cluster: Cluster) -> Certificate:
    """Sign the key of the box's own lighthouse, which is made when there is none yet."""
    box = clusters.lighthouse_key(write.connection, cluster.id)
    if box is None:
        key = keys.generate_x25519()
        public = key.public
        clusters.set_lighthouse_key(
            write.connection,
            cluster.id,
            write.vault.seal(LIGHTHOUSE_PURPOSE, key.private, context=cluster.id),
        )
    else:
        public = keys.x25519_public_of(write.vault.unseal(LIGHTHOUSE_PURPOSE, box, context=cluster.id))
    return _certify(
        write,
        cluster,
        node_id=None,
        name=BOX_NAME,
        address=stored_network(cluster.network_cidr)[LIGHTHOUSE_OFFSET],
        subnets=(),
        groups=(),
        public_key=public,
    )


def renew_at(*, issued_at: int, not_after: int, subject: str) -> int:
    """Return when a certificate is due to be signed again: at ⅔ of its life ± 5 % by the hash of its subject's id."""
    spread = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:4]) / 0xFFFF_FFFF * 2 - 1
    return issued_at + int((not_after - issued_at) * RENEW_AFTER * (1 + RENEW_JITTER * spread))


def worth_renewing(certificate: Certificate, cluster: Cluster, authority: Authority, *, now: int) -> bool:
    """Whether signing again now would move a certificate's end by enough, or it was made by a clock that was ahead."""
    if certificate.issued_at > now:
        return True
    not_after = min(now + cluster.certificate_lifetime_s, authority.not_after)
    return not_after - certificate.not_after >= cluster.certificate_lifetime_s * WORTHWHILE_GAIN


def _certify(
    write: Write,
    cluster: Cluster,
    *,
    node_id: str | None,
    name: str,
    address: IPv4Address,
    subnets: Sequence[str],
    groups: Sequence[str],
    public_key: bytes,
) -> Certificate:
    authority, ca, ca_private = _taken_up(write, cluster.id)
    not_before = max(write.now - BACKDATE_S, ca.details.not_before)
    not_after = min(write.now + cluster.certificate_lifetime_s, authority.not_after)
    while True:
        signed = codec.sign(
            ca=ca,
            ca_private=ca_private,
            name=name,
            overlay=IPv4Interface((address, stored_network(cluster.network_cidr).prefixlen)),
            subnets=[IPv4Network(subnet) for subnet in subnets],
            groups=groups,
            not_before=not_before,
            not_after=not_after,
            public_key=public_key,
        )
        fingerprint = signed.fingerprint
        if not certificates.fingerprint_known(write.connection, cluster.id, fingerprint):
            break
        # A change that was undone within the second: the same certificate again, which may be blocklisted by now.
        not_after -= 1
    certificate = Certificate(
        fingerprint=fingerprint,
        cluster_id=cluster.id,
        node_id=node_id,
        authority_id=authority.id,
        public_key=public_key,
        overlay_ip=str(address),
        pem=signed.pem(),
        state="current",
        issued_at=write.now,
        not_before=not_before,
        not_after=not_after,
        renew_at=renew_at(issued_at=write.now, not_after=not_after, subject=node_id or cluster.id),
        blocklist_at=None,
        superseded_in=None,
    )
    certificates.insert(write.connection, certificate)
    return certificate


def _taken_up(write: Write, cluster_id: str) -> _Hand:
    # A batch signs a thousand: what signs is read once.
    return write.remember(_hand_key(cluster_id), lambda: _hand(write, cluster_id))


def _hand_key(cluster_id: str) -> str:
    return f"hand {cluster_id}"


def _hand(write: Write, cluster_id: str) -> _Hand:
    """Return what signs for a cluster now. Unavailable while the clock is not to be trusted."""
    wallclock.require_trust(write.connection, write.now)
    found = authorities.active_authority(write.connection, cluster_id)
    if found is None:
        raise AssertionError(f"managed cluster {cluster_id} has no authority")
    authority, box = found
    private = write.vault.unseal(AUTHORITY_PURPOSE, box, context=authority.id)
    return _Hand(authority, _parse_authority(authority.certificate_pem), private)
