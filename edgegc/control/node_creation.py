"""How a node comes to be, whoever asked for it: address, row, certificate, version. Runs inside a write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from edgegc.control import allocation, modes, signing
from edgegc.control.versions import bump_nodes
from edgegc.errors import Conflict, Invalid
from edgegc.model.node import Node, Role
from edgegc.store import clusters, nodes

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
    """Make a node with its certificate. Conflict: name or address taken, no free address. Invalid: an address that can't be
    a node's. Unavailable where a certificate is needed while the clock is not to be trusted.
    """
    making = Making(write, cluster, [wanted])
    making.add(wanted, node_id=node_id, token_digest=token_digest)
    (made,) = making.finish()
    return made


class Making:
    """Nodes that are made together, in one version: what is taken already is read once, and their rows are written at once."""

    def __init__(self, write: Write, cluster: Cluster, wanted: Sequence[Wanted]) -> None:
        self._write = write
        self._cluster = cluster
        self._names = nodes.taken_names(write.connection, cluster.id, [each.name for each in wanted])
        self._addresses = allocation.Addresses(write, cluster, room_for=len(wanted))
        self._added: list[tuple[Node, Wanted, bytes]] = []

    def add(self, wanted: Wanted, *, node_id: str, token_digest: bytes) -> None:
        """Add one, in no row yet. Conflict: name or address taken, no free address. Invalid: an address that can't be a
        node's. The caller has seen to it that no other one here has its name.

        In an uploaded cluster it gets no address, and will get no certificate: Conflict where one is asked for.
        """
        cluster, now = self._cluster, self._write.now
        if wanted.name in self._names:
            raise Conflict(f"a node named {wanted.name!r} already exists")
        check_groups(wanted.groups)
        overlay_ip: str | None
        if cluster.mode == "uploaded":
            _check_uploaded(cluster, wanted)
            overlay_ip = None
        elif wanted.overlay_ip is None:
            overlay_ip = self._addresses.allocate()
        else:
            overlay_ip = self._addresses.claim(wanted.overlay_ip, name=wanted.name)
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
            applied_version=None,
            reported_state=None,
            error=None,
            nebula_version=wanted.nebula_version,
            certificate=None,
            created_at=now,
            updated_at=now,
        )
        self._added.append((node, wanted, token_digest))

    def finish(self) -> list[Node]:
        """Write the rows of all, and sign the keys of those that have one; return them as they are then, in the order in
        which they were added. Unavailable where there is a key while the clock is not to be trusted.

        Where none has a key, and in an uploaded cluster, nobody's version moves.
        """
        write, cluster = self._write, self._cluster
        managed = cluster.mode != "uploaded"
        if managed and any(wanted.public_key is not None for _, wanted, _ in self._added):
            signing.require_hand(write, cluster.id)
            version = bump_nodes(write, cluster.id, ())
            self._added = [
                (node if wanted.public_key is None else replace(node, own_version=version), wanted, digest)
                for node, wanted, digest in self._added
            ]
        nodes.insert(write.connection, [(node, digest) for node, _, digest in self._added])
        clusters.add_nodes(
            write.connection, cluster.id, len(self._added), address_cursor=self._addresses.cursor
        )
        return [self._sign(*each) for each in self._added]

    def _sign(self, node: Node, wanted: Wanted, token_digest: bytes) -> Node:
        write, key = self._write, wanted.public_key
        if key is not None and self._cluster.mode == "uploaded":
            nodes.set_enrolled_key(write.connection, node.id, key)
        elif key is not None:
            node = replace(node, certificate=signing.certify_node(write, self._cluster, node, key))
        write.changed_node(node.id, nodes.entry_of(node, token_digest=token_digest))
        return node


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
