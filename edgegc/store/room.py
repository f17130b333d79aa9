"""How much room a disk has, and the one sentence where something big would not fit. Knows no file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from edgegc import errors

if TYPE_CHECKING:
    from pathlib import Path

LEFT_BYTES: Final = 16 * 1024 * 1024
"""Left to the database's next writes and to everybody else: a disk that something big has filled refuses all of them."""
RETRY_AFTER_S: Final = 300
"""Room is made by people."""


def require(directory: Path, wanted: int, *, what: str) -> None:
    """Raise Unavailable where ``wanted`` bytes would not leave :data:`LEFT_BYTES`; ``what`` begins the sentence. OSError."""
    disk = os.statvfs(directory)
    free, needed = disk.f_bavail * disk.f_frsize, wanted + LEFT_BYTES
    if free < needed:
        raise errors.Unavailable(
            f"{what} needs {needed} bytes on the disk of {directory}, it has {free}: make room",
            retry_after_s=RETRY_AFTER_S,
        )
