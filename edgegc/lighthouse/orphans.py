"""Ends lighthouse processes that are recorded in a data directory, without a daemon. Starts nothing.

For ``edgegc lighthouse stop`` when no daemon runs, and for what is recorded but no longer wanted at the daemon's start.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgegc.lighthouse.render import lighthouses_directory
from edgegc.nebula import orphans
from edgegc.nebula.files import in_thread
from edgegc.nebula.orphans import Stopped

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.nebula.process import Spawner

__all__ = ["RECORD", "Stopped", "recorded", "stop_recorded"]

RECORD = "process.json"
"""In a lighthouse's directory: the process that runs or ran there."""


def recorded(data_dir: Path) -> list[str]:
    """Return the ids of the clusters that a lighthouse process is or was recorded for, sorted. Blocking."""
    return sorted(path.parent.name for path in lighthouses_directory(data_dir).glob(f"*/{RECORD}"))


async def stop_recorded(
    data_dir: Path, cluster_id: str | None = None, *, spawner: Spawner | None = None
) -> list[Stopped]:
    """End the recorded lighthouse of one cluster, or all of them (None); see :func:`edgegc.nebula.orphans.stop_recorded`.

    Only for a data directory that no daemon uses, or it starts them again.
    """
    clusters = [cluster_id] if cluster_id is not None else await in_thread(partial(recorded, data_dir))
    directory = lighthouses_directory(data_dir)
    return await orphans.stop_recorded((directory / each / RECORD for each in clusters), spawner=spawner)
