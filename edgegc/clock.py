"""Wall-clock time, as a seam. Intervals never use it: they use ``trio.current_time()``.

Times are whole Unix seconds (``int``) everywhere inside; only HTTP bodies show them as RFC 3339.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the wall time."""

    def now(self) -> int:
        """Return the wall time in whole Unix seconds."""


class SystemClock:
    """The operating system's wall clock."""

    def now(self) -> int:
        """Return the wall time in whole Unix seconds."""
        return int(time.time())
