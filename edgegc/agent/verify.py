"""Whether a downloaded bundle may be opened, and is what it claims to be. Pure; each refusal has its own sentence.

The order is the point: digest, signature over text built from our *own* ids, version, and only then the archive.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Error, Invalid
from edgegc.nebula import bundle, upload

if TYPE_CHECKING:
    from edgegc.agent.settings import Cluster
    from edgegc.client import Bundle

BODY_LIMIT_BYTES: Final = 10 * 1024 * 1024
"""What an admin may upload; a rendered bundle with 10,000 blocklisted certificates is < 1 MB."""
DIGEST_HEADER = re.compile(r"sha256:([0-9a-f]{64})")


class Refused(Error):
    """A bundle is not for this node, or not what it claims to be. Nothing of it was used."""

    code = "invalid_request"


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle whose signature is good, not opened yet."""

    version: int
    digest: str
    body: bytes


def accept(received: Bundle, *, cluster: Cluster, highest: int, highest_digest: str) -> Accepted:
    """Return the bundle as accepted, or raise Refused. The archive is not opened.

    ``highest`` and ``highest_digest``: of what was accepted before. Between this and :func:`open_bundle` the caller
    remembers the new highest durably.
    """
    announced = DIGEST_HEADER.fullmatch(received.digest)
    if announced is None or not received.version.isdecimal() or len(received.version) > 15:
        raise Refused("the bundle comes without its version or digest: this is not an answer of edgegc")
    version = int(received.version)
    digest = bundle.digest(received.body)
    if digest != announced[1]:
        raise Refused(
            f"the bundle was damaged on its way: its SHA-256 is {digest[:16]}…, {announced[1][:16]}… was announced"
        )
    try:
        bundle.verify(
            received.body,
            _signature(received),
            signers=bundle.parse_signers(cluster.signers),
            cluster_id=cluster.id,
            node_id=cluster.node_id,
            version=version,
        )
    except Invalid as error:
        raise Refused(error.message) from error
    if version < highest:
        raise Refused(
            f"version {version} is older than version {highest}, which this node has accepted before"
        )
    if version == highest and highest_digest and digest != highest_digest:
        raise Refused(
            f"version {version} has other contents than the version {version} that this node accepted before"
        )
    return Accepted(version=version, digest=digest, body=received.body)


def open_bundle(accepted: Accepted, *, cluster: Cluster) -> bundle.Unpacked:
    """Open an accepted archive. Refused where it is malformed, or its manifest names others than the signature did.

    An uploaded one has no manifest: it is opened for the very ids that its signature was verified with.
    """
    try:
        if cluster.mode == "uploaded":
            return upload.read(
                accepted.body, cluster_id=cluster.id, node_id=cluster.node_id, version=accepted.version
            )
        unpacked = bundle.read(accepted.body)
        bundle.check_ids(
            unpacked.manifest, cluster_id=cluster.id, node_id=cluster.node_id, version=accepted.version
        )
    except Error as error:
        raise Refused(f"version {accepted.version} is signed, but malformed: {error.message}") from error
    return unpacked


def _signature(received: Bundle) -> bytes:
    try:
        return base64.b64decode(received.signature, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("the bundle's signature is not base64: this is not an answer of edgegc") from None
