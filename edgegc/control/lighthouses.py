"""The box's own lighthouses: what is wanted of each, and the board of how each is. Runs none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.lighthouse import LighthouseSpec, LighthouseStatus
    from edgegc.model.message import LighthouseList


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


async def desired(control: Control) -> list[LighthouseSpec]:
    """Return what has to run on this box now, by cluster id. Cheap when nothing changed: specs are kept per version."""
    raise NotImplementedError


async def list_(control: Control, caller: Caller) -> LighthouseList:
    """Return the box's lighthouses. Operator only."""
    raise NotImplementedError


async def restart(control: Control, caller: Caller, cluster_id: str) -> None:
    """Ask for a restart of a cluster's lighthouse; returns at once. NotFound when the cluster has none."""
    raise NotImplementedError


async def stop(control: Control, caller: Caller, cluster_id: str) -> None:
    """Ask to end a cluster's lighthouse until the daemon starts again; returns at once."""
    raise NotImplementedError
