"""The box's own lighthouses: what is wanted of them, how they are, and wishes to restart or stop one. Runs none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edgegc.control.callers import operator_only
from edgegc.errors import NotFound
from edgegc.model.event import RestartRequested, StopRequested
from edgegc.model.message import LighthouseList
from edgegc.store import clusters

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.model.lighthouse import LighthouseSpec


async def desired(control: Control) -> list[LighthouseSpec]:
    """Return what has to run on this box now, by cluster id. Cheap when nothing changed: specifications are kept."""
    return await control.specs.desired()


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
