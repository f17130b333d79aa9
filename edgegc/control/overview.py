"""The whole box at a glance, for metrics: every cluster, every node, with what is stored and what is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control.health import OK
from edgegc.model.node import State
from edgegc.store import overview

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.model.message import Health


class NodeOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A node. ``not_after`` of its current certificate, in Unix seconds."""

    cluster_id: str
    id: str
    name: str
    version: int
    applied_version: int | None
    state: State
    not_after: int | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, by name. ``backup_at``: when the newest backup was made, in Unix seconds; None while there is none."""

    clusters: list[overview.ClusterRow]
    nodes: list[NodeOverview]
    authorities: list[overview.KeyRow]
    lighthouses: list[overview.KeyRow]
    backup_at: int | None


async def gather(control: Control) -> Overview:
    """Read it; one read of the database, and of the directory of backups. Who may see it is the caller's business."""

    def read(
        connection: sqlite3.Connection,
    ) -> tuple[
        list[overview.ClusterRow], list[overview.NodeRow], list[overview.KeyRow], list[overview.KeyRow]
    ]:
        return (
            overview.clusters(connection),
            overview.nodes(connection),
            overview.authorities(connection),
            overview.lighthouses(connection),
        )

    clusters, nodes, authorities, lighthouses = await control.database.read(read)
    return Overview(
        clusters=clusters,
        nodes=[
            NodeOverview(
                cluster_id=node.cluster_id,
                id=node.id,
                name=node.name,
                version=control.roll.effective(node.id),
                applied_version=control.fleet.presence(node.id).applied_version,
                state=control.fleet.state_of(node.id),
                not_after=node.not_after,
            )
            for node in nodes
        ],
        authorities=authorities,
        lighthouses=lighthouses,
        backup_at=await control.backups.newest_at(),
    )


def health(control: Control) -> Health:
    """Return how the box is, by check."""
    # The store is asked now: it has no event for "the disk has room again".
    control.health.set("store", control.database.stats().trouble or OK)
    return control.health.report()
