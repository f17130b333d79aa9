"""Certificates on the node's own call: its first one, or one for a new key. Knows no expiry: that is housekeeping's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.control import existing, modes, node_changes
from edgegc.control.callers import node_only
from edgegc.control.nodes import public_key_of
from edgegc.control.versions import bump_nodes
from edgegc.model.message import CertificateIssued, rfc3339

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.model.message import CertificateRequest
    from edgegc.model.node import Certificate


async def issue(control: Control, caller: Caller, request: CertificateRequest) -> CertificateIssued:
    """Sign the calling node's public key: its first, or a new one, whose predecessor is then revoked after a grace.

    The key that it has already changes nothing: the answer names the certificate there is. Invalid; Unavailable while
    the clock is wrong.
    """
    node_id = node_only(caller)
    public_key = public_key_of(request.public_key)

    def job(write: Write) -> Certificate:
        node, cluster = existing.node(write.connection, node_id)
        modes.managed_only(cluster, "certificate")
        if node.certificate is not None and node.certificate.public_key == public_key:
            return node.certificate
        version = bump_nodes(write, cluster.id, (node.id,))
        node = node_changes.replace_certificate(
            write, cluster, node, public_key, version=version, blocklist=True
        )
        write.audit("certificate.issue", node_id)
        if node.certificate is None:
            raise AssertionError("a node that was just certified has a certificate")
        return node.certificate

    certificate = await control.write(caller, job)
    return CertificateIssued(
        version=control.roll.effective(node_id),
        fingerprint=certificate.fingerprint,
        not_after=rfc3339(certificate.not_after),
    )
