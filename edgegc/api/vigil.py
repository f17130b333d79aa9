"""Looks out for clients that leave while the handler of their request takes long. Knows no sockets and no requests.

Most handlers are over before anybody could leave: a task beside each of them would cost more than it does. So each is only
noted, and one task for all looks now and then which of them have not ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONG_S: Final = 0.1
"""A handler that takes longer is looked after: at the latest in twice this a client that left has ended it."""


class Vigil:
    """The handlers under way. ``run`` is the one task."""

    def __init__(self) -> None:
        self._under_way: dict[Watch, float] = {}
        self._some = trio.Event()

    async def run(self) -> None:
        """Look, for ever. Cancelling it ends all looking, and no handler."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._some.wait()
                await trio.sleep(LONG_S)
                before = trio.current_time() - LONG_S
                for watch, began in self._under_way.items():
                    if began <= before and watch.look is None:
                        watch.look = Look(watch)
                        nursery.start_soon(watch.look.run)
                if not self._under_way:
                    self._some = trio.Event()

    def begin(self, watch: Watch) -> None:
        """Note a handler that begins."""
        if not self._under_way:
            self._some.set()
        self._under_way[watch] = trio.current_time()

    async def end(self, watch: Watch) -> None:
        """Note that it has ended, and wait until nobody looks any more. Not cancellable, and no wait as a rule."""
        del self._under_way[watch]
        # The two know each other: left so, they would keep the whole request until the garbage collector comes by.
        look, watch.look = watch.look, None
        if look is not None:
            await look.stop()


class Watch:
    """One handler: ``gone`` waits until its client has left; then ``handling``, which is around it, is cancelled."""

    __slots__ = ("gone", "handling", "look")

    def __init__(self, gone: Callable[[], Awaitable[object]]) -> None:
        self.gone = gone
        self.handling = trio.CancelScope()
        self.look: Look | None = None


class Look:
    """Somebody who looks out for a handler's client."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    async def run(self) -> None:
        """Wait for the client's end, and end the handler."""
        try:
            with self._scope:
                await self._watch.gone()
                self._watch.handling.cancel()
        finally:
            self._over.set()

    async def stop(self) -> None:
        """End :meth:`run`, and wait for that: nobody else may read from the client meanwhile."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._over.wait()
