"""What nodes say of themselves and when, in memory; written to the store when told. Trio thread only; knows no caller."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from edgegc.store import last_seen, nodes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping

    from edgegc.clock import Clock
    from edgegc.control.roll import Roll
    from edgegc.model.node import ReportedState, State
    from edgegc.store.database import Database

logger = logging.getLogger(__name__)

OFFLINE_AFTER_S = 90
"""Three times the slowest poll that is told to a client that can't be held."""

FLUSH_BATCH = 500
"""Rows per job, so that no writer waits long for a flush."""


class Presence:
    """What is known of one node in memory. ``heard_at`` on trio's clock, None since the start; times else wall.

    ``changes`` counts how often anything was noted that others are shown.
    """

    __slots__ = (
        "applied_version",
        "changes",
        "cpu_percent",
        "error",
        "heard_at",
        "held",
        "last_seen_at",
        "lighthouse_reached",
        "nebula_version",
        "reported_state",
        "rss_bytes",
    )

    def __init__(self) -> None:
        self.changes = 0
        self.last_seen_at: int | None = None
        self.heard_at: float | None = None
        self.held = 0
        self.applied_version: int | None = None
        self.reported_state: ReportedState | None = None
        self.error: str | None = None
        self.nebula_version: str | None = None
        self.lighthouse_reached: bool | None = None
        self.rss_bytes: int | None = None
        self.cpu_percent: float | None = None


_NOTHING_KNOWN = Presence()


class Fleet:
    """When each node was last heard of, what it runs and how it is."""

    def __init__(self, database: Database, roll: Roll, *, clock: Clock) -> None:
        self._database = database
        self._roll = roll
        self._clock = clock
        self._presences: dict[str, Presence] = {}
        self._changed: set[str] = set()
        self._seen: set[str] = set()
        self.malformed_reports = 0
        """Reports in headers that were ignored since the start."""

    def load(self, reports: Iterable[nodes.SelfReport], last_seen: Mapping[str, int]) -> None:
        """Take what was flushed before the start; ``last_seen`` in Unix seconds by node id."""
        for report in reports:
            presence = self._presences[report.node_id] = Presence()
            presence.last_seen_at = last_seen.get(report.node_id)
            presence.applied_version = report.applied_version
            presence.reported_state = report.reported_state
            presence.error = report.error
            presence.nebula_version = report.nebula_version

    def forget(self, node_id: str) -> None:
        """Forget a node that is gone."""
        self._presences.pop(node_id, None)
        self._changed.discard(node_id)
        self._seen.discard(node_id)

    def presence(self, node_id: str) -> Presence:
        """Return what is known of a node, to read."""
        return self._presences.get(node_id, _NOTHING_KNOWN)

    def seen(self, node_id: str) -> None:
        """Note that a node was heard of now."""
        presence = self._known(node_id)
        presence.changes += 1
        presence.heard_at = trio.current_time()
        presence.last_seen_at = self._clock.now()
        self._seen.add(node_id)

    def hold(self, node_id: str) -> None:
        """Note that a version check of a node is held."""
        presence = self._known(node_id)
        presence.changes += 1
        presence.held += 1

    def release(self, node_id: str) -> None:
        """Note that a held version check of a node ended: until now it was there."""
        presence = self._presences.get(node_id)
        if presence is not None:
            presence.held -= 1
            self.seen(node_id)

    def runs_nebula(self, node_id: str, nebula_version: str) -> None:
        """Note which nebula a node runs."""
        presence = self._known(node_id)
        if presence.nebula_version != nebula_version:
            presence.changes += 1
            presence.nebula_version = nebula_version
            self._changed.add(node_id)

    def uses(
        self,
        node_id: str,
        *,
        lighthouse_reached: bool | None,
        rss_bytes: int | None,
        cpu_percent: float | None,
    ) -> None:
        """Note what a node's nebula reaches and uses; None leaves what is known. Never stored."""
        presence = self._known(node_id)
        if lighthouse_reached is not None:
            presence.lighthouse_reached = lighthouse_reached
        if rss_bytes is not None:
            presence.rss_bytes = rss_bytes
        if cpu_percent is not None:
            presence.cpu_percent = cpu_percent

    def reported(
        self, node_id: str, *, applied_version: int, state: ReportedState, error: str | None
    ) -> None:
        """Note what a node says it runs, and how it is. More than its effective version is ignored and logged.

        That it failed is noted even then: after an older database was put back, nodes refuse all that it offers, and
        must not be shown as if they were well.
        """
        presence = self._known(node_id)
        effective = self._roll.effective(node_id)
        applied: int | None = applied_version
        if applied_version > effective:
            logger.warning(
                "a node reports a version that was never given to it: ignored",
                extra={"node_id": node_id, "version": applied_version, "reason": f"newest is {effective}"},
            )
            if state != "failed":
                return
            applied = presence.applied_version
        if state != "failed":
            error = None
        now = (presence.applied_version, presence.reported_state, presence.error)
        if now != (applied, state, error):
            presence.changes += 1
            presence.applied_version, presence.reported_state = applied, state
            presence.error = error
            self._changed.add(node_id)

    def state_of(self, node_id: str) -> State:
        """Return a node's state: the first that holds of offline, failed, behind, online."""
        return self._state(node_id, trio.current_time())

    def in_state(self, cluster_id: str, state: State) -> set[str]:
        """Return the ids of a cluster's nodes that are in a state."""
        now = trio.current_time()
        return {node_id for node_id in self._roll.members(cluster_id) if self._state(node_id, now) == state}

    def _state(self, node_id: str, now: float) -> State:
        presence = self._presences.get(node_id, _NOTHING_KNOWN)
        if presence.held == 0 and (presence.heard_at is None or now - presence.heard_at > OFFLINE_AFTER_S):
            return "offline"
        if presence.reported_state == "failed":
            return "failed"
        if (presence.applied_version or 0) != self._roll.effective(node_id):
            return "behind"
        return "online"

    def said(self, node_ids: Iterable[str]) -> int:
        """Return a number that rises with whatever is noted of any of some nodes, and is shown."""
        known = self._presences
        return sum(known[each].changes for each in node_ids if each in known)

    def steady_until(self, node_ids: Iterable[str]) -> float:
        """Return until when, on trio's clock, no state of some nodes changes by time alone: then the first is offline."""
        now = trio.current_time()
        known = (self.presence(each) for each in node_ids)
        offline_at = (
            each.heard_at + OFFLINE_AFTER_S for each in known if not each.held and each.heard_at is not None
        )
        return min((at for at in offline_at if at >= now), default=math.inf)

    def last_seen(self, cluster_id: str) -> dict[str, int]:
        """Return when each node of a cluster was last heard of, without those that never were."""
        return {
            node_id: at
            for node_id in self._roll.members(cluster_id)
            if (at := self.presence(node_id).last_seen_at) is not None
        }

    async def flush(self, *, last_seen: bool) -> None:
        """Write what changed; with ``last_seen`` also when nodes were heard of. Unavailable: it stays to be written."""
        await self._flush(self._changed, self._reporting)
        if last_seen:
            await self._flush(self._seen, self._dating)

    async def _flush(
        self, waiting: set[str], job_of: Callable[[list[str]], Callable[[sqlite3.Connection], None]]
    ) -> None:
        """Write what waits, a batch a job. In order, so that the rows of a page are written together, and it once."""
        ordered = sorted(waiting)
        for begin in range(0, len(ordered), FLUSH_BATCH):
            waiting.difference_update(ordered[begin : begin + FLUSH_BATCH])
            batch = [each for each in ordered[begin : begin + FLUSH_BATCH] if each in self._presences]
            try:
                await self._database.write(job_of(batch))
            except BaseException:
                waiting.update(each for each in batch if each in self._presences)
                raise

    def _reporting(self, node_ids: list[str]) -> Callable[[sqlite3.Connection], None]:
        reports = [self._report(node_id) for node_id in node_ids]
        return lambda connection: nodes.write_reports(connection, reports)

    def _dating(self, node_ids: list[str]) -> Callable[[sqlite3.Connection], None]:
        seen = [(each, at) for each in node_ids if (at := self._presences[each].last_seen_at) is not None]
        return lambda connection: last_seen.write(connection, seen)

    def _report(self, node_id: str) -> nodes.SelfReport:
        presence = self._presences[node_id]
        return nodes.SelfReport(
            node_id=node_id,
            applied_version=presence.applied_version,
            reported_state=presence.reported_state,
            error=presence.error,
            nebula_version=presence.nebula_version,
        )

    def _known(self, node_id: str) -> Presence:
        presence = self._presences.get(node_id)
        if presence is None:
            presence = Presence()
            # A call of a node that was deleted while it ran leaves nothing behind.
            if self._roll.entry(node_id) is not None:
                self._presences[node_id] = presence
        return presence
