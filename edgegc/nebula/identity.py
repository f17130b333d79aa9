"""Which certificates a configuration points to, by fingerprint, as they are on disk. Reads files, verifies nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgegc.errors import Invalid
from edgegc.nebula import certificate
from edgegc.nebula.executable import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

_CERTIFICATE = re.compile(
    r"-----BEGIN NEBULA CERTIFICATE( V2)?-----\s*(.*?)\s*-----END NEBULA CERTIFICATE( V2)?-----", re.DOTALL
)


def fingerprints(pem: str) -> tuple[str, ...]:
    """Return the fingerprint (lower-case hex SHA-256 of the body) of every certificate in a PEM text, in order."""
    found = []
    for match in _CERTIFICATE.finditer(pem):
        try:
            found.append(hashlib.sha256(base64.b64decode(match[2], validate=False)).hexdigest())
        except binascii.Error:
            continue
    return tuple(found)


class Identity(NamedTuple):
    """The host certificate at ``pki.cert``: its fingerprint, and what it speaks for (None: not version 1, or none there)."""

    fingerprint: str | None
    addresses: tuple[str, ...] | None
    subnets: tuple[str, ...] | None


def host(config: Mapping[str, object]) -> Identity:
    """Return who nebula will be with this configuration. Raises :class:`ApplyFailed` if the file can't be read."""
    pem = _pki(config, "cert")
    fingerprint = next(iter(fingerprints(pem)), None)
    try:
        details = certificate.parse_pem(pem).details
    except Invalid:
        return Identity(fingerprint, None, None)
    return Identity(fingerprint, tuple(map(str, details.ips)), tuple(map(str, details.subnets)))


def authorities(config: Mapping[str, object]) -> tuple[str, ...]:
    """Return the fingerprints of the CA certificates at ``pki.ca``. Raises :class:`ApplyFailed`."""
    return fingerprints(_pki(config, "ca"))


def stamp(config_path: Path, config: Mapping[str, object]) -> str:
    """Return what changes with any byte that nebula reads: the file at ``config_path``, and certificates and key of ``config``.

    Not for people; files that can't be read count as such. It is a digest of a digest where the key is concerned.
    """
    whole = hashlib.sha256(_digest(config_path))
    section = config.get("pki")
    for key in ("ca", "cert", "key"):
        value = section.get(key) if isinstance(section, dict) else None
        inline = not isinstance(value, str) or "-----BEGIN" in value  # then it is in the file
        whole.update(b"" if inline else _digest(Path(str(value))))
    return whole.hexdigest()


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return str(error.errno).encode()


def _pki(config: Mapping[str, object], key: str) -> str:
    section = config.get("pki")
    value = section.get(key) if isinstance(section, dict) else None
    if not isinstance(value, str):
        return ""
    if "-----BEGIN" in value:
        return value  # nebula takes PEM text in place of a path
    try:
        return Path(value).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ApplyFailed(f"pki.{key} can't be read: {value}: {error.strerror}") from error
