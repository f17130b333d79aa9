"""How a node comes to be, whoever asked for it: address, row, certificate, version. Runs inside a write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import allocation, modes, signing
from edgegc.control.versions import bump_nodes
from edgegc.errors import Conflict, Invalid
from edgegc.model.node import Node, Role
from edgegc.store import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    """Make a node with its certificate: :func:`add`, then :func:`certify`."""
    version = first_version(write, cluster, [wanted])
    node = add(write, cluster, wanted, node_id=node_id, token_digest=token_digest, version=version)
    (made,) = certify(write, cluster, [(node, wanted.public_key)])
    return made


def first_version(write: Write, cluster: Cluster, wanted: Iterable[Wanted]) -> int:
    """Return the version in which new nodes get their certificates, one for all of them. Where none of them has a public
    key, and in an uploaded cluster, nobody's version moves: 0.
    """
    if cluster.mode == "uploaded" or all(each.public_key is None for each in wanted):
        return 0
    return bump_nodes(write, cluster.id, ())


def add(
    write: Write, cluster: Cluster, wanted: Wanted, *, node_id: str, token_digest: bytes, version: int
) -> Node:
    """Make a node that has no certificate yet. Conflict: name or address taken, no free address. Invalid: an address that
    can't be a node's. ``version`` is what :func:`first_version` gave to all that are made together.

    In an uploaded cluster it gets no address, and will get no certificate: Conflict where one is asked for.
    """
    if nodes.name_taken(write.connection, cluster.id, wanted.name):
        raise Conflict(f"a node named {wanted.name!r} already exists")
    check_groups(wanted.groups)
    overlay_ip: str | None
    cursor: int | None = None
    if cluster.mode == "uploaded":
        _check_uploaded(cluster, wanted)
        overlay_ip = None
    elif wanted.overlay_ip is None:
        overlay_ip, cursor = allocation.allocate(write, cluster)
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
        own_version=0 if wanted.public_key is None else version,
        enrolment_key_id=wanted.enrolment_key_id,
        enrolled_at=wanted.enrolled_at,
        token_used_at=None,
        applied_version=None,
        reported_state=None,
        error=None,
        nebula_version=wanted.nebula_version,
        certificate=None,
        created_at=write.now,
        updated_at=write.now,
    )
    nodes.insert(write.connection, node, token_digest=token_digest, address_cursor=cursor)
    write.changed_node(node.id)
    if cluster.mode == "uploaded" and wanted.public_key is not None:
        nodes.set_enrolled_key(write.connection, node.id, wanted.public_key)
    return node


def certify(write: Write, cluster: Cluster, added: Sequence[tuple[Node, bytes | None]]) -> list[Node]:
    """Give new nodes that have a public key their certificates; none in an uploaded cluster.

    Returns all nodes as they are then. Unavailable while the clock is not to be trusted.
    """
    if cluster.mode == "uploaded":
        return [node for node, _ in added]
    return [
        node
        if public_key is None
        else msgspec.structs.replace(node, certificate=signing.certify_node(write, cluster, node, public_key))
        for node, public_key in added
    ]


def _check_uploaded(cluster: Cluster, wanted: Wanted) -> None:
    if wanted.overlay_ip is not None:
        modes.managed_only(cluster, "overlay_ip")
    if wanted.public_key is not None and wanted.enrolment_key_id is None:
        modes.managed_only(cluster, "public_key")


def check_groups(groups: Sequence[str]) -> None:
    """Raise Invalid when a group is listed twice."""
    for group in groups:
        if groups.count(group) > 1:
            raise Invalid(f"groups: {group!r} is there twice")
