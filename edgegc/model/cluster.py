"""A cluster: one Nebula network, its settings, and its version counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from edgegc.model.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

Mode = Literal["managed", "uploaded"]
KeyPhase = Literal["active", "next", "old"]
RotationPhase = Literal["none", "prepared", "issued"]


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
    ``phase_version`` is the version in which it got its phase, or in which its predecessor went.
    """

    id: str
    cluster_id: str
    fingerprint: str
    certificate_pem: str
    phase: KeyPhase
    not_after: int
    created_at: int
    phase_version: int = 0


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a bundle signing key (Ed25519, 32 bytes). ``phase`` as in :class:`Authority`.

    ``since_version`` is the first version whose bundles name it: whoever applied that, or a later one, trusts it.
    """

    id: str
    cluster_id: str
    public_key: bytes
    phase: KeyPhase
    created_at: int
    since_version: int = 0


def rotation_phase(authorities: Iterable[Authority]) -> RotationPhase:
    """Return how far the rotation of a cluster's authority is."""
    phases = {authority.phase for authority in authorities}
    if "next" in phases:
        return "prepared"
    return "issued" if "old" in phases else "none"
