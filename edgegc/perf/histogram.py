"""Durations as a histogram whose error is bounded (HdrHistogram): recorded in constant time, merged without loss.

Knows nothing of what was measured. The layout is HdrHistogram's (G. Tene) with 2048 sub-buckets: 0 to 2047 ns exactly, above
that eleven significant bits, so that a value read back is at most 0.1 % above the one recorded. Percentiles
are never averaged: whoever has several histograms merges them and asks the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIGNIFICANT_BITS: Final = 11
HALF: Final = 1 << (SIGNIFICANT_BITS - 1)
HIGHEST_NS: Final = 3_600_000_000_000
"""An hour: longer ones are recorded as this long."""
SUPPORT: Final = 10
"""A percentile is told where at least so many samples lie above it: p99.9 from 10,000 samples on."""


def slot_of(value_ns: int) -> int:
    """Return the slot that a value is counted in."""
    shift = value_ns.bit_length() - SIGNIFICANT_BITS
    if shift <= 0:
        return value_ns
    return shift * HALF + (value_ns >> shift)


def highest_of(slot: int) -> int:
    """Return the highest value, in nanoseconds, that is counted in a slot."""
    if slot < 2 * HALF:
        return slot
    shift = slot // HALF - 1
    return ((slot - shift * HALF + 1) << shift) - 1


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram as it is written down: the slots that hold anything, and how many each holds."""

    slots: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    sum_ns: int = 0
    max_ns: int = 0


class Histogram:
    """Durations in nanoseconds, counted in slots of 0.1 %."""

    def __init__(self) -> None:
        self.slots = [0] * (slot_of(HIGHEST_NS) + 1)
        self.count = 0
        self.sum_ns = 0
        self.max_ns = 0

    @classmethod
    def of(cls, values_ns: Iterable[int]) -> Histogram:
        """Return a histogram of values."""
        made = cls()
        for value in values_ns:
            made.record(value)
        return made

    @classmethod
    def from_counts(cls, counts: Counts) -> Histogram:
        """Return what :meth:`counts` wrote down."""
        made = cls()
        made.merge(counts)
        return made

    def record(self, value_ns: int) -> None:
        """Count one duration. A negative one counts as none: clocks may be read out of order."""
        # The generator does this for every request: no calls that can be spared.
        if value_ns < 0:
            value_ns = 0
        elif value_ns > HIGHEST_NS:
            value_ns = HIGHEST_NS
        shift = value_ns.bit_length() - SIGNIFICANT_BITS
        self.slots[value_ns if shift <= 0 else shift * HALF + (value_ns >> shift)] += 1
        self.count += 1
        self.sum_ns += value_ns
        if value_ns > self.max_ns:
            self.max_ns = value_ns

    def merge(self, other: Counts | Histogram) -> None:
        """Count what another one has counted."""
        written = other.counts() if isinstance(other, Histogram) else other
        for slot, count in zip(written.slots, written.counts, strict=True):
            self.slots[slot] += count
            self.count += count
        self.sum_ns += written.sum_ns
        self.max_ns = max(self.max_ns, written.max_ns)

    def counts(self) -> Counts:
        """Return it in the form that is written down."""
        used = list(self.used())
        return Counts(
            slots=tuple(slot for slot, _ in used),
            counts=tuple(count for _, count in used),
            sum_ns=self.sum_ns,
            max_ns=self.max_ns,
        )

    def used(self) -> Iterator[tuple[int, int]]:
        """Iterate over the slots that hold anything, and how many they hold."""
        return ((slot, count) for slot, count in enumerate(self.slots) if count)

    @property
    def mean_ns(self) -> float | None:
        """The mean, which is exact; None without samples."""
        return self.sum_ns / self.count if self.count else None

    def percentile_ns(self, percent: float) -> int | None:
        """Return the duration that ``percent`` of the samples do not exceed.

        None where too few samples lie above it to tell (see :data:`SUPPORT`).
        """
        if self.count * (100 - percent) < SUPPORT * 100 * (1 - 1e-9):
            return None
        return self.value_at(percent)

    def value_at(self, percent: float) -> int:
        """Return the same, however few samples there are. Raises ValueError without any."""
        if not self.count:
            raise ValueError("an empty histogram has no percentiles")
        wanted = max(1, -(-self.count * percent // 100))
        seen = 0
        for slot, count in self.used():
            seen += count
            if seen >= wanted:
                return min(highest_of(slot), self.max_ns)
        return self.max_ns

    def share_within(self, limit_ns: int) -> float:
        """Return which part of the samples, 0 to 1, took at most ``limit_ns``. Raises ValueError without any."""
        if not self.count:
            raise ValueError("an empty histogram has no shares")
        return sum(count for slot, count in self.used() if highest_of(slot) <= limit_ns) / self.count
