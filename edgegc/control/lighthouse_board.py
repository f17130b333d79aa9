"""The board of how the box's own lighthouses are, by cluster. Memory only; knows not who runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.model.lighthouse import LighthouseStatus


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
