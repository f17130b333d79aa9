"""What ``db.*`` asks of the real store: its operations, by name, each made ready before it is measured.

The laboratory's one look inside the server: it runs in a process of its own (:mod:`edgegc.perf.store_process`), within
the store's, and calls the functions of :mod:`edgegc.store` that use cases call, in their order. What use cases do beside it
(authorise, sign, seal, render) is left out. Knows no clock and no histogram.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from edgegc import errors
from edgegc.model.bundle import UploadedBundle
from edgegc.store import (
    audit,
    authorities,
    bundles,
    certificates,
    clusters,
    last_seen,
    meta,
    node_pages,
    nodes,
    routes,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Sequence

    from edgegc.model.cluster import Cluster
    from edgegc.model.node import Node
    from edgegc.perf.store_rig import NewNode, Rig

NETWORK: Final = IPv4Network("10.0.0.0/12")
"""A million addresses: no scenario runs out."""

PAGE_SIZE: Final = 50
"""The page of a list that API and commands show."""
UPLOAD_PIECE_BYTES: Final = 524_288
DOWNLOAD_PIECE_BYTES: Final = 262_144
"""As uploads are written and downloads are read."""
KEPT_BUNDLES: Final = 10
"""As the server keeps them unless it is told otherwise."""
FLUSHED_AT_ONCE: Final = 500
"""Nodes per write, as they are flushed."""

CLOCK: Final = "clock_trusted_since"
TOLERATED_LAG_S: Final = 3600
"""What is looked up before anything is signed."""

ACTOR: Final = "token:00000000-0000-4000-8000-000000000000"
SOURCE: Final = "192.0.2.1"

Ready: TypeAlias = "Callable[[], Awaitable[object]]"
"""An operation with all that it needs made: only what happens when it is called is measured."""


def node_insert(rig: Rig, count: int) -> Ready:
    """Make nodes in one write: address, row, certificate and audit row of each, one version for all."""
    new = [rig.new_node() for _ in range(count)]
    return lambda: rig.database.write(lambda connection: create(rig, connection, new))


def create(rig: Rig, connection: sqlite3.Connection, new: Sequence[NewNode]) -> list[Node]:
    """Do in a write what making nodes does."""
    cluster = _cluster(connection, rig.managed)
    base = int(NETWORK.network_address)
    taken = nodes.taken_names(connection, cluster.id, [each.node.name for each in new])
    if taken:
        raise errors.Conflict(f"nodes named {taken} already exist")
    first = base + clusters.address_cursor(connection, cluster.id) + 1
    last = first + len(new) - 1
    if nodes.occupied_addresses(connection, cluster.id, first=first, last=last):
        raise errors.Conflict(f"addresses of {NETWORK} were given out already")
    # Whether the clock may be trusted, and who signs.
    meta.get(connection, CLOCK)
    audit.newest_at(connection, above=new[0].node.created_at + TOLERATED_LAG_S)
    authorities.active_authority(connection, cluster.id)
    version = clusters.next_version(connection, cluster.id)
    made = [
        msgspec.structs.replace(each.node, overlay_ip=str(IPv4Address(address)), own_version=version)
        for address, each in enumerate(new, first)
    ]
    nodes.insert(connection, [(node, each.token_digest) for node, each in zip(made, new, strict=True)])
    clusters.add_nodes(connection, cluster.id, len(made), address_cursor=last - base)
    for node, each in zip(made, new, strict=True):
        certificates.fingerprint_known(connection, cluster.id, each.certificate.fingerprint)
        certificates.insert(
            connection, msgspec.structs.replace(each.certificate, overlay_ip=str(node.overlay_ip))
        )
    _audit(rig, connection, "node.create", *(node.id for node in made))
    return made


def _audit(rig: Rig, connection: sqlite3.Connection, action: str, *targets: str) -> None:
    """Add the rows that every write has."""
    audit.insert(
        connection,
        *targets,
        at=int(time.time()),
        actor=ACTOR,
        action=action,
        request_id=rig.new_id(),
        source=SOURCE,
    )


def node_update(rig: Rig, _size: int) -> Ready:
    """Change a node's MTU: read it, write it, raise its version, audit row."""
    node_id, mtu = rig.any_node(), rig.random.randrange(1280, 1400)

    def job(connection: sqlite3.Connection) -> None:
        node = _node(connection, node_id)
        _cluster(connection, node.cluster_id)
        version = clusters.next_version(connection, rig.managed)
        after = msgspec.structs.replace(node, mtu=mtu, own_version=version, updated_at=int(time.time()))
        nodes.update(connection, node, after)
        _audit(rig, connection, "node.update", node.id)

    return lambda: rig.database.write(job)


def one_row(rig: Rig, _size: int) -> Ready:
    """Write one row: what a node says of itself. The smallest write that there is."""
    report = _report(rig.any_node())
    return lambda: rig.database.write(lambda connection: nodes.write_reports(connection, [report]))


def flush(rig: Rig, _size: int) -> Ready:
    """Write when all nodes were last heard of, as it is flushed four times an hour."""
    seen = [(node_id, int(time.time()) + rig.random.randrange(60)) for node_id in sorted(rig.nodes)]

    async def run() -> None:
        for begin in range(0, len(seen), FLUSHED_AT_ONCE):
            batch = seen[begin : begin + FLUSHED_AT_ONCE]
            await rig.database.write(partial(last_seen.write, seen=batch))

    return run


def _report(node_id: str) -> nodes.SelfReport:
    return nodes.SelfReport(
        node_id=node_id,
        applied_version=1,
        reported_state="ok",
        error=None,
        nebula_version="1.9.3",
    )


def several(rig: Rig, size: int) -> Ready:
    """Do several things in one write: make a node, give it a route, make it a relay, raise everybody's version."""
    return _several(rig, size, fails=False)


def several_fail(rig: Rig, size: int) -> Ready:
    """The same, and then a conflict: all of it is taken back."""
    return _several(rig, size, fails=True)


def _several(rig: Rig, _size: int, *, fails: bool) -> Ready:
    new = [rig.new_node()]
    cidr = f"172.{rig.random.randrange(16, 32)}.{rig.random.randrange(256)}.{rig.random.randrange(64) * 4}/30"

    def job(connection: sqlite3.Connection) -> None:
        (node,) = create(rig, connection, new)
        if routes.owner(connection, rig.managed, cidr) is None:
            routes.replace(connection, rig.managed, node.id, [cidr])
        certificates.unlist_expired(connection, rig.managed, now=node.created_at)
        clusters.next_wide_version(connection, rig.managed, at=node.created_at)
        nodes.update(connection, node, msgspec.structs.replace(node, is_relay=True))
        clusters.wide_version(connection, rig.managed)
        _audit(rig, connection, "node.relay.set", node.id)
        if fails:
            raise errors.Conflict("meant to fail")

    async def run() -> None:
        try:
            await rig.database.write(job)
        except errors.Conflict:
            if not fails:
                raise

    return run


def node_by_id(rig: Rig, _size: int) -> Ready:
    """Read a node with its routes and certificate, and its cluster."""
    job = node_of(rig.any_node())
    return lambda: rig.database.read(job)


def node_of(node_id: str) -> Callable[[sqlite3.Connection], tuple[Node, Cluster]]:
    """Return what reads a certain node."""

    def job(connection: sqlite3.Connection) -> tuple[Node, Cluster]:
        node = _node(connection, node_id)
        return node, _cluster(connection, node.cluster_id)

    return job


def nothing(connection: sqlite3.Connection) -> None:
    """Look for a node that does not exist."""
    nodes.get(connection, "")


def nodes_of_cluster(rig: Rig, _size: int) -> Ready:
    """Read the first page of a cluster's nodes by name, and how many there are."""
    return lambda: rig.database.read(lambda connection: _page(rig, connection, None))


def next_page(rig: Rig, _size: int) -> Ready:
    """Read the page after the one read last, from the first again after the last."""

    async def run() -> None:
        after = rig.page_after
        rig.page_after = await rig.database.read(lambda connection: _page(rig, connection, after))

    return run


def _page(
    rig: Rig, connection: sqlite3.Connection, after: tuple[str | int | None, ...] | None
) -> tuple[str | int | None, ...] | None:
    _cluster(connection, rig.managed)
    wanted = node_pages.Filter(cluster_id=rig.managed)
    rows = node_pages.page(
        connection, wanted, sort="name", descending=False, limit=PAGE_SIZE + 1, after=after
    )
    node_pages.count(connection, wanted)
    shown = rows[:PAGE_SIZE]
    nodes.get_many(connection, [node_id for node_id, _ in shown])
    return shown[-1][1] if len(rows) > len(shown) else None


def topology(rig: Rig, _size: int) -> Ready:
    """Read who is lighthouse or relay in a cluster, and its routes."""

    def job(connection: sqlite3.Connection) -> tuple[int, int]:
        cluster = _cluster(connection, rig.managed)
        found = nodes.topology(connection, cluster.id)
        return len(found), len(routes.of_cluster(connection, cluster.id))

    return lambda: rig.database.read(job)


def versions(rig: Rig, _size: int) -> Ready:
    """Read one row: a cluster's versions. The smallest read that there is."""
    return lambda: rig.database.read(lambda connection: clusters.versions(connection, rig.managed))


def bundle_insert(rig: Rig, size: int) -> Ready:
    """Store an upload, a piece per write, and make it the active one; the oldest beyond those kept goes."""
    body = rig.random.randbytes(size)
    digest = hashlib.sha256(body).hexdigest()

    async def run() -> None:
        body_id = await rig.database.write(
            lambda connection: bundles.reserve_body(connection, rig.uploaded, digest=digest, size=size)
        )
        for offset in range(0, size, UPLOAD_PIECE_BYTES):
            piece = body[offset : offset + UPLOAD_PIECE_BYTES]

            def fill(connection: sqlite3.Connection, offset: int = offset, piece: bytes = piece) -> None:
                _cluster(connection, rig.uploaded)
                bundles.write_piece(connection, body_id, offset=offset, piece=piece)

            await rig.database.write(fill)

        def finish(connection: sqlite3.Connection) -> tuple[UploadedBundle, ...]:
            _cluster(connection, rig.uploaded)
            bundles.finish_body(connection, body_id)
            at = int(time.time())
            version = clusters.next_wide_version(connection, rig.uploaded, at=at)
            bundles.insert(
                connection,
                UploadedBundle(
                    cluster_id=rig.uploaded,
                    version=version,
                    body_id=body_id,
                    digest=digest,
                    size=size,
                    uploaded_at=at,
                ),
            )
            for old in bundles.history(connection, rig.uploaded)[KEPT_BUNDLES:]:
                bundles.delete(connection, old)
            _audit(rig, connection, "bundle.upload", f"{rig.uploaded}/{version}")
            return bundles.history(connection, rig.uploaded)

        rig.bundles = list(await rig.database.write(finish))

    return run


def bundles_of_cluster(rig: Rig, _size: int) -> Ready:
    """Read a cluster's history of bundles, the active one first."""

    def job(connection: sqlite3.Connection) -> int:
        _cluster(connection, rig.uploaded)
        return len(bundles.history(connection, rig.uploaded))

    return lambda: rig.database.read(job)


def bundle_of_version(rig: Rig, _size: int) -> Ready:
    """Read one bundle of the history."""
    version = rig.random.choice(rig.bundles).version
    return lambda: rig.database.read(lambda connection: bundles.get(connection, rig.uploaded, version))


def bundle_body(rig: Rig, _size: int) -> Ready:
    """Read the whole content of a bundle, piece by piece, as a download that finds none of it in memory."""
    bundle = rig.random.choice(rig.bundles)

    async def run() -> None:
        for offset in range(0, bundle.size, DOWNLOAD_PIECE_BYTES):
            read = partial(
                bundles.read_piece,
                body_id=bundle.body_id,
                digest=bundle.digest,
                offset=offset,
                size=min(DOWNLOAD_PIECE_BYTES, bundle.size - offset),
            )
            await rig.database.read(read)

    return run


OPERATIONS: Final[dict[str, Callable[[Rig, int], Ready]]] = {
    "node_insert": node_insert,
    "node_update": node_update,
    "one_row": one_row,
    "flush": flush,
    "several": several,
    "several_fail": several_fail,
    "node_by_id": node_by_id,
    "nodes_of_cluster": nodes_of_cluster,
    "next_page": next_page,
    "topology": topology,
    "versions": versions,
    "bundle_insert": bundle_insert,
    "bundles_of_cluster": bundles_of_cluster,
    "bundle_of_version": bundle_of_version,
    "bundle_body": bundle_body,
}
"""By name: given the rig and a size, each makes what it needs and returns what is then measured."""

WRITES: Final = frozenset(
    {"node_insert", "node_update", "one_row", "flush", "several", "several_fail", "bundle_insert"}
)


def _cluster(connection: sqlite3.Connection, cluster_id: str) -> Cluster:
    found = clusters.get(connection, cluster_id)
    if found is None:
        raise errors.NotFound("no such cluster")
    return found


def _node(connection: sqlite3.Connection, node_id: str) -> Node:
    found = nodes.get(connection, node_id)
    if found is None:
        raise errors.NotFound("no such node")
    return found
