"""The server's TLS: a self-signed certificate over a key that is kept, the pin agents check, the SSL context.

Knows nothing of HTTP. The key outlives its certificates, so the pin stays when a certificate is remade.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import secrets
import ssl
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgegc import errors

VALIDITY_DAYS: Final = 3650
"""Agents check the pin, not the dates; a person's browser wants dates that hold for the life of an appliance."""
REMAKE_DAYS: Final = 365
"""A certificate with less than this left is remade at the next start."""
BACKDATE_DAYS: Final = 1
"""Boxes without a clock battery start in the past of their clients."""
ALPN: Final = ["http/1.1"]
"""HTTP/2 is not spoken: no client of ours gains by it, and it is a second parser to defend."""


class Identity(msgspec.Struct, frozen=True):
    """Where the server's key and certificate are, and the pin: hex SHA-256 of the SubjectPublicKeyInfo."""

    certificate: Path
    key: Path
    pin: str


def pin_of(certificate: x509.Certificate) -> str:
    """Return the pin of a certificate: lower-case hex SHA-256 of its SubjectPublicKeyInfo."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def self_signed(directory: Path, *, names: tuple[str, ...], now: int) -> Identity:
    """Return the identity kept in ``directory``, made or remade where needed. Blocking: called at start only.

    :param directory: made with mode 0700 when missing; holds ``key.pem`` (0600) and ``certificate.pem``.
    :param names: host names and IP addresses the certificate should name; other names than before remake it.
    :param now: Unix seconds.
    :raises errors.Invalid: ``key.pem`` exists but is not a P-256 private key: it is never overwritten, for
        every agent out there has pinned it.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    key_path, certificate_path = directory / "key.pem", directory / "certificate.pem"
    if key_path.exists():
        key = _load_key(key_path)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(
            key_path,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            mode=0o600,
        )
    certificate = _load_usable(certificate_path, key=key, names=names, now=now)
    if certificate is None:
        certificate = _make(key, names=names, now=now)
        _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return Identity(certificate_path, key_path, pin_of(certificate))


def from_files(certificate: Path | None, key: Path | None) -> Identity:
    """Return the identity made of the operator's own files.

    :raises errors.Invalid: one of the two is not set, can't be read, or is no PEM.
    """
    if certificate is None or key is None:
        raise errors.Invalid('tls.mode is "files", so both tls.certificate and tls.key must be set')
    try:
        first = x509.load_pem_x509_certificate(certificate.read_bytes())
        key.open("rb").close()
    except (OSError, ValueError) as error:
        raise errors.Invalid(f"tls.certificate and tls.key can't be used: {error}") from error
    return Identity(certificate, key, pin_of(first))


def context(identity: Identity) -> ssl.SSLContext:
    """Return a server context: TLS 1.2 or newer, HTTP/1.1 only. ``reload`` swaps its certificate.

    :raises errors.Invalid: key and certificate do not belong together.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_alpn_protocols(ALPN)
    reload(made, identity)
    return made


def reload(context: ssl.SSLContext, identity: Identity) -> None:
    """Load an identity into a context in use: connections made from now on see it.

    :raises errors.Invalid: key and certificate do not belong together; the context keeps what it had.
    """
    try:
        # On another context first: one that refuses a pair may have lost the one that it had.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(identity.certificate, identity.key)
        context.load_cert_chain(identity.certificate, identity.key)
    except (OSError, ssl.SSLError) as error:
        raise errors.Invalid(
            f"TLS certificate {identity.certificate} and key {identity.key} can't be used: {error}"
        ) from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise errors.Invalid(f"{path} can't be read as a private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise errors.Invalid(f"{path} is not an ECDSA P-256 private key")
    return key


def _load_usable(
    path: Path, *, key: ec.EllipticCurvePrivateKey, names: tuple[str, ...], now: int
) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None
    remake_at = certificate.not_valid_after_utc - datetime.timedelta(days=REMAKE_DAYS)
    fits = (
        certificate.public_key() == key.public_key()
        and set(named) == set(_alternative_names(names))
        and certificate.not_valid_before_utc <= _moment(now) < remake_at
    )
    return certificate if fits else None


def _make(key: ec.EllipticCurvePrivateKey, *, names: tuple[str, ...], now: int) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgegc")])
    moment = _moment(now)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(secrets.randbits(128) | 1)
        .not_valid_before(moment - datetime.timedelta(days=BACKDATE_DAYS))
        .not_valid_after(moment + datetime.timedelta(days=VALIDITY_DAYS))
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _alternative_names(names: tuple[str, ...]) -> list[x509.GeneralName]:
    made: list[x509.GeneralName] = []
    for name in dict.fromkeys(("localhost", *names)):
        try:
            made.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            made.append(x509.DNSName(name.encode("idna").decode("ascii")))
    return made


def _moment(now: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now, datetime.UTC)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Put a file in place complete and durable: an agent's pin must survive a power cut right after it was shown."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
