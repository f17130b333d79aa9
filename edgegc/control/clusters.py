"""Clusters: networks with their authority, settings and versions. Operator only."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from edgegc.control import addresses, announcements, cluster_deletion, existing, modes, signing
from edgegc.control.callers import operator_only
from edgegc.control.repetition import once
from edgegc.control.versions import bump
from edgegc.control.views import cluster_view
from edgegc.control.write import new_id
from edgegc.errors import Conflict, NotFound
from edgegc.model.cluster import Cluster
from edgegc.model.message import ClusterList, ClusterView
from edgegc.model.policy import ANY_TO_ANY
from edgegc.model.version import scope_of_cluster_change
from edgegc.store import authorities, certificates, clusters, tenants

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.model.message import ClusterCreate, ClusterUpdate

FIRST_VERSION = 1
"""A new cluster's version."""
NO_VERSION = 0
"""An uploaded cluster's before the first upload: there is nothing yet."""


async def create(control: Control, caller: Caller, request: ClusterCreate) -> ClusterView:
    """Make a cluster with its bundle signer and, unless bundles are uploaded, its authority and lighthouse.

    Invalid names the field, Conflict for a name or a lighthouse port that is taken, Unavailable while the clock is
    wrong.
    """
    operator_only(caller)
    network = addresses.overlay_network(request.network_cidr)
    public_addresses = addresses.public_addresses(
        request.lighthouse_public_addresses, network, field="lighthouse_public_addresses"
    )
    allowed = addresses.allowed_routes(request.allowed_routes)
    port_in_use = request.provide_lighthouse and _port_in_use(control, request.lighthouse_port)

    def job(write: Write) -> ClusterView:
        connection = write.connection
        if tenants.get(connection, request.tenant_id) is None:
            raise NotFound(f"tenant_id: there is no tenant {request.tenant_id!r}")
        _check_name(connection, request.tenant_id, request.name)
        if request.provide_lighthouse:
            _check_port(connection, request.lighthouse_port, cluster_id=None, in_use=port_in_use)
        first = FIRST_VERSION if request.mode == "managed" else NO_VERSION
        cluster = Cluster(
            id=new_id(),
            tenant_id=request.tenant_id,
            name=request.name,
            network_cidr=str(network),
            mode=request.mode,
            provide_lighthouse=request.provide_lighthouse,
            provide_relay=request.provide_relay,
            lighthouse_port=request.lighthouse_port,
            lighthouse_public_addresses=public_addresses,
            allowed_routes=allowed,
            certificate_lifetime_s=request.certificate_lifetime_s,
            supersede_grace_s=request.supersede_grace_s,
            policy=ANY_TO_ANY,
            version=first,
            wide_version=first,
            lighthouse_version=0,
            node_count=0,
            created_at=write.now,
            updated_at=write.now,
        )
        if cluster.provide_lighthouse:
            modes.managed_only(cluster, "provide_lighthouse")
        clusters.insert(connection, cluster, address_cursor=addresses.LIGHTHOUSE_OFFSET)
        known = (signing.make_authority(write, cluster),) if cluster.mode == "managed" else ()
        signing.make_signer(write, cluster.id)
        if cluster.provide_lighthouse:
            signing.certify_box(write, cluster)
        write.changed_cluster(cluster.id)
        write.audit("cluster.create", cluster.id)
        return cluster_view(cluster, known)

    return await control.write(caller, lambda write: once(write, ClusterView, job))


async def list_(control: Control, caller: Caller) -> ClusterList:
    """Return all clusters by name."""
    operator_only(caller)

    def job(connection: sqlite3.Connection) -> ClusterList:
        known = authorities.all_authorities(connection)
        return ClusterList(
            clusters=tuple(
                cluster_view(cluster, known.get(cluster.id, ())) for cluster in clusters.all_(connection)
            )
        )

    return await control.database.read(job)


async def get(control: Control, caller: Caller, cluster_id: str) -> ClusterView:
    """Return a cluster. NotFound."""
    operator_only(caller)

    def job(connection: sqlite3.Connection) -> ClusterView:
        return cluster_view(
            existing.cluster(connection, cluster_id), authorities.authorities(connection, cluster_id)
        )

    return await control.database.read(job)


async def update(control: Control, caller: Caller, cluster_id: str, request: ClusterUpdate) -> ClusterView:
    """Change settings of a cluster. NotFound, Conflict, Invalid; Unavailable while the clock is wrong."""
    operator_only(caller)
    changes = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not UNSET}
    if "allowed_routes" in changes:
        changes["allowed_routes"] = addresses.allowed_routes(changes["allowed_routes"])
    present = await control.database.read(lambda connection: existing.cluster(connection, cluster_id))
    port_in_use = _takes_port(control, present, msgspec.structs.replace(present, **changes))

    def job(write: Write) -> ClusterView:
        before = existing.cluster(write.connection, cluster_id)
        after = msgspec.structs.replace(before, **changes)
        network = IPv4Network(before.network_cidr)
        after = msgspec.structs.replace(
            after,
            lighthouse_public_addresses=addresses.public_addresses(
                after.lighthouse_public_addresses, network, field="lighthouse_public_addresses"
            ),
        )
        if after != before:
            after = _change(write, before, after, port_in_use=port_in_use)
        return cluster_view(after, authorities.authorities(write.connection, cluster_id))

    return await control.write(caller, job)


async def delete(control: Control, caller: Caller, cluster_id: str, *, cascade: bool) -> None:
    """Delete a cluster: its keys, its tokens, its lighthouse on this box. NotFound; Conflict while it has nodes, unless
    ``cascade`` says that they go with it.
    """
    operator_only(caller)

    def job(write: Write) -> None:
        cluster = existing.cluster(write.connection, cluster_id)
        if cluster.node_count and not cascade:
            nodes = "1 node" if cluster.node_count == 1 else f"{cluster.node_count} nodes"
            raise Conflict(
                f"the cluster {cluster.name!r} has {nodes}, which would be deleted with it", unless="cascade"
            )
        cluster_deletion.delete(write, cluster.id)

    await control.write(caller, job)


def _takes_port(control: Control, before: Cluster, after: Cluster) -> bool:
    """Whether a change makes the lighthouse take a UDP port that another program has."""
    if not after.provide_lighthouse:
        return False
    if before.provide_lighthouse and before.lighthouse_port == after.lighthouse_port:
        return False
    return _port_in_use(control, after.lighthouse_port)


def _port_in_use(control: Control, port: int) -> bool:
    """Whether another program has a UDP port. Which of our own lighthouses are to have it, the rows know."""
    if any(status.port == port for status in control.lighthouses.all()):
        # Our own, and if no row wants it any more, on its way out: the test would find only that.
        return False
    return control.udp_port_in_use(port)


def _change(write: Write, before: Cluster, after: Cluster, *, port_in_use: bool) -> Cluster:
    if after.name != before.name:
        _check_name(write.connection, after.tenant_id, after.name)
    if after.lighthouse_public_addresses != before.lighthouse_public_addresses:
        announcements.check_public_addresses(
            write, after.id, after.lighthouse_public_addresses, field="lighthouse_public_addresses"
        )
    if after.provide_lighthouse:
        modes.managed_only(after, "provide_lighthouse")
        _check_port(write.connection, after.lighthouse_port, cluster_id=after.id, in_use=port_in_use)
    after = msgspec.structs.replace(after, updated_at=write.now)
    clusters.update_settings(write.connection, after)
    if after.provide_lighthouse and certificates.current_of_box(write.connection, after.id) is None:
        signing.certify_box(write, after)
    write.changed_cluster(after.id)
    write.audit("cluster.update", after.id)
    bump(write, scope_of_cluster_change(before, after), cluster_id=after.id)
    return existing.cluster(write.connection, after.id)


def _check_name(connection: sqlite3.Connection, tenant_id: str, name: str) -> None:
    if clusters.name_taken(connection, tenant_id, name):
        raise Conflict(f"a cluster named {name!r} already exists")


def _check_port(connection: sqlite3.Connection, port: int, *, cluster_id: str | None, in_use: bool) -> None:
    owner = clusters.lighthouse_on_port(connection, port)
    if owner is not None and owner[0] != cluster_id:
        raise Conflict(f"lighthouse_port: the lighthouse of the cluster {owner[1]!r} has the port {port}")
    if in_use:
        raise Conflict(f"lighthouse_port: another program on this box has the UDP port {port}")
