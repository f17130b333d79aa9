"""``manifest.json`` of a bundle, and the lines that a bundle signature covers. Shared by both sides."""

from __future__ import annotations

import msgspec


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """An address of the control plane. ``pin``: lower-case hex SHA-256 of the certificate's SPKI, or None."""

    url: str
    pin: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json`` of a managed bundle; no times, so that rendering is a pure function.

    ``signers`` are base64 Ed25519 public keys; ``files`` maps each file's name to its SHA-256 (lower-case hex).
    """

    format: int
    cluster_id: str
    node_id: str
    version: int
    signers: tuple[str, ...]
    servers: tuple[Server, ...]
    listen_port: int | None
    restart_delay_s: int
    files: dict[str, str]


def signed_text(*, cluster_id: str, node_id: str, version: int, digest: str) -> bytes:
    """Return the exact ASCII lines a bundle signature covers. ``digest``: lower-case hex SHA-256 of the whole body."""
    return f"edgegc-bundle-v1\n{cluster_id}\n{node_id}\n{version}\n{digest}\n".encode("ascii")
