"""What a bundle is, and whether it holds together, by itself: without a server, a node, or its signature. Pure."""

from __future__ import annotations

import io
from datetime import datetime

import msgspec

from edgegc.errors import Invalid
from edgegc.model.cluster import Mode
from edgegc.model.message import rfc3339
from edgegc.nebula import archive, bundle, keys, upload
from edgegc.nebula.certificate import NebulaCertificate, parse_bundle_pem, verify


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a bundle; ``sha256`` in lower-case hex."""

    name: str
    size: int
    sha256: str


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate of a bundle; ``addresses`` and ``groups`` are a host's."""

    name: str
    fingerprint: str
    not_after: datetime
    addresses: tuple[str, ...]
    groups: tuple[str, ...]


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that holds together. ``mode``: of the cluster that it is for; ids and version only a rendered one has.

    ``authorities`` and ``certificate`` are None where they are of a kind that is not understood (version 2), the second
    one also where there is none.
    """

    mode: Mode
    digest: str
    size: int
    version: int | None
    cluster_id: str | None
    node_id: str | None
    files: tuple[File, ...]
    authorities: tuple[Certificate, ...] | None
    certificate: Certificate | None


def inspect(body: bytes, *, at: int) -> Inspected:
    """Return what a bundle is. Raises errors.Error with a sentence where it is none, or does not hold together.

    ``at``: when its certificates have to be valid, in Unix seconds. A signature is no part of a bundle: it is made for
    one node, and comes beside it.
    """
    read = io.BytesIO(body).read
    contents = {entry.name: b"".join(entry.pieces()) for entry in archive.scan(read)}
    manifest = None
    if bundle.MANIFEST in contents:
        manifest = bundle.read(body).manifest
    else:
        upload.check(io.BytesIO(body).read)
    authorities = _understood(contents[bundle.AUTHORITIES], strict=manifest is not None)
    own = None
    if bundle.CERTIFICATE in contents:
        found = _understood(contents[bundle.CERTIFICATE], strict=manifest is not None)
        own = found[0] if found else None
    if own is not None and authorities is not None:
        verify(own, authorities=authorities, at=at)
    if own is not None and bundle.PRIVATE_KEY in contents:
        _check_key(contents[bundle.PRIVATE_KEY], own)
    return Inspected(
        mode="uploaded" if manifest is None else "managed",
        digest=bundle.digest(body),
        size=len(body),
        version=None if manifest is None else manifest.version,
        cluster_id=None if manifest is None else manifest.cluster_id,
        node_id=None if manifest is None else manifest.node_id,
        files=tuple(
            File(name=name, size=len(content), sha256=bundle.digest(content))
            for name, content in contents.items()
        ),
        authorities=None if authorities is None else tuple(_shown(each) for each in authorities),
        certificate=None if own is None else _shown(own),
    )


def _understood(pem: bytes, *, strict: bool) -> list[NebulaCertificate] | None:
    try:
        return list(parse_bundle_pem(pem.decode()))
    except (Invalid, UnicodeDecodeError):
        if strict:
            raise
        return None


def _check_key(pem: bytes, certificate: NebulaCertificate) -> None:
    private = keys.parse_x25519_private(pem.decode(errors="replace"))
    if keys.x25519_public_of(private) != certificate.details.public_key:
        raise Invalid(f"the bundle's {bundle.PRIVATE_KEY} is not the key of its {bundle.CERTIFICATE}")


def _shown(certificate: NebulaCertificate) -> Certificate:
    details = certificate.details
    return Certificate(
        name=details.name,
        fingerprint=certificate.fingerprint,
        not_after=rfc3339(details.not_after),
        addresses=tuple(str(address) for address in details.ips),
        groups=tuple(details.groups),
    )
