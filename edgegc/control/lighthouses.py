"""The box's own lighthouses: what is wanted of each, and the board of how each is. Runs none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from edgegc.control import rendering
from edgegc.control.credentials import operator_only
from edgegc.errors import NotFound
from edgegc.model.event import RestartRequested, StopRequested
from edgegc.model.message import LighthouseList
from edgegc.store import clusters

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster
    from edgegc.model.credential import Caller
    from edgegc.model.lighthouse import LighthouseSpec, LighthouseStatus


class Board:
    """How the box's lighthouses are: written by the supervisor, read by the API."""

    def __init__(self) -> None:
        self._statuses: dict[str, LighthouseStatus] = {}

    def publish(self, status: LighthouseStatus) -> None:
        """Replace what is known of a cluster's lighthouse."""
        self._statuses[status.cluster_id] = status

    def remove(self, cluster_id: str) -> None:
        """Forget the lighthouse of a cluster that wants none any more."""
        self._statuses.pop(cluster_id, None)

    def get(self, cluster_id: str) -> LighthouseStatus | None:
        """Return what is known of a cluster's lighthouse."""
        return self._statuses.get(cluster_id)

    def all(self) -> tuple[LighthouseStatus, ...]:
        """Return all statuses by cluster name."""
        return tuple(sorted(self._statuses.values(), key=lambda status: (status.name, status.cluster_id)))


class Specs:
    """The newest specification of each lighthouse, kept until its cluster's settings or versions change."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[Cluster, LighthouseSpec]] = {}

    async def desired(self, control: Control) -> list[LighthouseSpec]:
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
                spec = rendering.lighthouse_spec(connection, control.vault, cluster)
                if spec is not None:
                    specs[cluster.id] = (key, spec)
            return specs

        self._specs = await control.database.read(job)
        return [spec for _, spec in self._specs.values()]


async def desired(control: Control) -> list[LighthouseSpec]:
    """Return what has to run on this box now, by cluster id. Cheap when nothing changed: specifications are kept."""
    return await control.specs.desired(control)


async def list_(control: Control, caller: Caller) -> LighthouseList:
    """Return the box's lighthouses. Operator only."""
    operator_only(caller)
    await trio.lowlevel.checkpoint()
    return LighthouseList(lighthouses=control.lighthouses.all())


async def restart(control: Control, caller: Caller, cluster_id: str) -> None:
    """Ask for a restart of a cluster's lighthouse; returns when the wish is noted. NotFound when it has none."""
    await _ask(control, caller, "lighthouse.restart", RestartRequested(cluster_id=cluster_id))


async def stop(control: Control, caller: Caller, cluster_id: str) -> None:
    """Ask to end a cluster's lighthouse until the daemon starts again; returns when the wish is noted. NotFound."""
    await _ask(control, caller, "lighthouse.stop", StopRequested(cluster_id=cluster_id))


async def _ask(
    control: Control, caller: Caller, action: str, event: RestartRequested | StopRequested
) -> None:
    operator_only(caller)

    def job(write: Write) -> None:
        cluster = clusters.get(write.connection, event.cluster_id)
        if cluster is None or not cluster.provide_lighthouse:
            raise NotFound("this cluster has no lighthouse on this box")
        write.audit(action, event.cluster_id)
        write.emit(event)

    await control.write(caller, job)
