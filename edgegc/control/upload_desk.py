"""Who may upload now: so many at a time on the box, so many a minute per cluster. Trio thread only; knows no archive."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import TooMany, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_ONCE: Final = 2
"""An upload is inflated and written twice on its way: more at a time would only make all of them slower."""
PER_MINUTE: Final = 10
WINDOW_S: Final = 60.0
WAITING: Final = 64
"""Uploads that wait for their turn; each holds half a megabyte of its body at most, the rest stays with its client."""
WAIT_S: Final = 120.0
CLUSTERS: Final = 10_000
"""Clusters whose recent uploads are remembered; the oldest go first."""


class Desk:
    """Gives uploads their turn, in the order in which they came."""

    def __init__(self, *, limited: bool = True) -> None:
        self._limited = limited
        self._turns = trio.Semaphore(AT_ONCE)
        self._recent: dict[str, deque[float]] = {}

    @property
    def idle(self) -> bool:
        """Whether nobody has a turn."""
        return self._turns.value == AT_ONCE

    @asynccontextmanager
    async def turn(self, cluster_id: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it. TooMany past the cluster's rate, Unavailable where too many wait, or too long."""
        self._count(cluster_id)
        if self._turns.statistics().tasks_waiting >= WAITING:
            raise Unavailable("too many uploads wait already", retry_after_s=10)
        with trio.move_on_after(WAIT_S) as waiting:
            await self._turns.acquire()
        if waiting.cancelled_caught:
            raise Unavailable("other uploads take too long", retry_after_s=30)
        try:
            yield
        finally:
            self._turns.release()

    def _count(self, cluster_id: str) -> None:
        if not self._limited:
            return
        now = trio.current_time()
        recent = self._recent.pop(cluster_id, None) or deque(maxlen=PER_MINUTE)
        self._recent[cluster_id] = recent
        if len(self._recent) > CLUSTERS:
            del self._recent[next(iter(self._recent))]
        if len(recent) == PER_MINUTE and now - recent[0] < WINDOW_S:
            raise TooMany(
                f"a cluster takes {PER_MINUTE} uploads a minute",
                retry_after_s=int(recent[0] + WINDOW_S - now) + 1,
            )
        recent.append(now)
