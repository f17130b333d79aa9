"""Credentials as stored (never the secret), and the caller that a valid one makes of a request."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec


class EnrolmentKey(msgspec.Struct, frozen=True, kw_only=True):
    """A limited credential with which a machine becomes a node. ``uses`` None means unlimited."""

    id: str
    cluster_id: str
    label: str | None
    uses: int | None
    used: int
    groups: tuple[str, ...]
    expires_at: int
    revoked_at: int | None
    created_at: int


class ApiToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token for people and programs. Scopes: ``operator``, ``cluster:<id>:admin|read``, ``metrics``."""

    id: str
    label: str | None
    scopes: tuple[str, ...]
    expires_at: int | None
    last_used_at: int | None
    created_at: int


class Repeatable(msgspec.Struct, frozen=True, kw_only=True):
    """A request that its sender may send again, not knowing whether it arrived. ``scope`` is method and path.

    ``key`` is what the sender calls it (``Idempotency-Key``), ``body_digest`` the SHA-256 of its body.
    """

    key: str
    scope: str
    body_digest: bytes = hashlib.sha256(b"").digest()


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking: the outcome of authentication.

    ``kind`` ``operator`` is the admin socket or an API token with that scope; ``node`` a node token
    (``cluster_id``, ``node_id`` and ``role`` set); ``token`` any other API token; ``enrolment_key`` an enrolment key;
    ``system`` edgegc itself (housekeeping). ``id`` names the credential's record in the audit log.
    """

    kind: Literal["operator", "node", "token", "enrolment_key", "system"]
    id: str
    cluster_id: str | None = None
    node_id: str | None = None
    role: Literal["member", "admin"] | None = None
    scopes: tuple[str, ...] = ()
    source: str = ""
    """Where the request came from: an IP address or ``socket``."""
    request_id: str = ""
    repeatable: Repeatable | None = None
    """Set where the request carried an ``Idempotency-Key``."""


def with_body(caller: Caller, digest: bytes) -> Caller:
    """Return the caller of a request whose body, by its SHA-256, is known by now. Nothing to note where it has no key."""
    if caller.repeatable is None:
        return caller
    return msgspec.structs.replace(
        caller, repeatable=msgspec.structs.replace(caller.repeatable, body_digest=digest)
    )


def cluster_of_scope(scope: str) -> str | None:
    """Return the id of the cluster that an API token's scope is for; None for a scope of the box."""
    kind, _, rest = scope.partition(":")
    return rest.partition(":")[0] if kind == "cluster" else None
