"""Rollout: desired against applied versions of a cluster's nodes. Reads rows and the fleet; changes nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgegc.control.permissions import cluster_of
from edgegc.errors import NotFound
from edgegc.model.message import Rollout, RolloutBehind, RolloutCounts, rfc3339
from edgegc.store import clusters, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.node import State

_Row = tuple[str, str, int, int | None]


async def rollout(control: Control, caller: Caller, cluster_id: str | None) -> Rollout:
    """Return how far a cluster's nodes have come: all counted by state, and each that does not run its version."""
    found = cluster_of(control, caller, cluster_id, "read")

    def job(connection: sqlite3.Connection) -> tuple[int, int, int, list[_Row]]:
        versions = clusters.versions(connection, found)
        if versions is None:
            raise NotFound("no such cluster")
        return (*versions, nodes.versions(connection, found))

    version, wide_version, wide_version_at, rows = await control.database.read(job)
    states: Counter[State] = Counter()
    behind: list[RolloutBehind] = []
    for node_id, name, own_version, own_version_at in rows:
        state = control.fleet.state_of(node_id)
        states[state] += 1
        effective = control.roll.effective(node_id)
        applied = control.fleet.presence(node_id).applied_version
        if (applied or 0) != effective:
            since = own_version_at if own_version > wide_version else wide_version_at
            behind.append(
                RolloutBehind(
                    id=node_id,
                    name=name,
                    state=state,
                    version=effective,
                    applied_version=applied,
                    since=None if since is None else rfc3339(since),
                )
            )
    return Rollout(
        version=version,
        nodes=RolloutCounts(
            total=len(rows),
            online=states["online"],
            behind=states["behind"],
            failed=states["failed"],
            offline=states["offline"],
        ),
        behind=tuple(behind),
    )
