"""The ``Date`` of answers, made once a second. Pure."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache


@lru_cache(maxsize=1)
def line(second: int) -> bytes:
    """Return the header line, without its end, for a second since the epoch."""
    return b"date: " + formatdate(second, usegmt=True).encode()
