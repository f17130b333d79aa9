"""The generator's event loop: an epoll of its own inside one Trio task, and times at which something is due.

Knows no sockets, only descriptors, handlers and times. A Trio task per connection costs 20 µs and more per request, which
is what a whole request may cost here: so everything that is ready is handled in one go, by plain calls, and Trio only waits
when there is nothing to do.
"""

from __future__ import annotations

import heapq
import select
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import trio

from edgegc.perf.generator.schedule import NEVER_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int], None]

NS_PER_MS: Final = 1_000_000
EVENTS: Final = 256
"""Taken from the kernel at once. It hands them out in turns, so nobody is forgotten; more would only make times older."""
TRIO_EVERY_NS: Final = 10 * NS_PER_MS
"""Other tasks (signals, progress) have their turn so often while there is always something to do."""
PATIENCE_S: Final = 0.001
"""Waited for in the epoll itself, before a turn of Trio's (40 µs) is worth it. epoll counts whole milliseconds."""
EARLY_NS: Final = 2 * NS_PER_MS
"""Trio's timers count whole milliseconds, too: it is left so much before something is due."""


class Loop:
    """Handlers by descriptor, and timers. Everything is called from :meth:`run`'s task."""

    def __init__(self) -> None:
        self.due_ns = NEVER_NS
        """When ``on_due`` is called next; it moves this on. A timer without the cost of one, for arrivals."""
        self.on_due: Callable[[], None] = _nothing
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._timers_made = 0
        self._stopped = False

    def watch(self, fd: int, mask: int, handler: Handler) -> None:
        """Call ``handler`` with the events of a descriptor that was not watched, while there are any."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def change(self, fd: int, mask: int, handler: Handler) -> None:
        """Watch for something else, or call somebody else."""
        self._epoll.modify(fd, mask)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching. To be called before it is closed; it must not be opened again by a handler, but by a timer:
        the events at hand may still hold one of the old.
        """
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, when_ns: int, call: Callable[[], None]) -> None:
        """Call once, at a time of ``monotonic_ns`` or soon after."""
        self._timers_made += 1
        heapq.heappush(self._timers, (when_ns, self._timers_made, call))

    def stop(self) -> None:
        """Have :meth:`run` return soon."""
        self._stopped = True

    def _is_stopped(self) -> bool:
        # A call, for what is called in between may change it.
        return self._stopped

    def close(self) -> None:
        """Give the epoll back."""
        self._epoll.close()

    async def run(self) -> None:
        """Wait and call, until stopped. Cancellation ends it between two calls, and leaves everything as it is."""
        epoll, handlers, timers = self._epoll, self._handlers, self._timers
        fd = epoll.fileno()
        own = (fd,)
        trio_ns = 0
        while not self._is_stopped():
            now_ns = monotonic_ns()
            if now_ns >= trio_ns:
                await trio.lowlevel.checkpoint()
                trio_ns = now_ns + TRIO_EVERY_NS
            if now_ns >= self.due_ns:
                self.on_due()
            while timers and timers[0][0] <= now_ns:
                heapq.heappop(timers)[2]()
            next_ns = min(self.due_ns, timers[0][0] if timers else NEVER_NS)
            wait_ns = next_ns - monotonic_ns()
            if self._is_stopped():
                return
            if wait_ns >= NS_PER_MS:
                events = epoll.poll(PATIENCE_S, EVENTS)
                if not events and wait_ns > 2 * EARLY_NS:
                    with trio.move_on_after((wait_ns - EARLY_NS) / 1e9):
                        await trio.lowlevel.wait_readable(fd)
                    trio_ns = monotonic_ns() + TRIO_EVERY_NS
                    continue
            elif wait_ns > 0:
                # Unlike epoll's, its timeout is exact to some 50 µs.
                any_ready, _, _ = select.select(own, (), (), wait_ns / 1e9)
                events = epoll.poll(0, EVENTS) if any_ready else []
            else:
                events = epoll.poll(0, EVENTS)
            for ready, mask in events:
                handler = handlers.get(ready)
                if handler is not None:
                    handler(mask)
                    if monotonic_ns() >= self.due_ns:
                        self.on_due()


def _nothing() -> None:
    pass
