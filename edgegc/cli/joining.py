"""What a machine needs to join: the server's URL, its pin, a key; and the command line made of them.

Knows no command; reads the server's own settings and certificate where the command line names no URL.
"""

from __future__ import annotations

import os
import shlex
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from edgegc.cli.failure import Failure

if TYPE_CHECKING:
    from edgegc.cli.options import Common
    from edgegc.settings import Settings

SOMEWHERE: Final = ("198.51.100.1", 9)
"""TEST-NET-2 and the discard port, to ask the kernel for a route to the outside."""


class JoinTarget(NamedTuple):
    """Where nodes reach the server, and the pin of its key (None: a certificate of the operator's, or clear text)."""

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
    from edgegc.settings_source import split_address

    url = settings.api.public_urls[0] if settings.api.public_urls else None
    if url is None:
        host, port = split_address(settings.api.listen[0], key="api.listen")
        if is_wildcard(host):
            host = default_source() or ""
        if not host or not port:
            raise Failure(
                "nodes need an address of this server: set api.public_urls (EDGEGC_API_PUBLIC_URLS)"
            )
        url = url_of(host, port, tls=settings.tls.mode != "off")
    return JoinTarget(url.rstrip("/"), _pin(settings) if url.startswith("https://") else None)


def url_of(host: str, port: int, *, tls: bool) -> str:
    """Return the URL of a server."""
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_wildcard(host: str) -> bool:
    """Return whether listening on ``host`` is listening on every address."""
    return host in ("", "0.0.0.0", "::")


def default_source() -> str | None:
    """Return the address that the default route starts from. Nothing is sent: the kernel only picks a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(SOMEWHERE)
        except OSError:
            return None
        return str(probe.getsockname()[0])


def join_command(target: JoinTarget, key: str) -> str:
    """Return the command that makes a machine a node."""
    from edgegc.connection import parse_target

    pin = f" --pin {target.pin}" if target.pin else ""
    # The box serves it so because its operator said so out loud; so must who joins.
    insecure = " --insecure-http" if parse_target(target.url).readable else ""
    return f"edgegc join {shlex.quote(target.url)} --key {key}{pin}{insecure}"


def _pin(settings: Settings) -> str | None:
    """Return the pin where the certificate is one that no system trusts by itself."""
    if settings.tls.mode != "self-signed":
        return None
    from cryptography import x509

    from edgegc.api import tls

    path = settings.data.dir / "tls" / "certificate.pem"
    try:
        return tls.pin_of(x509.load_pem_x509_certificate(path.read_bytes()))
    except ValueError as error:
        raise Failure(f"{path} is not a PEM certificate: {error}") from None
