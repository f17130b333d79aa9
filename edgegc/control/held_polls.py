"""Held version checks: who waits for a change, and how many may. Trio thread only; knows no SQL and no HTTP.

Order on a write: COMMIT, roll replaced, waiters woken, writer answered. :meth:`Polls.wait` compares and parks with no
checkpoint between, so no wake-up is missed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import trio

from edgegc.errors import Unauthorized
from edgegc.model.event import ClusterChanged, ClusterDeleted, Event, NodeChanged, NodeDeleted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgegc.control.roll import Roll

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


class _Waiter:
    __slots__ = ("current", "spread_s", "token_digest", "woken")

    def __init__(self, current: int, token_digest: bytes) -> None:
        self.current = current
        self.token_digest = token_digest
        self.woken = trio.Event()
        self.spread_s: int | None = None


class Polls:
    """The held version checks of all nodes, by cluster."""

    def __init__(self, roll: Roll, *, limit: int) -> None:
        self._roll = roll
        self._limit = limit
        self._waiting: dict[str, dict[str, list[_Waiter]]] = {}
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
        """Return the answer as of now, with the hint not to hold when there is no room."""
        return Answer(version=self._roll.effective(node_id), interval_s=INTERVAL_S if self._full() else None)

    async def wait(self, node_id: str, *, current: int, wait_s: float) -> Answer:
        """Return the answer as soon as the effective version differs from ``current``, at latest after ``wait_s``."""
        entry = self._roll.entry(node_id)
        if entry is None:
            raise Unauthorized("the node is gone")
        if self._roll.effective_of(entry) != current or self._full():
            await trio.lowlevel.checkpoint()
            return self.now(node_id)
        waiter = _Waiter(current, entry.token_digest)
        self._park(entry.cluster_id, node_id, waiter)
        try:
            with trio.move_on_after(wait_s):
                await waiter.woken.wait()
        finally:
            self._leave(entry.cluster_id, node_id, waiter)
        return Answer(version=self._roll.effective(node_id), spread_s=waiter.spread_s, waited=True)

    def follow(self, events: Iterable[Event]) -> None:
        """Wake whom a commit concerns; the roll has followed all of it already."""
        concerned: dict[str, list[_Waiter]] = {}
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
        self._wake(concerned)

    def release_all(self) -> None:
        """Answer every held check now, as at shutdown."""
        for by_node in self._waiting.values():
            for waiters in by_node.values():
                _set(waiters)

    def _full(self) -> bool:
        return self.memory_short or self._held >= self._limit

    def _park(self, cluster_id: str, node_id: str, waiter: _Waiter) -> None:
        waiters = self._waiting.setdefault(cluster_id, {}).setdefault(node_id, [])
        if len(waiters) >= HELD_PER_NODE:
            # It stays in the list until its task has run, so look for one that is not answered yet.
            _set([next((old for old in waiters if not old.woken.is_set()), waiters[0])])
        waiters.append(waiter)
        self._held += 1

    def _leave(self, cluster_id: str, node_id: str, waiter: _Waiter) -> None:
        by_node = self._waiting[cluster_id]
        by_node[node_id].remove(waiter)
        if not by_node[node_id]:
            del by_node[node_id]
        if not by_node:
            del self._waiting[cluster_id]
        self._held -= 1

    def _wake(self, by_node: dict[str, list[_Waiter]]) -> None:
        concerned = [
            waiter
            for node_id, waiters in by_node.items()
            for waiter in waiters
            # One whose task has not run since it was woken keeps the hint that it was woken with.
            if not waiter.woken.is_set() and self._concerns(node_id, waiter)
        ]
        spread_s = None
        if len(concerned) > SPREAD_FROM:
            spread_s = min(MAX_SPREAD_S, math.ceil(len(concerned) / DOWNLOADS_PER_SECOND))
        for waiter in concerned:
            waiter.spread_s = spread_s
        _set(concerned)

    def _concerns(self, node_id: str, waiter: _Waiter) -> bool:
        entry = self._roll.entry(node_id)
        if entry is None or entry.token_digest != waiter.token_digest:
            return True
        return self._roll.effective_of(entry) != waiter.current


def _set(waiters: Iterable[_Waiter]) -> None:
    for waiter in waiters:
        waiter.woken.set()
