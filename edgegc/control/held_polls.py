"""Held version checks: who waits for a change, and how many may. Trio thread only; knows no SQL and no HTTP.

Order on a write: COMMIT, roll replaced, waiters woken, writer answered. :meth:`Polls.park` compares and parks with no
checkpoint between, so no wake-up is missed. How it waits is the caller's: 10,000 are woken in one pass, a call each, and
a connection needs no task of its own for a check that it holds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from edgegc.errors import Unauthorized
from edgegc.model.event import ClusterChanged, ClusterDeleted, Event, NodeChanged, NodeDeleted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgegc.control.roll import Roll, RollEntry

HELD_PER_NODE = 2
"""One, and one whose client has gone unnoticed; a third answers the oldest."""

SPREAD_FROM = 50
"""As many may download at once without anybody noticing."""

DOWNLOADS_PER_SECOND = 100
"""What a small box renders, signs and sends beside its other work."""

MAX_SPREAD_S = 60
"""A change is never held back longer than this for the box's comfort."""

INTERVAL_S = 30
"""What a client is told to poll at when it can't be held: 10,000 nodes make 333 checks a second of it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a version check.

    ``version`` is the effective one. ``spread_s``: many woke at once, wait a random part of it before downloading.
    ``interval_s``: do not hold, poll again after that ± 10 %. ``waited`` says that time has passed: the caller must be
    authenticated again.
    """

    version: int
    spread_s: int | None = None
    interval_s: int | None = None
    waited: bool = False


class Waiter:
    """A version check that is held, from :meth:`Polls.park` to :meth:`Polls.leave`."""

    __slots__ = ("cluster_id", "current", "node_id", "spread_s", "token_digest", "wake", "woken")

    def __init__(self, entry: RollEntry, current: int, wake: Callable[[], None]) -> None:
        self.cluster_id = entry.cluster_id
        self.node_id = entry.node_id
        self.token_digest = entry.token_digest
        self.current = current
        self.wake = wake
        self.woken = False
        self.spread_s: int | None = None


class Polls:
    """The held version checks of all nodes, by cluster."""

    def __init__(self, roll: Roll, *, limit: int) -> None:
        self._roll = roll
        self._limit = limit
        self._waiting: dict[str, dict[str, list[Waiter]]] = {}
        self._held = 0
        self.memory_short = False
        """Set by whoever watches memory: no further poll is held while it is true."""

    @property
    def held(self) -> int:
        """How many version checks are held now."""
        return self._held

    def holds(self, cluster_id: str, node_id: str) -> bool:
        """Whether a node has a version check held now."""
        return node_id in self._waiting.get(cluster_id, ())

    def now(self, node_id: str) -> Answer:
        """Return the answer as of now, with the hint not to hold when there is no room. Unauthorized: the node is gone."""
        entry = self._roll.entry(node_id)
        if entry is None:
            raise Unauthorized("the node is gone")
        return Answer(version=self._roll.effective_of(entry), interval_s=INTERVAL_S if self._full() else None)

    def would_hold(self, node_id: str, current: int | None) -> bool:
        """Whether a check would be held now: ``current`` is the node's effective version, and there is room."""
        entry = self._roll.entry(node_id)
        return entry is not None and self._roll.effective_of(entry) == current and not self._full()

    def park(self, node_id: str, *, current: int | None, wake: Callable[[], None]) -> Waiter | None:
        """Hold a version check until :meth:`leave`; None where it would not be held, to be answered with :meth:`now`.

        ``wake`` is called at most once, as soon as there is something to answer. That is in the middle of a commit: it
        only schedules who waits, and never raises.
        """
        entry = self._roll.entry(node_id)
        if entry is None or current is None or not self.would_hold(node_id, current):
            return None
        waiter = Waiter(entry, current, wake)
        waiters = self._waiting.setdefault(waiter.cluster_id, {}).setdefault(node_id, [])
        if len(waiters) >= HELD_PER_NODE:
            # It stays in the list until it has left, so look for one that is not answered yet.
            _wake([next((old for old in waiters if not old.woken), waiters[0])])
        waiters.append(waiter)
        self._held += 1
        return waiter

    def leave(self, waiter: Waiter) -> Answer:
        """End the holding of a version check, once, woken or not; return its answer as of now."""
        by_node = self._waiting[waiter.cluster_id]
        waiters = by_node[waiter.node_id]
        waiters.remove(waiter)
        if not waiters:
            del by_node[waiter.node_id]
        if not by_node:
            del self._waiting[waiter.cluster_id]
        self._held -= 1
        waiter.woken = True
        return Answer(version=self._roll.effective(waiter.node_id), spread_s=waiter.spread_s, waited=True)

    def follow(self, events: Iterable[Event]) -> None:
        """Wake whom a commit concerns; the roll has followed all of it already."""
        concerned: dict[str, list[Waiter]] = {}
        for event in events:
            match event:
                case NodeChanged() | NodeDeleted():
                    waiters = self._waiting.get(event.cluster_id, {}).get(event.node_id)
                    if waiters:
                        concerned[event.node_id] = waiters
                case ClusterChanged() | ClusterDeleted():
                    concerned.update(self._waiting.get(event.cluster_id, {}))
                case _:
                    pass
        if concerned:
            self._tell(concerned)

    def release_all(self) -> None:
        """Answer every held check now, as at shutdown."""
        for by_node in self._waiting.values():
            for waiters in by_node.values():
                _wake(waiters)

    def _full(self) -> bool:
        return self.memory_short or self._held >= self._limit

    def _tell(self, by_node: dict[str, list[Waiter]]) -> None:
        concerned = [
            waiter
            for node_id, waiters in by_node.items()
            for waiter in waiters
            # One that has not left since it was woken keeps the hint that it was woken with.
            if not waiter.woken and self._concerns(node_id, waiter)
        ]
        spread_s = None
        if len(concerned) > SPREAD_FROM:
            spread_s = min(MAX_SPREAD_S, math.ceil(len(concerned) / DOWNLOADS_PER_SECOND))
        for waiter in concerned:
            waiter.spread_s = spread_s
        _wake(concerned)

    def _concerns(self, node_id: str, waiter: Waiter) -> bool:
        entry = self._roll.entry(node_id)
        if entry is None or entry.token_digest != waiter.token_digest:
            return True
        return self._roll.effective_of(entry) != waiter.current


def _wake(waiters: Iterable[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.woken:
            waiter.woken = True
            waiter.wake()
