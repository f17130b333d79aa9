"""Rollout: desired against applied versions of a cluster's nodes. Reads rows and the fleet; changes nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from edgegc.control.permissions import cluster_of
from edgegc.errors import NotFound
from edgegc.model.message import Rollout, RolloutBehind, RolloutCounts, rfc3339
from edgegc.store import clusters, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.node import State

SHOWN: Final = 500
"""Nodes that are behind, as many as the largest page has: this is asked twice a second while somebody waits."""
_FIRST: Final[dict[State, int]] = {"failed": 0, "behind": 1, "online": 2, "offline": 3}
"""Who has failed wants help; who is offline may be gone for good."""

_Row = tuple[str, str, int, int | None]


async def rollout(control: Control, caller: Caller, cluster_id: str | None) -> Rollout:
    """Return how far a cluster's nodes have come: all counted by state, and those that do not run their version."""
    found = cluster_of(control, caller, cluster_id, "read")

    def job(connection: sqlite3.Connection) -> tuple[int, int, int, list[_Row]]:
        versions = clusters.versions(connection, found)
        if versions is None:
            raise NotFound("no such cluster")
        return (*versions, nodes.versions(connection, found))

    version, wide_version, wide_version_at, rows = await control.database.read(job)
    states: Counter[State] = Counter()
    behind: list[tuple[State, _Row]] = []
    for row in rows:
        state = control.fleet.state_of(row[0])
        states[state] += 1
        if (control.fleet.presence(row[0]).applied_version or 0) != control.roll.effective(row[0]):
            behind.append((state, row))
    # Within a state they stay in the order of their names.
    behind.sort(key=lambda each: _FIRST[each[0]])

    def view(state: State, row: _Row) -> RolloutBehind:
        node_id, name, own_version, own_version_at = row
        since = own_version_at if own_version > wide_version else wide_version_at
        return RolloutBehind(
            id=node_id,
            name=name,
            state=state,
            version=control.roll.effective(node_id),
            applied_version=control.fleet.presence(node_id).applied_version,
            since=None if since is None else rfc3339(since),
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
        behind=tuple(view(*each) for each in behind[:SHOWN]),
        behind_total=len(behind),
        behind_truncated=len(behind) > SHOWN,
    )
