"""Which overlay address a node gets. Runs inside a write; knows no request and no certificate's contents."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from edgegc.control import addresses
from edgegc.errors import Conflict
from edgegc.store import certificates, clusters, columns, nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster


class Addresses:
    """Gives out addresses of a cluster to nodes that are made together, of whom there are no rows yet: the next free one
    after the one given out last, around to the start. Reuse comes as late as possible.

    ``cursor`` is the offset in the network of the one given out last here, None where none was: from there the search goes on.
    """

    def __init__(self, write: Write, cluster: Cluster, *, room_for: int) -> None:
        self._write = write
        self._cluster = cluster
        self._window = room_for
        self._claimed: dict[int, str] = {}
        self._given = 0
        self._free = self._search()
        self.cursor: int | None = None

    def allocate(self) -> str:
        """Return the next free address. Conflict when there is none."""
        address = next(self._free, None)
        if address is None:
            raise Conflict(f"no free address in {self._cluster.network_cidr}")
        network = addresses.stored_network(self._cluster.network_cidr)
        self.cursor = address - int(network.network_address)
        self._given += 1
        return columns.dotted(address)

    def claim(self, text: str, *, name: str) -> str:
        """Return the address that a new node asked for, by its name; see :func:`claim`. They come before those who don't ask."""
        address = claim(self._write, self._cluster, text)
        number = int(IPv4Address(address))
        if number in self._claimed:
            raise _taken(address, self._claimed[number])
        self._claimed[number] = name
        return address

    def _search(self) -> Iterator[int]:
        connection, cluster = self._write.connection, self._cluster
        network = addresses.stored_network(cluster.network_cidr)
        base = int(network.network_address)
        first, last = base + addresses.LIGHTHOUSE_OFFSET + 1, int(network.broadcast_address) - 1
        start = max(first, base + clusters.address_cursor(connection, cluster.id) + 1)
        for low, high in ((start, last), (first, min(start - 1, last))):
            begin: int | None = low
            # As many as are wanted are read at once; where addresses follow each other without a gap, those are passed over.
            while begin is not None and begin <= high:
                # A full network is not walked through for nothing.
                if cluster.node_count + len(self._claimed) + self._given > last - first:
                    return
                end = min(begin + self._window - 1, high)
                occupied = nodes.occupied_addresses(connection, cluster.id, first=begin, last=end)
                for address in range(begin, end + 1):
                    if address not in occupied and address not in self._claimed:
                        yield address
                begin = nodes.first_free_address(connection, cluster.id, first=end + 1, last=high)


def claim(write: Write, cluster: Cluster, text: str, *, node_id: str | None = None) -> str:
    """Return the address that was asked for, by a node that exists or a new one. Invalid when it can't be a node's, Conflict when it is taken."""
    address = addresses.overlay_address(text, addresses.stored_network(cluster.network_cidr))
    owner = nodes.owner_of_address(write.connection, cluster.id, int(address))
    if owner is not None:
        raise _taken(address, owner)
    until = certificates.held_until(write.connection, cluster.id, int(address), wanted_by=node_id)
    if until is not None:
        wait_s = max(1, until - write.now)
        raise Conflict(
            f"overlay_ip: a certificate for {address} is about to be revoked; it is free in at most {wait_s} s",
            retry_after_s=wait_s,
        )
    return str(address)


def _taken(address: object, owner: str) -> Conflict:
    return Conflict(f"overlay_ip: {address} is the address of the node {owner!r}")
