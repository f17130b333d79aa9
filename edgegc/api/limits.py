"""How often one may ask: requests of a node, enrolments of an address, failed authentications of an address.

Pure, given the time in seconds of any clock that never goes back. Knows no HTTP. Every table is bounded, oldest out: who
fills one with addresses only forgets its own past. What was counted is lost with the process.
"""

from __future__ import annotations

import ipaddress
import math
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from edgegc.errors import TooMany

if TYPE_CHECKING:
    from edgegc.model.credential import Caller
    from edgegc.settings import Limits

TABLE_ENTRIES: Final = 10_000
"""Of each table: a few megabytes at most."""
MINUTE_S: Final = 60
TEN_MINUTES_S: Final = 600
HOUR_S: Final = 3600
ROUNDING_S: Final = 1e-9
"""What sums of floats may be off by."""
IPV6_PREFIX: Final = 64
"""What one customer has at least: single IPv6 addresses cost nothing."""


class Buckets:
    """Token buckets by key: ``rate`` a second, up to ``burst`` at once."""

    def __init__(self, *, rate: float, burst: int, capacity: int = TABLE_ENTRIES) -> None:
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each bucket is full again: all that there is to know of it, and in the past for most."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """Take one, and return 0; or take none, and return the seconds until there is one."""
        before = max(self._full_at.pop(key, now), now)
        after = before + 1 / self._rate
        # There is one to take while not more than a whole bucket would be missing.
        wait_s = after - now - self._burst / self._rate
        allowed = wait_s <= ROUNDING_S
        self._full_at[key] = after if allowed else before
        if len(self._full_at) > self._capacity:
            self._full_at.popitem(last=False)
        return 0.0 if allowed else wait_s


class _Failures:
    """The failed authentications of one address."""

    __slots__ = ("at", "blocked_until")

    def __init__(self) -> None:
        self.at = array("d")
        self.blocked_until = -math.inf


class FailedAuthentications:
    """Who fails too often is told to stay away: ``in_minute`` for a minute, ``in_ten_minutes`` for an hour."""

    def __init__(self, *, in_minute: int, in_ten_minutes: int, capacity: int = TABLE_ENTRIES) -> None:
        self._in_minute = in_minute
        self._in_ten_minutes = in_ten_minutes
        self._capacity = capacity
        self._by_address: OrderedDict[str, _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_address)

    def blocked(self, now: float) -> int:
        """Return how many addresses are told to stay away."""
        return sum(failures.blocked_until > now for failures in self._by_address.values())

    def note(self, address: str, now: float) -> float:
        """Note a failure. Return 0, or for how many seconds more the address is to stay away.

        The failures that begin a block are answered as failures still; those during it count, too.
        """
        key = address_key(address)
        failures = self._by_address.pop(key, None) or _Failures()
        self._by_address[key] = failures
        if len(self._by_address) > self._capacity:
            self._by_address.popitem(last=False)
        blocked_s = failures.blocked_until - now
        kept = array("d", (at for at in failures.at if at > now - TEN_MINUTES_S))
        kept.append(now)
        failures.at = kept[-self._in_ten_minutes :]
        if len(failures.at) >= self._in_ten_minutes:
            failures.blocked_until = now + HOUR_S
        elif blocked_s <= 0 and sum(at > now - MINUTE_S for at in failures.at) >= self._in_minute:
            failures.blocked_until = now + MINUTE_S
        return max(0.0, blocked_s)


class RateLimits:
    """All limits on how often, as the settings say. Made with limits off it limits nothing."""

    def __init__(self, settings: Limits) -> None:
        self.enabled = settings.enabled
        self._nodes = Buckets(rate=settings.node_rate, burst=settings.node_burst)
        self._enrolments = Buckets(rate=settings.enrolment_rate, burst=settings.enrolment_burst)
        self._failures = FailedAuthentications(
            in_minute=settings.failures_in_minute, in_ten_minutes=settings.failures_in_ten_minutes
        )
        self.refused = {"node": 0, "enrolment": 0, "authentication": 0}
        """How many requests were refused, by the limit that they passed."""

    def request(self, caller: Caller, now: float) -> None:
        """Count a request of a caller who has been authenticated. TooMany."""
        if self.enabled and caller.node_id is not None:
            self._check("node", self._nodes.take(caller.node_id, now), "requests of this node")

    def admits(self, node_id: str, now: float) -> bool:
        """Count a request of a node that is within its limit. One beyond it is not counted: who refuses it does that."""
        return not self.enabled or self._nodes.take(node_id, now) == 0

    def enrolment(self, caller: Caller, now: float) -> None:
        """Count an enrolment with a key that is good, by where it comes from. TooMany."""
        if self.enabled and caller.source != "socket":
            wait_s = self._enrolments.take(address_key(caller.source), now)
            self._check("enrolment", wait_s, "enrolments from this address")

    def failed_authentication(self, source: str, now: float) -> None:
        """Count a failed authentication. TooMany while the address is to stay away."""
        if self.enabled and source != "socket":
            wait_s = self._failures.note(source, now)
            self._check("authentication", wait_s, "failed authentications from this address")

    def blocked(self, now: float) -> int:
        """Return how many addresses are to stay away now."""
        return self._failures.blocked(now)

    def _check(self, limit: str, wait_s: float, what: str) -> None:
        if wait_s > 0:
            self.refused[limit] += 1
            raise TooMany(f"too many {what}", retry_after_s=math.ceil(wait_s))


def address_key(address: str) -> str:
    """Return what stands for an address in a table: an IPv6 address counts as its /64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, IPV6_PREFIX), strict=False))
