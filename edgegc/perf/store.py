"""The real store as ``db.*`` measures it: a database with real rows in it, and the operations that are asked of it.

The laboratory's one look inside the server: it runs in a process of its own (:mod:`edgegc.perf.store_process`), within
the store's, and calls the functions of :mod:`edgegc.store` that use cases call, in their order. What use cases do beside it
(authorise, sign, seal, render) is left out: keys, certificates and bundles are random bytes of the size of real ones. Knows
no clock and no histogram.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import time
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from edgegc import errors
from edgegc.model.bundle import UploadedBundle
from edgegc.model.cluster import Authority, Cluster
from edgegc.model.identifier import RANDOM_BITS, time_ordered
from edgegc.model.node import Certificate, Node
from edgegc.model.policy import ANY_TO_ANY
from edgegc.model.tenant import Tenant
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
    tenants,
)
from edgegc.store.database import open_database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from edgegc.model.cluster import Mode
    from edgegc.store.database import Database

DATABASE_FILE: Final = "edgegc.db"

NETWORK: Final = IPv4Network("10.0.0.0/12")
"""A million addresses: no scenario runs out."""
FIRST_OFFSET: Final = 2
"""The first address is the box's lighthouse's."""

CERTIFICATE_BYTES: Final = 205
"""A host certificate of nebula 1.6 with a group: 350 characters of PEM."""
SEALED_KEY_BYTES: Final = 93
"""A private key of 64 bytes in its box."""
LIFETIME_S: Final = 365 * 86_400

DUTIES: Final = 20
"""Lighthouses and relays among the nodes, half each, in a cluster that has so many."""
ROUTES: Final = 100
"""Subnets behind nodes, one each, in a cluster that has so many."""

FIRST_MS: Final = 1_700_000_000_000
"""When the first id was made; each further one is of the next millisecond."""
SEEDED_AT_ONCE: Final = 500
"""Nodes per transaction while the database is filled."""
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


class NewNode(NamedTuple):
    """A node on its way into the database; its address is given in the write."""

    node: Node
    token_digest: bytes
    certificate: Certificate


class Rig:
    """A database that is open, and the ids of what is in it; made by :func:`opened`."""

    def __init__(self, database: Database, *, seed: int) -> None:
        self.database = database
        self.random = random.Random(seed)
        self._moments = itertools.count(FIRST_MS)
        self.managed = self.new_id()
        self.uploaded = self.new_id()
        self.authority = self.new_id()
        self.nodes: list[str] = []
        self.bundles: list[UploadedBundle] = []
        self._page_after: tuple[str | int | None, ...] | None = None
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """Return an id as the product makes them, in the order of their making; the same in each run with one seed."""
        return str(time_ordered(next(self._moments), self.random.getrandbits(RANDOM_BITS)))

    def any_node(self) -> str:
        """Return the id of one of the nodes that were there from the start."""
        return self.random.choice(self.nodes)

    def new_node(self) -> NewNode:
        """Return a node with its certificate, in no database yet."""
        number = next(self._numbers)
        now = int(time.time())
        node_id = self.new_id()
        body = base64.encodebytes(self.random.randbytes(CERTIFICATE_BYTES)).decode()
        certificate = Certificate(
            fingerprint=self.random.randbytes(32).hex(),
            cluster_id=self.managed,
            node_id=node_id,
            authority_id=self.authority,
            public_key=self.random.randbytes(32),
            overlay_ip="0.0.0.0",
            pem=f"-----BEGIN NEBULA CERTIFICATE-----\n{body}-----END NEBULA CERTIFICATE-----\n",
            state="current",
            issued_at=now,
            not_before=now,
            not_after=now + LIFETIME_S,
            renew_at=now + LIFETIME_S * 2 // 3,
            blocklist_at=None,
            superseded_in=None,
        )
        duty = number <= DUTIES
        node = Node(
            id=node_id,
            cluster_id=self.managed,
            name=f"node-{number:06d}",
            role="member",
            overlay_ip=None,
            mtu=1300,
            groups=("sensors",),
            listen_port=4242 if duty else None,
            is_lighthouse=duty and number % 2 == 1,
            is_relay=duty and number % 2 == 0,
            public_addresses=(f"198.51.100.{number}:4242",) if duty else (),
            routes=(),
            own_version=0,
            enrolment_key_id=None,
            enrolled_at=None,
            token_used_at=None,
            applied_version=None,
            reported_state=None,
            error=None,
            nebula_version=None,
            certificate=None,
            created_at=now,
            updated_at=now,
        )
        return NewNode(node, self.random.randbytes(32), certificate)

    # What operations do, before they are measured and while they are

    def node_insert(self, count: int) -> Ready:
        """Make nodes in one write: address, row, certificate and audit row of each, one version for all."""
        new = [self.new_node() for _ in range(count)]
        return lambda: self.database.write(lambda connection: self.create(connection, new))

    def create(self, connection: sqlite3.Connection, new: Sequence[NewNode]) -> list[Node]:
        """Do in a write what making nodes does."""
        cluster = _cluster(connection, self.managed)
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
        self.audit(connection, "node.create", *(node.id for node in made))
        return made

    def audit(self, connection: sqlite3.Connection, action: str, *targets: str) -> None:
        """Add the rows that every write has."""
        audit.insert(
            connection,
            *targets,
            at=int(time.time()),
            actor=ACTOR,
            action=action,
            request_id=self.new_id(),
            source=SOURCE,
        )

    def node_update(self, _size: int) -> Ready:
        """Change a node's MTU: read it, write it, raise its version, audit row."""
        node_id, mtu = self.any_node(), self.random.randrange(1280, 1400)

        def job(connection: sqlite3.Connection) -> None:
            node = _node(connection, node_id)
            _cluster(connection, node.cluster_id)
            version = clusters.next_version(connection, self.managed)
            after = msgspec.structs.replace(node, mtu=mtu, own_version=version, updated_at=int(time.time()))
            nodes.update(connection, node, after)
            self.audit(connection, "node.update", node.id)

        return lambda: self.database.write(job)

    def one_row(self, _size: int) -> Ready:
        """Write one row: what a node says of itself. The smallest write that there is."""
        report = self._report(self.any_node())
        return lambda: self.database.write(lambda connection: nodes.write_reports(connection, [report]))

    def flush(self, _size: int) -> Ready:
        """Write when all nodes were last heard of, as it is flushed four times an hour."""
        seen = [(node_id, int(time.time()) + self.random.randrange(60)) for node_id in sorted(self.nodes)]

        async def run() -> None:
            for begin in range(0, len(seen), FLUSHED_AT_ONCE):
                batch = seen[begin : begin + FLUSHED_AT_ONCE]
                await self.database.write(partial(last_seen.write, seen=batch))

        return run

    def _report(self, node_id: str) -> nodes.SelfReport:
        return nodes.SelfReport(
            node_id=node_id,
            applied_version=1,
            reported_state="ok",
            error=None,
            nebula_version="1.9.3",
        )

    def several(self, size: int) -> Ready:
        """Do several things in one write: make a node, give it a route, make it a relay, raise everybody's version."""
        return self._several(size, fails=False)

    def several_fail(self, size: int) -> Ready:
        """The same, and then a conflict: all of it is taken back."""
        return self._several(size, fails=True)

    def _several(self, _size: int, *, fails: bool) -> Ready:
        new = [self.new_node()]
        cidr = f"172.{self.random.randrange(16, 32)}.{self.random.randrange(256)}.{self.random.randrange(64) * 4}/30"

        def job(connection: sqlite3.Connection) -> None:
            (node,) = self.create(connection, new)
            if routes.owner(connection, self.managed, cidr) is None:
                routes.replace(connection, self.managed, node.id, [cidr])
            certificates.unlist_expired(connection, self.managed, now=node.created_at)
            clusters.next_wide_version(connection, self.managed, at=node.created_at)
            nodes.update(connection, node, msgspec.structs.replace(node, is_relay=True))
            clusters.wide_version(connection, self.managed)
            self.audit(connection, "node.relay.set", node.id)
            if fails:
                raise errors.Conflict("meant to fail")

        async def run() -> None:
            try:
                await self.database.write(job)
            except errors.Conflict:
                if not fails:
                    raise

        return run

    def node_by_id(self, _size: int) -> Ready:
        """Read a node with its routes and certificate, and its cluster."""
        job = self.node_of(self.any_node())
        return lambda: self.database.read(job)

    def node_of(self, node_id: str) -> Callable[[sqlite3.Connection], tuple[Node, Cluster]]:
        """Return what reads a certain node."""

        def job(connection: sqlite3.Connection) -> tuple[Node, Cluster]:
            node = _node(connection, node_id)
            return node, _cluster(connection, node.cluster_id)

        return job

    def nothing(self, connection: sqlite3.Connection) -> None:
        """Look for a node that does not exist."""
        nodes.get(connection, "")

    def nodes_of_cluster(self, _size: int) -> Ready:
        """Read the first page of a cluster's nodes by name, and how many there are."""
        return lambda: self.database.read(lambda connection: self._page(connection, None))

    def next_page(self, _size: int) -> Ready:
        """Read the page after the one read last, from the first again after the last."""

        async def run() -> None:
            after = self._page_after
            self._page_after = await self.database.read(lambda connection: self._page(connection, after))

        return run

    def _page(
        self, connection: sqlite3.Connection, after: tuple[str | int | None, ...] | None
    ) -> tuple[str | int | None, ...] | None:
        _cluster(connection, self.managed)
        wanted = node_pages.Filter(cluster_id=self.managed)
        rows = node_pages.page(
            connection, wanted, sort="name", descending=False, limit=PAGE_SIZE + 1, after=after
        )
        node_pages.count(connection, wanted)
        shown = rows[:PAGE_SIZE]
        nodes.get_many(connection, [node_id for node_id, _ in shown])
        return shown[-1][1] if len(rows) > len(shown) else None

    def topology(self, _size: int) -> Ready:
        """Read who is lighthouse or relay in a cluster, and its routes."""

        def job(connection: sqlite3.Connection) -> tuple[int, int]:
            cluster = _cluster(connection, self.managed)
            found = nodes.topology(connection, cluster.id)
            return len(found), len(routes.of_cluster(connection, cluster.id))

        return lambda: self.database.read(job)

    def versions(self, _size: int) -> Ready:
        """Read one row: a cluster's versions. The smallest read that there is."""
        return lambda: self.database.read(lambda connection: clusters.versions(connection, self.managed))

    def bundle_insert(self, size: int) -> Ready:
        """Store an upload, a piece per write, and make it the active one; the oldest beyond those kept goes."""
        body = self.random.randbytes(size)
        digest = hashlib.sha256(body).hexdigest()

        async def run() -> None:
            body_id = await self.database.write(
                lambda connection: bundles.reserve_body(connection, self.uploaded, digest=digest, size=size)
            )
            for offset in range(0, size, UPLOAD_PIECE_BYTES):
                piece = body[offset : offset + UPLOAD_PIECE_BYTES]

                def fill(connection: sqlite3.Connection, offset: int = offset, piece: bytes = piece) -> None:
                    _cluster(connection, self.uploaded)
                    bundles.write_piece(connection, body_id, offset=offset, piece=piece)

                await self.database.write(fill)

            def finish(connection: sqlite3.Connection) -> tuple[UploadedBundle, ...]:
                _cluster(connection, self.uploaded)
                bundles.finish_body(connection, body_id)
                at = int(time.time())
                version = clusters.next_wide_version(connection, self.uploaded, at=at)
                bundles.insert(
                    connection,
                    UploadedBundle(
                        cluster_id=self.uploaded,
                        version=version,
                        body_id=body_id,
                        digest=digest,
                        size=size,
                        uploaded_at=at,
                    ),
                )
                for old in bundles.history(connection, self.uploaded)[KEPT_BUNDLES:]:
                    bundles.delete(connection, old)
                self.audit(connection, "bundle.upload", f"{self.uploaded}/{version}")
                return bundles.history(connection, self.uploaded)

            self.bundles = list(await self.database.write(finish))

        return run

    def bundles_of_cluster(self, _size: int) -> Ready:
        """Read a cluster's history of bundles, the active one first."""

        def job(connection: sqlite3.Connection) -> int:
            _cluster(connection, self.uploaded)
            return len(bundles.history(connection, self.uploaded))

        return lambda: self.database.read(job)

    def bundle_of_version(self, _size: int) -> Ready:
        """Read one bundle of the history."""
        version = self.random.choice(self.bundles).version
        return lambda: self.database.read(lambda connection: bundles.get(connection, self.uploaded, version))

    def bundle_body(self, _size: int) -> Ready:
        """Read the whole content of a bundle, piece by piece, as a download that finds none of it in memory."""
        bundle = self.random.choice(self.bundles)

        async def run() -> None:
            for offset in range(0, bundle.size, DOWNLOAD_PIECE_BYTES):
                read = partial(
                    bundles.read_piece,
                    body_id=bundle.body_id,
                    digest=bundle.digest,
                    offset=offset,
                    size=min(DOWNLOAD_PIECE_BYTES, bundle.size - offset),
                )
                await self.database.read(read)

        return run

    # The content from the start

    async def fill(self, *, node_count: int, bundle_count: int, bundle_bytes: int) -> None:
        """Make the clusters and what is in them."""
        await self.database.write(self._make_clusters)
        for begin in range(0, node_count, SEEDED_AT_ONCE):
            new = [self.new_node() for _ in range(min(SEEDED_AT_ONCE, node_count - begin))]
            made = await self.database.write(partial(self.create, new=new))
            self.nodes += [node.id for node in made]
        behind = self.nodes[DUTIES : DUTIES + ROUTES]
        await self.database.write(lambda connection: self._make_routes(connection, behind))
        for _ in range(bundle_count):
            await self.bundle_insert(bundle_bytes)()
        await self.database.checkpoint()
        await self.database.optimize()

    def _make_clusters(self, connection: sqlite3.Connection) -> None:
        now = int(time.time())
        tenant_id = self.new_id()
        tenants.insert(connection, Tenant(id=tenant_id, name="laboratory", created_at=now))
        kinds: tuple[tuple[str, str, Mode], ...] = (
            (self.managed, "managed", "managed"),
            (self.uploaded, "uploaded", "uploaded"),
        )
        for port, (cluster_id, name, mode) in enumerate(kinds, 4242):
            cluster = Cluster(
                id=cluster_id,
                tenant_id=tenant_id,
                name=name,
                network_cidr=str(NETWORK),
                mode=mode,
                provide_lighthouse=False,
                provide_relay=False,
                lighthouse_port=port,
                lighthouse_public_addresses=(),
                allowed_routes=(),
                certificate_lifetime_s=LIFETIME_S,
                supersede_grace_s=86_400,
                policy=ANY_TO_ANY,
                version=1,
                wide_version=1,
                lighthouse_version=0,
                node_count=0,
                created_at=now,
                updated_at=now,
            )
            clusters.insert(connection, cluster, address_cursor=FIRST_OFFSET - 1)
        authorities.insert_authority(
            connection,
            Authority(
                id=self.authority,
                cluster_id=self.managed,
                fingerprint=self.random.randbytes(32).hex(),
                certificate_pem=self.new_node().certificate.pem,
                phase="active",
                not_after=now + 10 * LIFETIME_S,
                created_at=now,
            ),
            private_key=self.random.randbytes(SEALED_KEY_BYTES),
        )
        # The number that the authority's certificate took.
        self._numbers = itertools.count(1)

    def _make_routes(self, connection: sqlite3.Connection, behind: Sequence[str]) -> None:
        for number, node_id in enumerate(behind):
            routes.replace(connection, self.managed, node_id, [f"192.168.{number}.0/24"])


OPERATIONS: Final[dict[str, Callable[[Rig, int], Ready]]] = {
    "node_insert": Rig.node_insert,
    "node_update": Rig.node_update,
    "one_row": Rig.one_row,
    "flush": Rig.flush,
    "several": Rig.several,
    "several_fail": Rig.several_fail,
    "node_by_id": Rig.node_by_id,
    "nodes_of_cluster": Rig.nodes_of_cluster,
    "next_page": Rig.next_page,
    "topology": Rig.topology,
    "versions": Rig.versions,
    "bundle_insert": Rig.bundle_insert,
    "bundles_of_cluster": Rig.bundles_of_cluster,
    "bundle_of_version": Rig.bundle_of_version,
    "bundle_body": Rig.bundle_body,
}
"""By name: given the rig and a size, each makes what it needs and returns what is then measured."""

WRITES: Final = frozenset(
    {"node_insert", "node_update", "one_row", "flush", "several", "several_fail", "bundle_insert"}
)


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Database]:
    """Hold the database of a directory open, as the server would. Raises errors.Error."""
    async with open_database(directory / DATABASE_FILE) as database:
        yield database


def files(directory: Path) -> tuple[Path, Path]:
    """Return the database's file and that of its log."""
    path = directory / DATABASE_FILE
    return path, path.with_name(f"{path.name}-wal")


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
