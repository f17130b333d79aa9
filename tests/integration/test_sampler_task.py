"""The sampler as a task over a real control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edgegc import sampler
from edgegc.clock import SystemClock
from edgegc.control.control import open_control
from edgegc.settings import Data, Sampler, Settings
from edgegc.store.database import open_database
from edgegc.store.vault import open_vault

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_task_fills_the_series_and_sets_the_check(tmp_path: Path) -> None:
    settings = Settings(data=Data(dir=tmp_path), sampler=Sampler(interval_s=0.1))
    vault = open_vault(tmp_path)
    async with open_database(tmp_path / "edgegc.db") as database:
        control = await open_control(
            database, clock=SystemClock(), settings=settings, vault=vault, servers=()
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: sampler.run(control, task_status=task_status))
            with trio.fail_after(60):
                while control.series.latest("system.cpu_percent") is None:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert "sampler" in control.health.report().checks
        assert control.series.latest("daemon.loop_late_ms") is not None
        assert control.series.latest("database.size_bytes")
