"""How a node comes to be, whoever asked for it: address, row, certificate, version. Runs inside a write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import allocation, signing
from edgegc.control.versions import bump_nodes
from edgegc.errors import Conflict, Invalid
from edgegc.model.node import Node, Role
from edgegc.store import nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a new node is to be. ``public_key`` raw, None: it brings one later. ``overlay_ip`` None: any."""

    name: str
    role: Role
    mtu: int
    groups: tuple[str, ...]
    overlay_ip: str | None
    listen_port: int | None
    public_key: bytes | None
    enrolment_key_id: str | None = None
    enrolled_at: int | None = None
    nebula_version: str | None = None


def create(write: Write, cluster: Cluster, wanted: Wanted, *, node_id: str, token_digest: bytes) -> Node:
    """Make a node. Conflict: name or address taken, no free address. Invalid: an address that can't be a node's.

    With a public key it gets its certificate and its first version; without one nobody's version moves.
    """
    if nodes.name_taken(write.connection, cluster.id, wanted.name):
        raise Conflict(f"a node named {wanted.name!r} already exists")
    check_groups(wanted.groups)
    if wanted.overlay_ip is None:
        overlay_ip = allocation.allocate(write, cluster)
    else:
        overlay_ip = allocation.claim(write, cluster, wanted.overlay_ip)
    node = Node(
        id=node_id,
        cluster_id=cluster.id,
        name=wanted.name,
        role=wanted.role,
        overlay_ip=overlay_ip,
        mtu=wanted.mtu,
        groups=wanted.groups,
        listen_port=wanted.listen_port,
        is_lighthouse=False,
        is_relay=False,
        public_addresses=(),
        routes=(),
        own_version=0,
        enrolment_key_id=wanted.enrolment_key_id,
        enrolled_at=wanted.enrolled_at,
        token_used_at=None,
        last_seen_at=None,
        applied_version=None,
        reported_state=None,
        error=None,
        nebula_version=wanted.nebula_version,
        certificate=None,
        created_at=write.now,
        updated_at=write.now,
    )
    nodes.insert(write.connection, node, token_digest=token_digest)
    write.changed_node(node.id)
    if wanted.public_key is None:
        return node
    version = bump_nodes(write, cluster.id, (node.id,))
    certificate = signing.certify_node(write, cluster, node, wanted.public_key)
    return msgspec.structs.replace(node, certificate=certificate, own_version=version)


def check_groups(groups: Sequence[str]) -> None:
    """Raise Invalid when a group is listed twice."""
    for group in groups:
        if groups.count(group) > 1:
            raise Invalid(f"groups: {group!r} is there twice")
