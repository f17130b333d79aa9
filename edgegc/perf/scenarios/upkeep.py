"""What a process needs while it is left alone, as figures of a case. Knows not whose process it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from edgegc.perf import process

if TYPE_CHECKING:
    from edgegc.perf.meter import Meter


async def let_be(meter: Meter, pid: int, *, seconds: float) -> None:
    """Wait so long, and write down what a process has used meanwhile and holds then.

    Its children are left out. Raises :class:`~edgegc.perf.process.Gone` where it ends.
    """
    before, began = process.usage([pid]), trio.current_time()
    await trio.sleep(seconds)
    after, passed_s = process.usage([pid]), trio.current_time() - began
    meter.figure("rss", after.rss_bytes, "bytes")
    meter.figure("private", after.private_bytes, "bytes")
    meter.figure("cpu_percent", 100 * (after.cpu_s - before.cpu_s) / passed_s, "percent", note="of one core")
    meter.figure("fds", after.fds, "count")
    written = (after.written_bytes - before.written_bytes) / passed_s * 3600
    meter.figure("written_bytes_per_h", written, "bytes")
