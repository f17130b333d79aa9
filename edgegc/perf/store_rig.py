"""The database that ``db.*`` asks, the ids of what is in it, and what its next rows are made of.

Made of random bytes of the size of real keys, certificates and bundles, the same in each run with one seed. Knows nothing
of what is asked (:mod:`edgegc.perf.store`), nor of what was there from the start (:mod:`edgegc.perf.store_content`).
"""

from __future__ import annotations

import base64
import itertools
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from edgegc.model.identifier import RANDOM_BITS, time_ordered
from edgegc.model.node import Certificate, Node
from edgegc.store.database import open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgegc.model.bundle import UploadedBundle
    from edgegc.store.database import Database

DATABASE_FILE: Final = "edgegc.db"

CERTIFICATE_BYTES: Final = 205
"""A host certificate of nebula 1.6 with a group: 350 characters of PEM."""
LIFETIME_S: Final = 365 * 86_400

DUTIES: Final = 20
"""Lighthouses and relays among the nodes, half each, in a cluster that has so many."""

FIRST_MS: Final = 1_700_000_000_000
"""When the first id was made; each further one is of the next millisecond."""


class NewNode(NamedTuple):
    """A node on its way into the database; its address is given in the write."""

    node: Node
    token_digest: bytes
    certificate: Certificate


class Rig:
    """A database that is open, and the ids of what is in it."""

    def __init__(self, database: Database, *, seed: int) -> None:
        self.database = database
        self.random = random.Random(seed)
        self._moments = itertools.count(FIRST_MS)
        self.managed = self.new_id()
        self.uploaded = self.new_id()
        self.authority = self.new_id()
        self.nodes: list[str] = []
        self.bundles: list[UploadedBundle] = []
        self.page_after: tuple[str | int | None, ...] | None = None
        """Where the page that was read last ended."""
        self.numbers = itertools.count(1)
        """Of the nodes still to be made: in their names, and the first of them have duties."""

    def new_id(self) -> str:
        """Return an id as the product makes them, in the order of their making; the same in each run with one seed."""
        return str(time_ordered(next(self._moments), self.random.getrandbits(RANDOM_BITS)))

    def any_node(self) -> str:
        """Return the id of one of the nodes that were there from the start."""
        return self.random.choice(self.nodes)

    def new_node(self) -> NewNode:
        """Return a node with its certificate, in no database yet."""
        number = next(self.numbers)
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


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Database]:
    """Hold the database of a directory open, as the server would. Raises errors.Error."""
    async with open_database(directory / DATABASE_FILE) as database:
        yield database


def files(directory: Path) -> tuple[Path, Path]:
    """Return the database's file and that of its log."""
    path = directory / DATABASE_FILE
    return path, path.with_name(f"{path.name}-wal")
