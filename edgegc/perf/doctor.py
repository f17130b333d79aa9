"""Whether this machine is fit to measure on: a check for each thing that has spoiled measurements, and what to do about it.

Reads and tries; what it makes of that is in :mod:`edgegc.perf.fitness`. Changes nothing.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import trio

from edgegc.errors import Unavailable
from edgegc.perf import cages, control_groups, cpus, fitness, host, references, surroundings
from edgegc.perf.device import Device
from edgegc.perf.fitness import Check
from edgegc.perf.generator import client as generator
from edgegc.perf.plan import Ask, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

WATCH_S: Final = 2.0
"""How long it looks at what others do. A neighbour that works every minute is not seen; the runs themselves see it."""
GENERATOR_CONNECTIONS: Final = 64
GENERATOR_S: Final = 1.5
GENERATOR_WARMUP_S: Final = 0.5
CLOCK_READS: Final = 20_000
FIRMWARE: Final = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
"""A Raspberry Pi's word on its supply."""
USUAL_DEVICE: Final = Device(memory_bytes=512 << 20, cpu_percent=25.0)


async def examine(
    directory: Path,
    *,
    emulated: Device | None = None,
    nebula: Path | None = None,
    on_check: Callable[[Check], None] | None = None,
) -> list[Check]:
    """Look at this machine, for some ten seconds, and return what was found, in the order to read it.

    ``directory``: where servers will keep their data. ``emulated``: the device that is to be measured; a machine that
    can't emulate it fails. ``on_check`` is told each check as soon as it is known. Cancelled, it leaves nothing running.
    """
    found: list[Check] = []

    def tell(*checks: Check) -> None:
        for check in checks:
            found.append(check)
            if on_check is not None:
                on_check(check)

    tell(fitness.processors(cpus.cpus()), fitness.governor(host.governor()))
    before, swapped = surroundings.look(), _swapped_pages()
    await trio.sleep(WATCH_S)
    after, swapped_after = surroundings.look(), _swapped_pages()
    tell(fitness.other_load(before, after), fitness.stolen(before, after))
    tell(fitness.heat(before, after, host.temperature_c()), fitness.supply(_firmware()))
    tell(
        fitness.memory(psutil.virtual_memory().available),
        fitness.swap(psutil.swap_memory().used, swapped_after - swapped),
        fitness.own_limits(before, after, control_groups.surroundings()),
    )
    tell(fitness.file_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    tell(fitness.clock(_clocksource(), await trio.to_thread.run_sync(_clock_ns)))
    tell(fitness.disk(directory, _free_bytes(directory)))
    try:
        tell(fitness.fsync(await host.fsync_times(directory)))
    except Unavailable as error:
        tell(Check(name="fsync", state="fail", sentence=error.message, remedy="name a directory with --dir"))
    tell(_control_groups(emulated))
    found_nebula = nebula or host.find_nebula()
    version = await trio.to_thread.run_sync(host.nebula_version, found_nebula) if found_nebula else None
    tell(fitness.nebula_there(version), fitness.rights(os.geteuid()))
    tell(await _generator())
    return found


async def _generator() -> Check:
    chosen = cpus.cpus()
    try:
        async with references.running("raw_echo", cpu=chosen.server) as echo:
            load = await generator.run(
                Plan(
                    target=echo.target,
                    asks=(Ask(name="raw_echo", requests=(references.REQUEST,)),),
                    connections=GENERATOR_CONNECTIONS,
                    duration_s=GENERATOR_S,
                    warmup_s=GENERATOR_WARMUP_S,
                    cpu=chosen.generator,
                )
            )
    except Unavailable as error:
        return Check(
            name="generator",
            state="fail",
            sentence=error.message,
            remedy="nothing can be measured without it",
        )
    return fitness.generator_rate(load)


def _control_groups(wanted: Device | None) -> Check:
    """Whether a device can be emulated here: tried with the wanted one, or the usual one."""
    try:
        with cages.cage(wanted or USUAL_DEVICE) as cage:
            sentence = f"a device of {cage.device} can be emulated, with control groups {cage.version}"
    except Unavailable as error:
        return Check(
            name="control groups",
            state="warn" if wanted is None else "fail",
            sentence=error.message,
            remedy="see above, or measure without --device" if wanted else "needed for --device only",
        )
    return Check(name="control groups", state="ok", sentence=sentence)


def _swapped_pages() -> int:
    """Return how many pages were swapped in or out since the machine began."""
    moved = psutil.swap_memory()
    return int(moved.sin + moved.sout)


def _firmware(path: Path = FIRMWARE) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii").strip(), 16)
    return None


def _clocksource(path: Path = fitness.CLOCKSOURCE) -> str:
    with suppress(OSError):
        return path.read_text(encoding="ascii").strip()
    return "unknown"


def _clock_ns() -> float:
    began = time.perf_counter_ns()
    for _ in range(CLOCK_READS):
        time.monotonic_ns()
    return (time.perf_counter_ns() - began) / CLOCK_READS


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free
