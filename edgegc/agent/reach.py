"""Whether a lighthouse of the version in force answers over the overlay, and when one last did.

Knows no versions and decides nothing: the trial of a version asks it before the switch and after.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from edgegc.agent import ping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

INTERVAL_S: Final = 25.0
"""Twice within RECENT_S, and under the half minute for which NATs keep a UDP mapping. One packet each time."""
RECENT_S: Final = 60.0
"""A lighthouse that answered this long before a switch should answer after it."""
BEFORE_S: Final = 3.0
"""How long is asked before a switch where nothing answered lately: a first handshake takes 1-2 s."""
AFTER_S: Final = 30.0
"""How long a new version has: after a lighthouse's own restart nodes are back within 10 s, after a crash 27."""
ROUND_S: Final = 5.0


async def ask_by_ping(addresses: tuple[str, ...], device: str, within_s: float) -> bool:
    """Ask with real pings."""
    return await ping.any_answers(addresses, device=device, within_s=within_s)


class Reach:
    """The reach of one cluster. ``ask`` sends the pings; ``on_answer`` is called when one is answered after none was."""

    def __init__(
        self,
        *,
        ask: Callable[[tuple[str, ...], str, float], Awaitable[bool]] = ask_by_ping,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self._ask = ask
        self._on_answer = on_answer
        self._addresses: tuple[str, ...] = ()
        self._device = ""
        self._answered_at = -math.inf
        self._moved = trio.Event()

    @property
    def reached(self) -> bool | None:
        """Whether a lighthouse answered in the last RECENT_S; None where there is none to ask."""
        if not self._addresses:
            return None
        return trio.current_time() - self._answered_at <= RECENT_S

    def aim(self, addresses: tuple[str, ...], device: str) -> None:
        """Ask these lighthouses from now on, through this device. What was answered before stays known."""
        if (addresses, device) != (self._addresses, self._device):
            self._addresses, self._device = addresses, device
            self._moved.set()
            self._moved = trio.Event()

    def forget(self) -> None:
        """Forget earlier answers: they were given to another version."""
        self._answered_at = -math.inf

    async def before(self) -> bool:
        """Return whether a lighthouse answered lately, or does so now."""
        return self.reached is True or await self.within(BEFORE_S)

    async def within(self, limit_s: float) -> bool:
        """Ask until one answers, for at most ``limit_s``."""
        if not self._addresses or not await self._ask(self._addresses, self._device, limit_s):
            return False
        self._answered()
        return True

    async def run(self) -> None:
        """Keep asking, for ever."""
        while True:
            moved = self._moved
            if self._addresses:
                await self.within(ROUND_S)
            with trio.move_on_after(INTERVAL_S):
                await moved.wait()

    def _answered(self) -> None:
        news = self.reached is not True
        self._answered_at = trio.current_time()
        if news:
            self._on_answer()
