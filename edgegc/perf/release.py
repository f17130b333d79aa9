"""Another release's file: how it is started, and what it says of itself. Knows nothing of what is measured on it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Unavailable
from edgegc.perf import respawn

if TYPE_CHECKING:
    from pathlib import Path

FIRST_START_S: Final = 120.0
"""A file that never ran here unpacks itself first: ten seconds on a small board."""


class _Version(msgspec.Struct):
    version: str
    commit: str


def command(file: Path) -> tuple[str, ...]:
    """Return how a release's file is started: by the Python that runs us, whatever its first line names."""
    return (sys.executable, str(file.absolute()))


def versions(of: tuple[str, ...]) -> dict[str, str]:
    """Return what a report says of a release, by name. Blocking, for seconds where it never ran here.

    Raises Unavailable, with its own last words, where it is no release that runs here.
    """
    try:
        said = subprocess.run(
            [*of, "version", "--output", "json"],
            capture_output=True,
            timeout=FIRST_START_S,
            check=False,
            env=respawn.foreign_environ(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"the release to be measured can't be started: {error}") from error
    try:
        found = msgspec.json.decode(said.stdout, type=_Version)
    except msgspec.DecodeError:
        words = said.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise Unavailable(
            f"the release to be measured does not say its version (exit code {said.returncode}): {words[-1]}"
        ) from None
    return {"edgegc": f"{found.version} ({found.commit})"}
