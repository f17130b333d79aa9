"""A cluster: one Nebula network, its settings, and its version counters."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgegc.model.policy import Policy

Mode = Literal["managed", "uploaded"]


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``clusters``. Times in Unix seconds.

    ``version`` is the newest version given to anything in the cluster; ``wide_version`` the newest one that
    concerns every node of it (see :mod:`edgegc.model.version`). ``network_cidr`` is masked IPv4 CIDR.
    ``lighthouse_version`` is the newest one that concerns only the box's own lighthouse. ``node_count`` counts
    the nodes. ``lighthouse_public_addresses`` are ``ip:port`` strings under which nodes reach the box's own lighthouse.
    """

    id: str
    tenant_id: str
    name: str
    network_cidr: str
    mode: Mode
    provide_lighthouse: bool
    provide_relay: bool
    lighthouse_port: int
    lighthouse_public_addresses: tuple[str, ...]
    allowed_routes: tuple[str, ...]
    certificate_lifetime_s: int
    supersede_grace_s: int
    policy: Policy
    version: int
    wide_version: int
    lighthouse_version: int
    node_count: int
    created_at: int
    updated_at: int


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate authority of a cluster, without its private key.

    ``phase``: ``active`` signs; ``next`` is trusted but does not sign yet; ``old`` is trusted but signs no more.
    """

    id: str
    cluster_id: str
    fingerprint: str
    certificate_pem: str
    phase: Literal["active", "next", "old"]
    not_after: int
    created_at: int


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a bundle signing key (Ed25519, 32 bytes). ``phase`` as in :class:`Authority`."""

    id: str
    cluster_id: str
    public_key: bytes
    phase: Literal["active", "next", "old"]
    created_at: int
