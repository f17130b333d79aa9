"""The event bus: what was committed, told to those who act on it (the lighthouse supervisor). Trio thread only.

Level-triggered. A subscriber is told *that* something changed and reads the present state itself, so events of
the same kind about the same thing are merged, and a slow subscriber loses nothing. Knows no store.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from edgegc.model.event import (
    ClusterChanged,
    ClusterDeleted,
    Event,
    RestartRequested,
    StopRequested,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BusEvent = ClusterChanged | ClusterDeleted | RestartRequested | StopRequested
"""What is carried. Nodes and tokens are not: a thousand of them would wake everybody for nothing."""


class Subscription:
    """The events that one subscriber has not seen yet: at most one of each kind per cluster."""

    def __init__(self) -> None:
        self._pending: dict[tuple[type[BusEvent], str], BusEvent] = {}
        self._something = trio.Event()

    def put(self, event: BusEvent) -> None:
        """Keep an event until :meth:`wait`; it replaces an older one of its kind about the same cluster."""
        key = (type(event), event.cluster_id)
        self._pending.pop(key, None)
        self._pending[key] = event
        self._something.set()

    async def wait(self) -> tuple[BusEvent, ...]:
        """Wait until there is at least one event; return all of them, oldest first. Cancelling loses none."""
        await self._something.wait()
        events = tuple(self._pending.values())
        self._pending.clear()
        self._something = trio.Event()
        return events


class Bus:
    """Carries events from the commit to the subscribers."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        """Hand an event to every subscriber; never waits."""
        if isinstance(event, BusEvent):
            for subscription in self._subscriptions:
                subscription.put(event)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Receive every event published from now on, until the context ends."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
