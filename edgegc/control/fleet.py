"""The fleet: what nodes say of themselves, in memory; written to the store now and then (flash wears out).

Trio thread only. ``last_seen_at`` is flushed every 15 minutes and at the end; a changed applied version, state, error or
nebula version within 10 seconds, batched.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, get_args

import trio

from edgegc.control.credentials import node_only
from edgegc.errors import Unavailable
from edgegc.model.node import ReportedState, State
from edgegc.store import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgegc.clock import Clock
    from edgegc.control.control import Control
    from edgegc.control.roll import Roll
    from edgegc.model.credential import Caller
    from edgegc.model.message import Report

logger = logging.getLogger(__name__)

OFFLINE_AFTER_S = 90
"""Three times the slowest poll that is told to a client that can't be held."""

FLUSH_S = 10
LAST_SEEN_FLUSH_S = 900
"""A flush of a thousand times is up to 66 KB of log: four of them an hour are nothing, one a second wears a card out."""

FLUSH_BATCH = 500
"""Rows per job, so that no writer waits long for a flush."""

LAST_FLUSH_WITHIN_S = 5
"""What a shutdown waits for the last flush at most."""

MAX_NEBULA_CHARACTERS = 64

_NUMBER = re.compile(r"[0-9]{1,15}")
_NEBULA = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
_STATES: tuple[ReportedState, ...] = get_args(ReportedState)


class Presence:
    """What is known of one node in memory. ``heard_at`` on trio's clock, None since the start; times else wall."""

    __slots__ = (
        "applied_version",
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

    def __init__(self, roll: Roll, clock: Clock) -> None:
        self._roll = roll
        self._clock = clock
        self._presences: dict[str, Presence] = {}
        self._changed: set[str] = set()
        self._seen: set[str] = set()
        self.malformed_reports = 0
        """Reports in headers that were ignored since the start."""

    def load(self, reports: Iterable[nodes.SelfReport]) -> None:
        """Take what was flushed before the start."""
        for report in reports:
            presence = self._presences[report.node_id] = Presence()
            presence.last_seen_at = report.last_seen_at
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
        presence.heard_at = trio.current_time()
        presence.last_seen_at = self._clock.now()
        self._seen.add(node_id)

    def hold(self, node_id: str) -> None:
        """Note that a version check of a node is held."""
        self._known(node_id).held += 1

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
        """Note what a node says it runs, and how it is. More than its effective version is ignored and logged."""
        presence = self._known(node_id)
        effective = self._roll.effective(node_id)
        if applied_version > effective:
            logger.warning(
                "a node reports a version that was never given to it: ignored",
                extra={"node_id": node_id, "version": applied_version, "reason": f"newest is {effective}"},
            )
            return
        if state != "failed":
            error = None
        now = (presence.applied_version, presence.reported_state, presence.error)
        if now != (applied_version, state, error):
            presence.applied_version, presence.reported_state = applied_version, state
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

    def last_seen(self, cluster_id: str) -> dict[str, int]:
        """Return when each node of a cluster was last heard of, without those that never were."""
        return {
            node_id: at
            for node_id in self._roll.members(cluster_id)
            if (at := self.presence(node_id).last_seen_at) is not None
        }

    async def flush(self, control: Control, *, last_seen: bool) -> None:
        """Write what changed; with ``last_seen`` also when nodes were heard of. Unavailable: it stays to be written."""
        waiting = self._changed | self._seen if last_seen else set(self._changed)
        while waiting:
            batch = [waiting.pop() for _ in range(min(FLUSH_BATCH, len(waiting)))]
            reports = [self._report(node_id) for node_id in batch if node_id in self._presences]
            self._changed.difference_update(batch)
            self._seen.difference_update(batch)
            try:
                await control.database.write(
                    lambda connection, reports=reports: nodes.write_reports(connection, reports)  # type: ignore[misc]
                )
            except BaseException:
                self._changed.update(
                    report.node_id for report in reports if report.node_id in self._presences
                )
                raise

    def _report(self, node_id: str) -> nodes.SelfReport:
        presence = self._presences[node_id]
        return nodes.SelfReport(
            node_id=node_id,
            last_seen_at=presence.last_seen_at,
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


def report(control: Control, caller: Caller, request: Report) -> None:
    """Take a node's report (``POST /api/v1/report``). Memory only, never waits. Forbidden for anybody but a node."""
    node_id = node_only(caller)
    if request.nebula_version is not None:
        control.fleet.runs_nebula(node_id, request.nebula_version)
    control.fleet.uses(
        node_id,
        lighthouse_reached=request.lighthouse_reached,
        rss_bytes=request.rss_bytes,
        cpu_percent=request.cpu_percent,
    )
    control.fleet.reported(
        node_id, applied_version=request.applied_version, state=request.state, error=request.error
    )


def ride_along(
    control: Control, node_id: str, *, applied: str | None, state: str | None, nebula: str | None
) -> None:
    """Take the report in a version check's headers, as sent. Malformed ones are counted and ignored."""
    fleet = control.fleet
    if nebula is not None:
        if len(nebula) <= MAX_NEBULA_CHARACTERS and _NEBULA.fullmatch(nebula):
            fleet.runs_nebula(node_id, nebula)
        else:
            fleet.malformed_reports += 1
    if applied is None and state is None:
        return
    known = fleet.presence(node_id)
    reported = next((each for each in _STATES if each == state), None)
    if applied is None or _NUMBER.fullmatch(applied) is None or (state is not None and reported is None):
        fleet.malformed_reports += 1
        return
    # The headers have no room for a sentence: the one of the last report stays as long as the state does.
    fleet.reported(
        node_id,
        applied_version=int(applied),
        state=reported or known.reported_state or "ok",
        error=known.error,
    )


async def run(control: Control, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Write what changed to the store, until cancelled; then once more, for a bounded time."""
    task_status.started()
    try:
        next_last_seen = trio.current_time() + LAST_SEEN_FLUSH_S
        while True:
            await trio.sleep(FLUSH_S)
            last_seen = trio.current_time() >= next_last_seen
            if await _flush(control, last_seen=last_seen) and last_seen:
                next_last_seen = trio.current_time() + LAST_SEEN_FLUSH_S
    finally:
        with trio.move_on_after(LAST_FLUSH_WITHIN_S, shield=True):
            await _flush(control, last_seen=True)


async def _flush(control: Control, *, last_seen: bool) -> bool:
    try:
        await control.fleet.flush(control, last_seen=last_seen)
        if last_seen:
            await control.token_uses.flush(control)
    except Unavailable as error:
        logger.warning("what nodes report can't be stored now", extra={"reason": error.message})
        return False
    return True
