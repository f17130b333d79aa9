"""The bundle that a node downloads: building, signing, verifying, reading and laying down. Knows no HTTP and no store.

A managed bundle holds ``config.yml``, ``ca.crt``, ``host.crt`` and ``manifest.json``, never a private key. Whoever
reads one verifies its signature first and opens the archive second: see :func:`verify` and :func:`read`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import zlib
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgegc.errors import Conflict, Invalid
from edgegc.model.manifest import Manifest, Server, signed_text
from edgegc.nebula import archive, keys
from edgegc.nebula.config import RENDERER_REVISION
from edgegc.nebula.files import fsync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT = 1
"""The version of ``manifest.json``. A higher one means something that this code can't know."""

MANIFEST = "manifest.json"
CONFIG = "config.yml"
AUTHORITIES = "ca.crt"
CERTIFICATE = "host.crt"
PRIVATE_KEY = "host.key"
MAX_RESTART_DELAY_S = 86_400
"""A manifest may make a node wait before a restart, but not for ever. At 15 s for each lighthouse or relay: 5,760."""

RENDERING = f"{RENDERER_REVISION}/{zlib.ZLIB_RUNTIME_VERSION}"
"""What a bundle's bytes depend on beside stored rows and the version. An agent never takes one version with two digests,
so a start with another value than the stored one has to bump every cluster."""


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that is consistent in itself: ``files`` are ``manifest.json`` and just those that it describes."""

    files: dict[str, bytes]
    manifest: Manifest


def build(
    *,
    config: bytes,
    ca_pem: str,
    host_pem: str,
    cluster_id: str,
    node_id: str,
    version: int,
    signers: Sequence[bytes],
    servers: Sequence[Server],
    listen_port: int | None,
    restart_delay_s: int,
) -> bytes:
    """Return the bytes of a managed bundle: a pure function of its arguments and :data:`RENDERING`.

    ``signers`` are raw Ed25519 public keys. ``restart_delay_s`` is in seconds.
    """
    files = {CONFIG: config, AUTHORITIES: ca_pem.encode(), CERTIFICATE: host_pem.encode()}
    manifest = Manifest(
        format=FORMAT,
        cluster_id=cluster_id,
        node_id=node_id,
        version=version,
        signers=tuple(base64.b64encode(signer).decode("ascii") for signer in signers),
        servers=tuple(servers),
        listen_port=listen_port,
        restart_delay_s=restart_delay_s,
        files={name: digest(content) for name, content in sorted(files.items())},
    )
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    return archive.pack({MANIFEST: text, **files}, comment=_label(cluster_id, node_id, version))


def digest(body: bytes) -> str:
    """Return the lower-case hex SHA-256 of a complete body."""
    return hashlib.sha256(body).hexdigest()


def sign(private: bytes, text: bytes) -> bytes:
    """Return the Ed25519 signature (64 bytes) of a signed text, with a 64-byte private key."""
    return keys.ed25519_signing_key(private).sign(text)


def verify(
    body: bytes, signature: bytes, *, signers: Sequence[bytes], cluster_id: str, node_id: str, version: int
) -> None:
    """Raise :class:`Invalid` unless one of the signers signed exactly this body for exactly this node and version.

    ``signers`` are raw Ed25519 public keys, the ids those of whoever asks; so a bundle that was signed for somebody
    else, or as another version, fails here like one that was forged. Do this before anything looks into the body;
    the sentence of a refusal comes from the label on its outside.
    """
    text = signed_text(cluster_id=cluster_id, node_id=node_id, version=version, digest=digest(body))
    for signer in signers:
        try:
            Ed25519PublicKey.from_public_bytes(signer).verify(signature, text)
        except (InvalidSignature, ValueError):
            continue
        return
    raise Invalid(_why_refused(body, cluster_id=cluster_id, node_id=node_id, version=version))


def parse_signers(texts: Sequence[str]) -> tuple[bytes, ...]:
    """Return the raw keys of base64 ``signers``; :class:`Invalid` if there are none or one of them is broken."""
    if not texts:
        raise Invalid("a list of signers can't be empty: no later bundle could ever be accepted")
    signers = []
    for text in texts:
        try:
            signer = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            signer = b""
        if len(signer) != keys.KEY_BYTES:
            raise Invalid("a signer is not the base64 form of an Ed25519 public key")
        signers.append(signer)
    return tuple(signers)


def read(body: bytes, *, limits: archive.Limits = archive.DEFAULT_LIMITS) -> Unpacked:
    """Open a managed bundle; :class:`errors.Error` with a sentence for each thing that can be wrong with it."""
    files = archive.unpack(body, limits=limits)
    if MANIFEST not in files:
        raise Invalid(f"the bundle has no {MANIFEST}")
    manifest = _parse_manifest(files[MANIFEST])
    for name in (CONFIG, AUTHORITIES, CERTIFICATE):
        if name not in files:
            raise Invalid(f"the bundle has no {name}")
    if PRIVATE_KEY in files:
        raise Invalid(f"the bundle holds a {PRIVATE_KEY}: private keys are born on the node and stay there")
    for name in manifest.files:
        if name not in files:
            raise Invalid(f"the bundle has no {name}, which its manifest lists")
    for name in files.keys() - {MANIFEST}:
        if name not in manifest.files:
            raise Invalid(f"the bundle holds {name}, which its manifest does not list")
        if digest(files[name]) != manifest.files[name]:
            raise Invalid(f"the bundle's {name} is not the one that its manifest describes")
        if "/" in name:
            raise Invalid(f"the bundle holds {name} in a directory: a managed bundle has none")
    return Unpacked(files=files, manifest=manifest)


def check_ids(manifest: Manifest, *, cluster_id: str, node_id: str, version: int) -> None:
    """Raise :class:`Invalid` unless a manifest repeats the ids and the version that its signature was verified with."""
    for what, found, expected in (
        ("cluster", manifest.cluster_id, cluster_id),
        ("node", manifest.node_id, node_id),
        ("version", manifest.version, version),
    ):
        if found != expected:
            raise Invalid(f"the bundle's manifest is for {what} {found}, this is {expected}")


def lay_down(unpacked: Unpacked, directory: Path) -> None:
    """Write the files into a new directory (0700, files 0600), durably: all of it or nothing.

    A crash leaves at most a hidden ``.<name>.partial`` beside it, which the next call clears away. If the directory is
    there already with just these contents (the crash came later), nothing happens; with others: :class:`Conflict`.
    Blocking; raises OSError.
    """
    if directory.exists():
        if all(_content(directory / name) == content for name, content in unpacked.files.items()):
            return
        raise Conflict(f"{directory} holds another bundle already")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    for name, content in unpacked.files.items():
        descriptor = os.open(
            partial / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    fsync_directory(partial)
    partial.rename(directory)
    fsync_directory(directory.parent)


def _label(cluster_id: str, node_id: str, version: int) -> str:
    """What stands on the outside of a bundle, so that a refusal can say what arrived. It proves nothing."""
    return f"edgegc bundle {cluster_id} {node_id} {version}"


_LABEL = re.compile(r"edgegc bundle ([0-9a-f-]{36}) ([0-9a-f-]{36}) ([0-9]{1,18})")


def _why_refused(body: bytes, *, cluster_id: str, node_id: str, version: int) -> str:
    label = _LABEL.fullmatch(archive.comment_of(body) or "")
    if label is None:
        return "what arrived is no bundle of edgegc's: no trusted signer made it"
    if label[1] != cluster_id:
        return f"the bundle was made for another cluster ({label[1]})"
    if label[2] != node_id:
        return f"the bundle was made for another node ({label[2]})"
    if int(label[3]) != version:
        return f"the bundle was made as version {label[3]} and offered as version {version}"
    return (
        "no trusted signer made this bundle: it was signed by somebody else, or changed on the way; if the cluster's CA "
        "was rotated while this machine was away, delete its node and join again"
    )


def _parse_manifest(text: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"the bundle's {MANIFEST} is not understood: {error}") from None
    if manifest.format != FORMAT:
        raise Invalid(
            f"the bundle has format {manifest.format}, this edgegc knows {FORMAT}: update edgegc on this machine"
        )
    parse_signers(manifest.signers)
    if manifest.listen_port is not None and not 0 < manifest.listen_port <= 65535:
        raise Invalid(f"the bundle's {MANIFEST} has the listen_port {manifest.listen_port}")
    if not 0 <= manifest.restart_delay_s <= MAX_RESTART_DELAY_S:
        raise Invalid(f"the bundle's {MANIFEST} has the restart_delay_s {manifest.restart_delay_s}")
    return manifest


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
