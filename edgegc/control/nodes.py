"""Nodes: create, read, change, delete, and their duties (lighthouse, relay, routes).

Knows no rule of versions: every change goes through ``node_changes``. Lists are in ``node_lists.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from edgegc.control import addresses, allocation, announcements, existing, modes, node_changes, node_creation
from edgegc.control.credentials import NODE, mint
from edgegc.control.node_lists import list_
from edgegc.control.permissions import cluster_of as cluster_of_caller
from edgegc.control.permissions import require
from edgegc.control.repetition import once
from edgegc.control.versions import bump_cluster
from edgegc.control.views import new_node_views, node_view
from edgegc.control.write import new_id
from edgegc.errors import Conflict, Invalid
from edgegc.model.message import NodeToken, NodeView
from edgegc.nebula import keys
from edgegc.store import certificates, nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.control.control import Control
    from edgegc.control.permissions import Need
    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster
    from edgegc.model.credential import Caller
    from edgegc.model.message import LighthouseSet, NodeCreate, NodeUpdate, Routes
    from edgegc.model.node import Node

__all__ = [
    "create",
    "delete",
    "get",
    "list_",
    "rotate_token",
    "set_lighthouse",
    "set_relay",
    "set_routes",
    "unset_lighthouse",
    "unset_relay",
    "update",
]


async def create(control: Control, caller: Caller, cluster_id: str | None, request: NodeCreate) -> NodeView:
    """Make a node; the view carries its token, once. Invalid, Conflict, Unavailable while the clock is wrong."""
    found = cluster_of_caller(control, caller, cluster_id)
    public_key = None if request.public_key is None else public_key_of(request.public_key)
    node_id = new_id()
    token = mint(NODE, node_id)
    token_digest = control.vault.token_digest(token)

    def job(write: Write) -> NodeView:
        cluster = existing.cluster(write.connection, found)
        wanted = node_creation.Wanted(
            name=request.name,
            role=request.role,
            mtu=request.mtu,
            groups=request.groups,
            overlay_ip=request.overlay_ip,
            listen_port=request.listen_port,
            public_key=public_key,
        )
        node = node_creation.create(write, cluster, wanted, node_id=node_id, token_digest=token_digest)
        write.audit("node.create", node.id)
        (view,) = new_node_views(write.connection, cluster, [(node, token)])
        return view

    return await control.write(caller, lambda write: once(write, NodeView, job))


async def get(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Return a node. NotFound."""
    _authorise(control, caller, node_id, "read")
    node, cluster = await control.database.read(lambda connection: existing.node(connection, node_id))
    return node_view(control, node, network_cidr=cluster.network_cidr)


async def update(control: Control, caller: Caller, node_id: str, request: NodeUpdate) -> NodeView:
    """Change a node. NotFound, Conflict, Invalid; Unavailable while the clock is wrong."""
    changes = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not UNSET}

    def edit(write: Write, cluster: Cluster, node: Node) -> Node:
        wanted = dict(changes)
        name = wanted.get("name", node.name)
        if name != node.name and nodes.name_taken(write.connection, cluster.id, name):
            raise Conflict(f"a node named {name!r} already exists")
        if "groups" in wanted:
            node_creation.check_groups(wanted["groups"])
        if "overlay_ip" in wanted:
            modes.managed_only(cluster, "overlay_ip")
            asked = addresses.overlay_address(
                wanted["overlay_ip"], addresses.stored_network(cluster.network_cidr)
            )
            wanted["overlay_ip"] = str(asked)
            if str(asked) != node.overlay_ip:
                allocation.claim(write, cluster, str(asked), node_id=node.id)
        if node.is_lighthouse and wanted.get("listen_port", node.listen_port) is None:
            raise Conflict("listen_port: a lighthouse needs a fixed port; unset it as lighthouse first")
        return msgspec.structs.replace(node, **wanted)

    return await _change(control, caller, node_id, "node.update", edit)


async def delete(control: Control, caller: Caller, node_id: str) -> None:
    """Delete a node: its token stops at once, its certificates go on the blocklist. NotFound."""
    _authorise(control, caller, node_id, "admin")

    def job(write: Write) -> None:
        node, cluster = existing.node(write.connection, node_id)
        revoked = certificates.blocklist_all(write.connection, node.id, now=write.now)
        nodes.delete(write.connection, node)
        write.deleted_node(node.id, cluster.id)
        if revoked or node.is_lighthouse or node.is_relay or node.routes:
            bump_cluster(write, cluster.id)
        write.audit("node.delete", node.id)

    await control.write(caller, job)


async def rotate_token(control: Control, caller: Caller, node_id: str) -> NodeToken:
    """Replace a node's token; the old one stops at once. NotFound."""
    _authorise(control, caller, node_id, "admin")
    token = mint(NODE, node_id)
    token_digest = control.vault.token_digest(token)

    def job(write: Write) -> None:
        existing.node(write.connection, node_id)
        nodes.set_token(write.connection, node_id, token_digest=token_digest)
        write.changed_node(node_id)
        write.audit("node.token", node_id)

    await control.write(caller, job)
    return NodeToken(node_token=token)


async def set_lighthouse(control: Control, caller: Caller, node_id: str, request: LighthouseSet) -> NodeView:
    """Make a node a lighthouse, or change its public addresses. NotFound, Invalid, Conflict.

    Its ``listen_port`` becomes that of the first address, unless it was set to something else.
    """

    def edit(write: Write, cluster: Cluster, node: Node) -> Node:
        modes.managed_only(cluster, "lighthouse")
        public_addresses = addresses.public_addresses(
            request.public_addresses, addresses.stored_network(cluster.network_cidr), field="public_addresses"
        )
        if public_addresses != node.public_addresses:
            announcements.check_public_addresses(
                write, cluster.id, public_addresses, field="public_addresses"
            )
        listen_port = node.listen_port
        followed = addresses.port_of(node.public_addresses[0]) if node.public_addresses else None
        if listen_port in (None, followed):
            listen_port = addresses.port_of(public_addresses[0])
        return msgspec.structs.replace(
            node, is_lighthouse=True, public_addresses=public_addresses, listen_port=listen_port
        )

    return await _change(control, caller, node_id, "node.lighthouse.set", edit)


async def unset_lighthouse(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Make a node an ordinary one again; its port stays. NotFound."""

    def edit(write: Write, cluster: Cluster, node: Node) -> Node:
        modes.managed_only(cluster, "lighthouse")
        return msgspec.structs.replace(node, is_lighthouse=False, public_addresses=())

    return await _change(control, caller, node_id, "node.lighthouse.unset", edit)


async def set_relay(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Make a node a relay. NotFound."""

    def edit(write: Write, cluster: Cluster, node: Node) -> Node:
        modes.managed_only(cluster, "relay")
        return msgspec.structs.replace(node, is_relay=True)

    return await _change(control, caller, node_id, "node.relay.set", edit)


async def unset_relay(control: Control, caller: Caller, node_id: str) -> NodeView:
    """Make a node no relay any more. NotFound."""

    def edit(write: Write, cluster: Cluster, node: Node) -> Node:
        modes.managed_only(cluster, "relay")
        return msgspec.structs.replace(node, is_relay=False)

    return await _change(control, caller, node_id, "node.relay.unset", edit)


async def set_routes(control: Control, caller: Caller, node_id: str, request: Routes) -> NodeView:
    """Set any node's routes, without the ``allowed_routes`` limit. NotFound, Invalid, Conflict."""
    _authorise(control, caller, node_id, "admin")

    def job(write: Write) -> tuple[Node, Cluster]:
        _, cluster = existing.node(write.connection, node_id)
        node = announcements.set_routes(
            write, node_id, request.routes, servers=control.servers, limited=False
        )
        return node, cluster

    node, cluster = await control.write(caller, job)
    return node_view(control, node, network_cidr=cluster.network_cidr)


def public_key_of(pem: str) -> bytes:
    """Return the raw key of a request's ``public_key``. Invalid."""
    try:
        return keys.parse_x25519_public(pem)
    except Invalid as error:
        raise Invalid(f"public_key: {error.message}") from None


async def _change(
    control: Control,
    caller: Caller,
    node_id: str,
    action: str,
    edit: Callable[[Write, Cluster, Node], Node],
) -> NodeView:
    _authorise(control, caller, node_id, "admin")

    def job(write: Write) -> tuple[Node, Cluster]:
        before, cluster = existing.node(write.connection, node_id)
        after = edit(write, cluster, before)
        if after != before:
            write.audit(action, node_id)
        return node_changes.change(write, cluster, before, after), cluster

    node, cluster = await control.write(caller, job)
    return node_view(control, node, network_cidr=cluster.network_cidr)


def _authorise(control: Control, caller: Caller, node_id: str, need: Need) -> None:
    entry = control.roll.entry(node_id)
    require(control, caller, None if entry is None else entry.cluster_id, need, what="node")
