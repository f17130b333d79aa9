"""Who asks what, and when: arrivals at random distances, and requests drawn from a plan in their proportions.

Pure: times are nanoseconds of a clock that somebody else reads. The same seed leads to the same load.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgegc.perf.plan import Ask

NS_PER_S: Final = 1_000_000_000
NEVER_NS: Final = 1 << 62
"""A time that does not come."""
LONGEST_DECK: Final = 100_000
"""Weights whose sum is larger are too fine to matter."""


class Arrivals:
    """The times of an open load: a Poisson process. ``due_ns`` is the next."""

    def __init__(self, *, rate_per_s: float, seed: int, begin_ns: int) -> None:
        self._random = Random(seed)
        self._per_ns = rate_per_s / NS_PER_S
        # Exact to the nanosecond only while it is small beside a float's 53 bits: distances are added to a float that
        # counts from the beginning.
        self._begin_ns = begin_ns
        self._since_ns = 0.0
        self.due_ns = begin_ns
        self.advance()

    def advance(self) -> None:
        """Go on to the next arrival."""
        self._since_ns += self._random.expovariate(self._per_ns)
        self.due_ns = self._begin_ns + int(self._since_ns)


class UsedUp(Exception):
    """A kind whose requests are sent once is due, and none is left. ``shared``: for all, not only this connection."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.shared = shared


class Deck:
    """Draws requests: kinds in a shuffled order that has each as often as its weight says, over and over."""

    def __init__(self, asks: tuple[Ask, ...], *, connections: int, seed: int) -> None:
        self._asks = asks
        order = [kind for kind, ask in enumerate(asks) for _ in range(ask.weight)]
        Random(seed).shuffle(order)
        self._order = order
        self._at = 0
        self._connections = connections
        self._taken = [0] * len(asks)
        self._taken_by: list[dict[int, int]] = [{} for _ in asks]

    def draw(self, connection: int) -> tuple[int, bytes]:
        """Return which kind is due, and the request that this connection sends. Raises UsedUp."""
        kind = 0
        if len(self._order) > 1:
            kind = self._order[self._at]
            self._at = (self._at + 1) % len(self._order)
        ask = self._asks[kind]
        requests = ask.requests
        if ask.order == "shared":
            at = self._taken[kind]
            if at == len(requests):
                if ask.once:
                    raise UsedUp(shared=True)
                at = 0
            self._taken[kind] = at + 1
            return kind, requests[at]
        if not ask.once:
            return kind, requests[connection % len(requests)]
        # Each once: connection i has i, i + connections, i + 2 * connections ... for itself.
        at = self._taken_by[kind].get(connection, connection)
        if at >= len(requests):
            raise UsedUp(shared=False)
        self._taken_by[kind][connection] = at + self._connections
        return kind, requests[at]
