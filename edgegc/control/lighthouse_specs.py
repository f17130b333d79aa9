"""What is wanted of each of the box's own lighthouses, kept between looks. Knows not how any of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import rendering
from edgegc.store import clusters

if TYPE_CHECKING:
    import sqlite3

    from edgegc.model.cluster import Cluster
    from edgegc.model.lighthouse import LighthouseSpec
    from edgegc.store.database import Database
    from edgegc.store.vault import Vault


class Specs:
    """The newest specification of each lighthouse, kept until its cluster's settings or versions change."""

    def __init__(self, database: Database, *, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._specs: dict[str, tuple[Cluster, LighthouseSpec]] = {}

    async def desired(self) -> list[LighthouseSpec]:
        """Return what has to run on this box now, by cluster id."""
        kept = self._specs

        def job(connection: sqlite3.Connection) -> dict[str, tuple[Cluster, LighthouseSpec]]:
            specs: dict[str, tuple[Cluster, LighthouseSpec]] = {}
            for cluster in clusters.with_lighthouse(connection):
                # New nodes raise only these two, and no lighthouse has to know of them.
                key = msgspec.structs.replace(cluster, version=0, node_count=0)
                known = kept.get(cluster.id)
                if known is not None and known[0] == key:
                    specs[cluster.id] = known
                    continue
                spec = rendering.lighthouse_spec(connection, self._vault, cluster)
                if spec is not None:
                    specs[cluster.id] = (key, spec)
            return specs

        self._specs = await self._database.read(job)
        return [spec for _, spec in self._specs.values()]
