"""Which overlay address a node gets. Runs inside a write; knows no request and no certificate's contents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgegc.control import addresses
from edgegc.errors import Conflict
from edgegc.store import certificates, clusters, columns, nodes

if TYPE_CHECKING:
    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster


class Given(NamedTuple):
    """An address, and its offset in the network, which is to be kept: from there the search goes on."""

    address: str
    cursor: int


def allocate(write: Write, cluster: Cluster) -> Given:
    """Return the next free address after the one given out last, around to the start: reuse comes as late as possible.

    Conflict when there is none.
    """
    network = addresses.stored_network(cluster.network_cidr)
    base = int(network.network_address)
    first, last = base + addresses.LIGHTHOUSE_OFFSET + 1, int(network.broadcast_address) - 1
    if cluster.node_count <= last - first:
        start = max(first, base + clusters.address_cursor(write.connection, cluster.id) + 1)
        for low, high in ((start, last), (first, min(start - 1, last))):
            address = _free(write, cluster.id, low, high)
            if address is not None:
                return Given(columns.dotted(address), address - base)
    raise Conflict(f"no free address in {cluster.network_cidr}")


def claim(write: Write, cluster: Cluster, text: str, *, node_id: str | None = None) -> str:
    """Return the address that was asked for, by a node that exists or a new one. Invalid when it can't be a node's, Conflict when it is taken."""
    address = addresses.overlay_address(text, addresses.stored_network(cluster.network_cidr))
    owner = nodes.owner_of_address(write.connection, cluster.id, int(address))
    if owner is not None:
        raise Conflict(f"overlay_ip: {address} is the address of the node {owner!r}")
    until = certificates.held_until(write.connection, cluster.id, int(address), wanted_by=node_id)
    if until is not None:
        wait_s = max(1, until - write.now)
        raise Conflict(
            f"overlay_ip: a certificate for {address} is about to be revoked; it is free in at most {wait_s} s",
            retry_after_s=wait_s,
        )
    return str(address)


def _free(write: Write, cluster_id: str, low: int, high: int) -> int | None:
    while True:
        address = nodes.first_free_address(write.connection, cluster_id, first=low, last=high)
        if address is None or certificates.held_until(write.connection, cluster_id, address) is None:
            return address
        # Its last owner's certificate is not blocklisted yet: two nodes would speak for one address.
        low = address + 1
