"""The newest bundles: one rendering for many askers, in bounded memory. Knows not who asks, nor how one is made."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from edgegc.control import existing, rendering
from edgegc.errors import NotFound

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.roll import Roll
    from edgegc.model.manifest import Server
    from edgegc.store.database import Database
    from edgegc.store.vault import Vault

Offer = rendering.SignedBundle | rendering.SignedUpload
"""What a node gets."""

CACHE_BYTES = 8 * 1024 * 1024
"""About three thousand bundles of a small cluster; the box has 512 MB for everything."""

SIGNATURE_BYTES = 512
"""What an uploaded bundle costs per node: the body is the same for all, and not kept here."""

NO_BUNDLE = "this node has no bundle yet: it must send its public key first, or an admin upload one"

COMMON_CLUSTERS = 32
"""For how many clusters what their bundles share is kept between renderings."""


class Bundles:
    """The newest bundles, by node id, least recently used out first."""

    def __init__(
        self,
        database: Database,
        roll: Roll,
        *,
        vault: Vault,
        servers: tuple[Server, ...],
        capacity_bytes: int = CACHE_BYTES,
    ) -> None:
        self._database = database
        self._roll = roll
        self._vault = vault
        self._servers = servers
        self._capacity = capacity_bytes
        self._bundles: OrderedDict[str, Offer] = OrderedDict()
        self._bytes = 0
        self._loading: dict[str, trio.Event] = {}
        self._common: OrderedDict[str, rendering.Common | rendering.Upload] = OrderedDict()
        self.rendered = 0
        """How many bundles were rendered since the start."""

    @property
    def size_bytes(self) -> int:
        """How much the cache holds."""
        return self._bytes

    async def get(self, node_id: str) -> Offer:
        """Return a node's bundle; whoever asks while it is rendered waits for that. NotFound.

        A cancelled or failed rendering is taken over by one of those who wait.
        """
        while True:
            bundle = self._bundles.get(node_id)
            # A newer one than the roll knows was read between a commit and its following: it is right soon.
            if bundle is not None and bundle.version >= self._roll.effective(node_id):
                self._bundles.move_to_end(node_id)
                await trio.lowlevel.checkpoint()
                return bundle
            loading = self._loading.get(node_id)
            if loading is None:
                break
            await loading.wait()
        done = self._loading[node_id] = trio.Event()
        try:
            bundle = await self._render(node_id)
        finally:
            del self._loading[node_id]
            done.set()
        self._keep(node_id, bundle)
        return bundle

    def forget(self, node_id: str) -> None:
        """Drop the bundle of a node that is gone."""
        bundle = self._bundles.pop(node_id, None)
        if bundle is not None:
            self._bytes -= _cost(bundle)

    def forget_cluster(self, cluster_id: str) -> None:
        """Drop what the bundles of a cluster that is gone shared."""
        self._common.pop(cluster_id, None)

    async def _render(self, node_id: str) -> Offer:
        entry = self._roll.entry(node_id)
        known = None if entry is None else self._common.get(entry.cluster_id)

        def job(
            connection: sqlite3.Connection,
        ) -> tuple[Offer | None, str, rendering.Common | rendering.Upload | None]:
            node, cluster = existing.node(connection, node_id)
            common = known if known is not None and known.wide_version == cluster.wide_version else None
            if cluster.mode == "uploaded":
                if not isinstance(common, rendering.Upload):
                    common = rendering.read_upload(connection, self._vault, cluster)
                return None if common is None else rendering.sign_upload(node, common), cluster.id, common
            if not isinstance(common, rendering.Common):
                common = rendering.read_common(connection, self._vault, cluster)
            bundle = rendering.node_bundle(node, cluster, common, servers=self._servers)
            return bundle, cluster.id, common

        bundle, cluster_id, common = await self._database.read(job)
        if common is not None:
            self._common[cluster_id] = common
            self._common.move_to_end(cluster_id)
        while len(self._common) > COMMON_CLUSTERS:
            self._common.popitem(last=False)
        if bundle is None:
            raise NotFound(NO_BUNDLE)
        self.rendered += 1
        return bundle

    def _keep(self, node_id: str, bundle: Offer) -> None:
        self.forget(node_id)
        if _cost(bundle) > self._capacity:
            return
        self._bundles[node_id] = bundle
        self._bytes += _cost(bundle)
        while self._bytes > self._capacity:
            _, oldest = self._bundles.popitem(last=False)
            self._bytes -= _cost(oldest)


def _cost(bundle: Offer) -> int:
    return len(bundle.body) if isinstance(bundle, rendering.SignedBundle) else SIGNATURE_BYTES
