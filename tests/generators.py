"""The load generators that this test has running."""

from __future__ import annotations

import psutil


def running() -> list[psutil.Process]:
    """Return them, each a child of this process."""
    # Another test's child may have ended without having been waited for: it has no command line any more.
    alive = (child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE)
    return [child for child in alive if "_generator" in child.cmdline()]
