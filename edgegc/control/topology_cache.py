"""The newest topology of each cluster, with the bytes it is sent as. Knows not who asks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import trio

from edgegc.control import existing, topology_reading
from edgegc.model.message import Topology

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.roll import Roll
    from edgegc.store.database import Database

ETAG_CHARACTERS = 16
"""Of the SHA-256 of a topology's bytes: a rename changes them and no version."""


class TopologyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A topology with its JSON bytes; the same objects while nothing of the cluster changes. ``etag`` names the bytes."""

    topology: Topology
    body: bytes
    etag: str
    revision: int


class Topologies:
    """The newest topology of each cluster, kept until anything of the cluster changes."""

    def __init__(self, database: Database, roll: Roll) -> None:
        self._database = database
        self._roll = roll
        self._documents: dict[str, TopologyDocument] = {}

    async def get(self, cluster_id: str) -> TopologyDocument:
        """Return a cluster's topology. NotFound."""
        revision = self._roll.revision(cluster_id)
        document = self._documents.get(cluster_id)
        if document is not None and document.revision == revision:
            await trio.lowlevel.checkpoint()
            return document

        def job(connection: sqlite3.Connection) -> Topology:
            cluster = existing.cluster(connection, cluster_id)
            return topology_reading.read(connection, cluster)

        topology = await self._database.read(job)
        body = msgspec.json.encode(topology)
        etag = hashlib.sha256(body).hexdigest()[:ETAG_CHARACTERS]
        document = TopologyDocument(topology=topology, body=body, etag=etag, revision=revision)
        # The revision is from before the reading: at worst it is older than what was read, and is read again.
        self._documents[cluster_id] = document
        return document

    def forget(self, cluster_id: str) -> None:
        """Forget a cluster that is gone."""
        self._documents.pop(cluster_id, None)
