"""What was built: the version, and the commit that ``packaging/build`` wrote beside this file. Knows nothing else."""

from __future__ import annotations

import functools
import platform
from importlib.resources import files

from edgegc import __version__


@functools.cache
def commit() -> str:
    """Return the commit this was built from, or ``unknown`` in a source tree."""
    try:
        return (files("edgegc") / "COMMIT").read_text(encoding="ascii").strip() or "unknown"
    except OSError:
        return "unknown"


def describe() -> dict[str, str]:
    """Return what ``GET /api/v1/version`` and ``edgegc version`` say, field by field."""
    return {
        "version": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}-{platform.machine()}",
    }


EARLIEST = 1_763_856_000
"""2025-11-23: no box runs this before, whatever its clock says. Where the build wrote no time of its own."""


@functools.cache
def built_at() -> int:
    """Return the day this was built, in Unix seconds, as ``packaging/build`` wrote it; an early bound in a source tree."""
    try:
        return int((files("edgegc") / "BUILT_AT").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return EARLIEST
