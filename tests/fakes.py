"""Small hand-written stand-ins and samples of the model. One idea each; no mock library."""

from __future__ import annotations

from typing import Any

from edgegc.model.cluster import Cluster
from edgegc.model.node import Node
from edgegc.model.policy import ANY_TO_ANY

CLUSTER_ID = "11111111-1111-4111-8111-111111111111"


def sample_cluster(**changes: Any) -> Cluster:
    """Return a cluster ``10.42.0.0/16`` that has a lighthouse on its box."""
    fields: dict[str, Any] = {
        "id": CLUSTER_ID,
        "tenant_id": "22222222-2222-4222-8222-222222222222",
        "name": "home",
        "network_cidr": "10.42.0.0/16",
        "mode": "managed",
        "provide_lighthouse": True,
        "provide_relay": True,
        "lighthouse_port": 4242,
        "lighthouse_public_addresses": ("203.0.113.9:4242",),
        "allowed_routes": ("10.0.0.0/8",),
        "certificate_lifetime_s": 15_552_000,
        "supersede_grace_s": 600,
        "policy": ANY_TO_ANY,
        "version": 1,
        "wide_version": 1,
        "lighthouse_version": 1,
        "node_count": 0,
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_000,
    }
    return Cluster(**(fields | changes))


def sample_node(number: int = 5, **changes: Any) -> Node:
    """Return a plain member ``pi-<number>`` of the sample cluster at ``10.42.0.<number>``."""
    fields: dict[str, Any] = {
        "id": f"33333333-3333-4333-8333-{number:012d}",
        "cluster_id": CLUSTER_ID,
        "name": f"pi-{number}",
        "role": "member",
        "overlay_ip": f"10.42.0.{number}",
        "mtu": 1300,
        "groups": (),
        "listen_port": None,
        "is_lighthouse": False,
        "is_relay": False,
        "public_addresses": (),
        "routes": (),
        "own_version": 1,
        "enrolment_key_id": None,
        "enrolled_at": None,
        "token_used_at": None,
        "last_seen_at": None,
        "applied_version": None,
        "reported_state": None,
        "error": None,
        "nebula_version": None,
        "certificate": None,
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_000,
    }
    return Node(**(fields | changes))


class FakeClock:
    """A wall clock that stands still until it is told otherwise; ``at`` in Unix seconds."""

    def __init__(self, at: int = 1_900_000_000) -> None:
        self.at = at

    def now(self) -> int:
        return self.at
