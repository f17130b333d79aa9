"""A bundle that an admin made: what its archive must be, and what a node takes from it. Knows no HTTP and no store.

There is one bundle for all nodes of an uploaded cluster, kept and given out exactly as it came. So nothing in it is
mended here: it is looked through once, a piece at a time, before anything of it is kept.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Invalid, TooLarge
from edgegc.model.manifest import Manifest
from edgegc.nebula import archive
from edgegc.nebula.bundle import (
    AUTHORITIES,
    CERTIFICATE,
    CONFIG,
    FORMAT,
    MANIFEST,
    PRIVATE_KEY,
    Unpacked,
    digest,
)
from edgegc.nebula.yaml_check import check_mapping

if TYPE_CHECKING:
    from collections.abc import Callable

MIB: Final = 1024 * 1024
LIMITS: Final = {CONFIG: 2 * MIB, AUTHORITIES: MIB, CERTIFICATE: MIB, PRIVATE_KEY: MIB}
"""Files that nodes use, and how many bytes each may have: they are kept in memory here and there. A configuration that
blocks 10,000 certificates has 700 KB."""
_BANNERS: Final = {
    AUTHORITIES: re.compile(rb"^-----BEGIN NEBULA CERTIFICATE( V2)?-----\r?$", re.MULTILINE),
    CERTIFICATE: re.compile(rb"^-----BEGIN NEBULA CERTIFICATE( V2)?-----\r?$", re.MULTILINE),
    PRIVATE_KEY: re.compile(rb"^-----BEGIN NEBULA (X25519|P256) PRIVATE KEY-----\r?$", re.MULTILINE),
}
_KINDS: Final = {
    AUTHORITIES: "holds no nebula certificate",
    CERTIFICATE: "holds no nebula certificate",
    PRIVATE_KEY: "holds no private key of a nebula host",
}


def check(
    read: Callable[[int], bytes], *, limits: archive.Limits = archive.DEFAULT_LIMITS
) -> dict[str, bytes]:
    """Look through an archive that was uploaded; return those of its files that nodes use.

    ``read(size)`` returns the next bytes of it. Raises UnsupportedMedia when it is no gzip, Invalid with a sentence of
    its own for everything else that is wrong with it. Blocking, in bounded memory: under a second for the largest.
    """
    files: dict[str, bytes] = {}
    try:
        for entry in archive.scan(read, limits=limits):
            if entry.name == MANIFEST:
                raise Invalid(
                    f"the bundle holds a {MANIFEST}, as those have that edgegc renders; an uploaded one has none"
                )
            limit = LIMITS.get(entry.name)
            if limit is None:
                continue
            if entry.size > limit:
                raise Invalid(f"the bundle's {entry.name} has {entry.size} bytes, {limit} are allowed")
            files[entry.name] = b"".join(entry.pieces())
    except TooLarge as error:
        # The body has the size it may have; it is what is in it that is wrong.
        raise Invalid(error.message) from None
    for name in (CONFIG, AUTHORITIES):
        if name not in files:
            raise Invalid(f"the bundle has no {name}")
    check_mapping(files[CONFIG], name=f"the bundle's {CONFIG}")
    for name, banner in _BANNERS.items():
        if name in files and banner.search(files[name]) is None:
            raise Invalid(f"the bundle's {name} {_KINDS[name]}")
    if PRIVATE_KEY in files and CERTIFICATE not in files:
        raise Invalid(f"the bundle has a {PRIVATE_KEY}, but no {CERTIFICATE} that it could belong to")
    return files


def read(body: bytes, *, cluster_id: str, node_id: str, version: int) -> Unpacked:
    """Open an uploaded bundle on a node, for its own ids and the version that its signature was verified with.

    The manifest is made here, for there is none: it leaves open what a rendered one says, so a node keeps the servers
    and signers it has. Only what nodes use is taken. Raises as :func:`check` does.
    """
    files = check(io.BytesIO(body).read)
    manifest = Manifest(
        format=FORMAT,
        cluster_id=cluster_id,
        node_id=node_id,
        version=version,
        signers=(),
        servers=(),
        listen_port=None,
        restart_delay_s=0,
        files={name: digest(content) for name, content in sorted(files.items())},
    )
    return Unpacked(files={MANIFEST: msgspec.json.encode(manifest), **files}, manifest=manifest)
