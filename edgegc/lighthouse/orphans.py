"""Ends lighthouse processes that are recorded in a data directory, without a daemon. Starts nothing.

For ``edgegc lighthouse stop`` when no daemon runs, and for what is recorded but no longer wanted at the daemon's start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.lighthouse.render import lighthouses_directory
from edgegc.nebula import orphans
from edgegc.nebula.orphans import Stopped

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.nebula.process import Spawner

__all__ = ["RECORD", "Stopped", "stop_recorded"]

RECORD = "process.json"
"""In a lighthouse's directory: the process that runs or ran there."""


async def stop_recorded(
    data_dir: Path, cluster_id: str | None = None, *, spawner: Spawner | None = None
) -> list[Stopped]:
    """End the recorded lighthouse of one cluster, or all of them (None); see :func:`edgegc.nebula.orphans.stop_recorded`.

    Only for a data directory that no daemon uses, or it starts them again.
    """
    directory = lighthouses_directory(data_dir)
    records = sorted(
        directory.glob(f"*/{RECORD}") if cluster_id is None else [directory / cluster_id / RECORD]
    )
    return await orphans.stop_recorded(records, spawner=spawner)
