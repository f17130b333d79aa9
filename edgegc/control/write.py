"""One write: its connection, time and caller, its audit row, and what the commit has to tell the rest of the daemon.

A job is a function of a :class:`Write`. It runs in the writer's thread, perhaps twice, so it reads and changes rows, seals
and signs, and touches nothing else. It knows no roll and no bus: those follow the events it leaves.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from edgegc.model.event import ClusterChanged, ClusterDeleted, Event, NodeChanged, NodeDeleted
from edgegc.model.identifier import RANDOM_BITS, time_ordered
from edgegc.store import audit, clusters, nodes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from edgegc.model.credential import Caller
    from edgegc.store.vault import Vault

T = TypeVar("T")


class Committed(msgspec.Struct, Generic[T], frozen=True):
    """What a job gives back: its value, and the events to follow once it is committed."""

    value: T
    events: tuple[Event, ...]


class Write:
    """The context of one write. ``now`` in Unix seconds."""

    def __init__(self, connection: sqlite3.Connection, *, caller: Caller, now: int, vault: Vault) -> None:
        self.connection = connection
        self.caller = caller
        self.now = now
        self.vault = vault
        self._nodes: dict[str, NodeChanged | None] = {}
        self._clusters: dict[str, None] = {}
        self._events: list[Event] = []
        self._remembered: dict[str, Any] = {}

    def remember(self, key: str, read: Callable[[], T]) -> T:
        """Return what ``read`` returned the first time: for what a write of many parts needs for each of them."""
        if key not in self._remembered:
            self._remembered[key] = read()
        found: T = self._remembered[key]
        return found

    def forget(self, key: str) -> None:
        """Forget what :meth:`remember` returned, because this write changes it."""
        self._remembered.pop(key, None)

    def audit(self, action: str, *targets: str | None) -> None:
        """Say what was done to what (a record's id): one row each, in the same transaction."""
        audit.insert(
            self.connection,
            *targets,
            at=self.now,
            actor=f"{self.caller.kind}:{self.caller.id}",
            action=action,
            request_id=self.caller.request_id,
            source=self.caller.source,
        )

    def changed_node(self, node_id: str, entry: NodeChanged | None = None) -> None:
        """Note that anything of a node was changed. Its roll entry is read again at the end; unless it is known already,
        and nothing of the node is changed after that.
        """
        self._nodes[node_id] = entry

    def changed_cluster(self, cluster_id: str) -> None:
        """Note that settings of a cluster, or its wide or lighthouse version, were changed."""
        self._clusters[cluster_id] = None

    def deleted_node(self, node_id: str, cluster_id: str) -> None:
        """Note that a node was deleted."""
        self._nodes.pop(node_id, None)
        self._events.append(NodeDeleted(node_id=node_id, cluster_id=cluster_id))

    def deleted_cluster(self, cluster_id: str) -> None:
        """Note that a cluster was deleted, with all that is in it."""
        self._clusters.pop(cluster_id, None)
        self._events.append(ClusterDeleted(cluster_id=cluster_id))

    def emit(self, event: Event) -> None:
        """Leave an event as it is."""
        self._events.append(event)

    def events(self) -> tuple[Event, ...]:
        """Return what the commit has to tell. Versions are read here, so that they are always the committed ones."""
        changed: list[Event] = []
        for cluster_id in self._clusters:
            wide_version = clusters.wide_version(self.connection, cluster_id)
            if wide_version is not None:
                changed.append(ClusterChanged(cluster_id=cluster_id, wide_version=wide_version))
        changed.extend(entry for entry in self._nodes.values() if entry is not None)
        unread = [node_id for node_id, entry in self._nodes.items() if entry is None]
        if unread:
            changed.extend(nodes.roll_entries(self.connection, unread))
        return (*self._events, *changed)


def new_id() -> str:
    """Return the id of a new record."""
    return str(time_ordered(time.time_ns() // 1_000_000, secrets.randbits(RANDOM_BITS)))
