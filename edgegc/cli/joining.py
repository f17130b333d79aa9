"""What a machine needs to join: the server's URL, its pin, a key; and the command line made of them.

Knows no command; reads the server's own settings and certificate where the command line names no URL.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

from edgegc.cli.failure import Failure

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.cli.options import Common
    from edgegc.settings import Settings


class JoinTarget(NamedTuple):
    """Where nodes reach the server, and the pin of its key (None: a certificate that systems trust, or clear text)."""

    url: str
    pin: str | None


def join_target(common: Common) -> JoinTarget:
    """Return where nodes reach the server that the command talks to. Raises Failure where that can't be told."""
    if common.url is not None:
        return JoinTarget(common.url.rstrip("/"), common.pin)
    from edgegc.settings_source import load

    return target_of(load(None, {"data.dir": common.data_dir}, os.environ).settings)


def target_of(settings: Settings) -> JoinTarget:
    """Return the address that a server with these settings gives to nodes. Raises Failure where it has none."""
    from edgegc.settings_source import is_loopback, split_address

    urls = settings.api.public_urls
    if not urls:
        scheme = "http" if settings.tls.mode == "off" else "https"
        hosts = [(*split_address(address, key="api.listen"), address) for address in settings.api.listen]
        urls = tuple(
            f"{scheme}://{address}"
            for host, _, address in hosts
            if host not in ("", "0.0.0.0", "::") and not is_loopback(host)
        )
    if not urls:
        raise Failure("nodes need an address of this server: set api.public_urls (EDGEGC_API_PUBLIC_URLS)")
    return JoinTarget(urls[0].rstrip("/"), _pin(settings) if urls[0].startswith("https://") else None)


def join_command(target: JoinTarget, key: str) -> str:
    """Return the command that makes a machine a node."""
    pin = f" --pin {target.pin}" if target.pin else ""
    return f"edgegc join {shlex.quote(target.url)} --key {key}{pin}"


def _pin(settings: Settings) -> str | None:
    if settings.tls.mode == "self-signed":
        return pin_of_file(settings.data.dir / "tls" / "certificate.pem")
    if settings.tls.mode == "files" and settings.tls.certificate is not None:
        return pin_of_file(settings.tls.certificate)
    return None  # a proxy of the operator's ends TLS


def pin_of_file(path: Path) -> str:
    """Return the pin of a PEM certificate: lower-case hex SHA-256 of its SubjectPublicKeyInfo."""
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    except ValueError as error:
        raise Failure(f"{path} is not a PEM certificate: {error}") from None
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
