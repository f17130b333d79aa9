"""Processes of the suite's own that are to have what the device has: its control groups, the server's processor.

Knows no scenario.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from edgegc.perf import cages, filesystem, store_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from edgegc.perf.bench import Bench
    from edgegc.perf.cages import Cage
    from edgegc.perf.store_process import StoreProcess


@contextmanager
def cage(bench: Bench) -> Iterator[Cage | None]:
    """Have the control groups of the run's device, None where it is to be measured without. Raises Unavailable."""
    if bench.device is None:
        yield None
    else:
        with cages.cage(bench.device) as made:
            yield made


@asynccontextmanager
async def store(bench: Bench) -> AsyncIterator[StoreProcess]:
    """Have a store's process, which has no database yet. Raises Unavailable where it can't be started."""
    with cage(bench) as groups:
        parent = filesystem.workplace(bench.laboratory.directory)
        async with store_process.running(parent, cage=groups, cpu=bench.cpus.server) as process:
            yield process
