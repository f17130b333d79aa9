"""The emulated device, in words and in the kernel's numbers: so much memory and so much of one core.

Knows nothing of control groups: :mod:`edgegc.perf.cages` makes those that hold a server to it.
"""

from __future__ import annotations

import os
import re
from typing import Final

import msgspec

from edgegc.errors import Invalid

PERIOD_US: Final = 10_000
"""At the kernel's usual 100 ms, the throttle is all that a p99 shows."""
SHORTEST_QUOTA_US: Final = 1_000
"""The kernel takes none below. For less than a tenth of a core, the period is longer instead."""
SMALLEST_PERCENT: Final = 1.0
SMALLEST_BYTES: Final = 16 * 1024 * 1024
"""Not even Python with our imports starts in less."""
UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

_WRITTEN: Final = re.compile(r"([0-9]+)([KMG]?)(?:i?B)?:([0-9]+(?:\.[0-9]+)?)%", re.IGNORECASE)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """So many bytes of memory, swap included, and so many percent of one core."""

    memory_bytes: int
    cpu_percent: float

    @classmethod
    def parse(cls, text: str) -> Device:
        """Return the device that ``512M:25%`` stands for. Raises Invalid, naming what is wrong."""
        found = _WRITTEN.fullmatch(text.strip())
        if found is None:
            raise Invalid(f"a device is MEMORY:CPU, as in 512M:25%; not {text!r}")
        device = cls(memory_bytes=int(found[1]) * UNITS[found[2].upper()], cpu_percent=float(found[3]))
        if device.memory_bytes < SMALLEST_BYTES:
            raise Invalid(f"device {text!r}: nothing starts in less than {SMALLEST_BYTES >> 20}M of memory")
        most = 100 * (os.cpu_count() or 1)
        if not SMALLEST_PERCENT <= device.cpu_percent <= most:
            raise Invalid(
                f"device {text!r}: the share of a core must be from {SMALLEST_PERCENT:g}% to {most}%, which is all that"
                " this machine has"
            )
        return device

    def __str__(self) -> str:
        return f"{self.memory_bytes / (1 << 20):g} MiB and {self.cpu_percent:g} % of a core"

    @property
    def period_us(self) -> int:
        """Over how long its share of a core is counted."""
        return max(PERIOD_US, round(SHORTEST_QUOTA_US * 100 / self.cpu_percent))

    @property
    def quota_us(self) -> int:
        """How long it may run in each period."""
        return round(self.period_us * self.cpu_percent / 100)
