"""When to ask the control plane next, and whether to let it hold the question. Pure: time and answers in, waits out.

Knows no HTTP. Intervals are in seconds of a monotonic clock; ``random`` returns floats in [0, 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

HOLD_S: Final = 50.0
"""Below the minute after which home routers and proxies forget a silent connection; the server allows 110."""
POLL_S: Final = 5.0
"""Polling without holding: a change is still seen in less than 10 s."""
JITTER: Final = 0.1
"""± this part of an interval: nodes that were started together must not stay together."""
BROKEN_HOLDS: Final = 3
"""Held questions that broke, each while a plain one got through: something in between cuts what is silent.
Fewer would take restarts of the control plane for that."""
HOLD_AGAIN_S: Final = 600.0
"""How long held questions are given up for."""
FIRST_BACKOFF_S: Final = 1.0
LONGEST_BACKOFF_S: Final = 60.0
UNAUTHORIZED_S: Final = 300.0
"""A node that was deleted must not be a load; one whose token was rotated by hand is back in minutes."""
QUICK_S: Final = 1.0
"""A held question that is answered with nothing new before this was not held, whatever the reason."""
SHORTEST_ASKED_S: Final = 1.0
LONGEST_ASKED_S: Final = 3600.0
"""No server is obeyed that wants a node to stay away for longer."""


class Pace:
    """The pace of one cluster's version checks."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._broken_holds = 0
        self._suspect = False
        self._plain_until = 0.0
        self._plain_next = (
            True  # whoever has just started the agent wants to see that it reaches its control plane
        )

    def hold_s(self, now: float) -> float:
        """Return for how long the next question may be held; 0: answer at once."""
        if self._suspect or self._plain_next or now < self._plain_until:
            return 0.0
        return HOLD_S

    def answered(
        self, now: float, *, held_s: float, took_s: float, news: bool, interval_s: float | None
    ) -> float:
        """Return how long to wait after an answer.

        ``held_s``: what was allowed, ``took_s``: what it took. ``news``: the version differs from the current one. Then
        the backoff is over only when that was :meth:`fetched`: a version that cannot be had must not be a busy loop.
        """
        if not news:
            self._failures = 0
        if held_s > 0:
            self._broken_holds = 0
        elif self._suspect:
            self._suspect = False
            self._broken_holds += 1
            if self._broken_holds >= BROKEN_HOLDS:
                self._broken_holds = 0
                self._plain_until = now + HOLD_AGAIN_S
        self._plain_next = interval_s is not None
        if interval_s is not None:
            return self._jittered(min(max(interval_s, SHORTEST_ASKED_S), LONGEST_ASKED_S))
        if now < self._plain_until:
            return self._jittered(POLL_S)
        if held_s > 0 and not news and took_s < QUICK_S:
            return self._jittered(POLL_S)
        return 0.0

    def fetched(self) -> None:
        """Say that what was news is here."""
        self._failures = 0

    def failed(self, *, held_s: float, retry_after_s: float | None = None) -> float:
        """Return how long to wait after no answer, or one that says: not now. 1 s doubling to 60 s, full jitter."""
        self._suspect = self._suspect or held_s > 0
        backoff = min(FIRST_BACKOFF_S * 2.0 ** min(self._failures, 16), LONGEST_BACKOFF_S) * self._random()
        self._failures += 1
        asked = min(retry_after_s or 0.0, LONGEST_ASKED_S)
        return max(backoff, asked * (1 + JITTER * self._random()))

    def unauthorized(self) -> float:
        """Return how long to wait when the token is not valid (any more)."""
        self._failures = 0
        return self._jittered(UNAUTHORIZED_S)

    def _jittered(self, interval_s: float) -> float:
        return interval_s * (1 - JITTER + 2 * JITTER * self._random())
