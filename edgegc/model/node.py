"""A node: a member of one cluster, as stored; and what is known of it only in memory."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Role = Literal["member", "admin"]
ReportedState = Literal["ok", "applying", "failed"]
State = Literal["online", "behind", "failed", "offline"]


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A host certificate that was issued. Times in Unix seconds, ``fingerprint`` lower-case hex.

    ``node_id`` is None for the box's own lighthouse. ``state``: ``current`` is what the bundle carries;
    ``superseded`` was replaced in the version ``superseded_in``, and is blocklisted at ``blocklist_at`` where that is
    set; ``revoked`` is blocklisted. ``overlay_ip`` is the bare address that it speaks for. ``renew_at``: when it is
    due to be signed again, None when it is not.
    """

    fingerprint: str
    cluster_id: str
    node_id: str | None
    authority_id: str
    public_key: bytes
    overlay_ip: str
    pem: str
    state: Literal["current", "superseded", "revoked"]
    issued_at: int
    not_before: int
    not_after: int
    renew_at: int | None
    blocklist_at: int | None
    superseded_in: int | None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``nodes`` with its routes and its current certificate. Times in Unix seconds.

    ``overlay_ip`` is a bare IPv4 address; ``routes`` are in order of address. ``own_version`` is the newest version that concerns this node
    alone (0: none yet). ``listen_port`` None means: the agent decides.
    """

    id: str
    cluster_id: str
    name: str
    role: Role
    overlay_ip: str | None
    mtu: int
    groups: tuple[str, ...]
    listen_port: int | None
    is_lighthouse: bool
    is_relay: bool
    public_addresses: tuple[str, ...]
    routes: tuple[str, ...]
    own_version: int
    enrolment_key_id: str | None
    enrolled_at: int | None
    token_used_at: int | None
    applied_version: int | None
    reported_state: ReportedState | None
    error: str | None
    nebula_version: str | None
    certificate: Certificate | None
    created_at: int
    updated_at: int


def in_order(cidrs: Sequence[str]) -> tuple[str, ...]:
    """Return routes in order of address."""
    return tuple(cidrs) if len(cidrs) < 2 else tuple(sorted(cidrs, key=_by_address))


def _by_address(cidr: str) -> tuple[int, int]:
    address, _, length = cidr.partition("/")
    return int(IPv4Address(address)), int(length)
