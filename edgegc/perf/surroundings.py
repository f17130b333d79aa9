"""What else this machine did while something was measured: other processes, stolen time, throttling. Judges nothing.

Counters since boot, read before and after; their differences are what happened in between.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PROC: Final = Path("/proc")
CPUS: Final = Path("/sys/devices/system/cpu")
CGROUP: Final = Path("/sys/fs/cgroup")
NS_PER_S: Final = 1_000_000_000
US_PER_S: Final = 1_000_000


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of the processors that we may use, in seconds since boot; and of ourselves since we began."""

    at_s: float
    cpus: int
    busy_s: float
    """User, nice and system time of every process. Interrupts are left out: their time is nobody's own."""
    stolen_s: float
    """What the machine below gave to others."""
    ours_s: float
    """Of this process, what it started and what those started, the ended ones included."""
    throttled_s: float
    """For how long a control group that we are in ourselves held us back."""
    hot: int
    """How often a processor slowed down because of its temperature."""


def look(also: Iterable[int] = ()) -> Surroundings:
    """Read the counters. What this system does not tell counts as nothing.

    ``also``: processes that count as ours although we did not start them: what is measured is no disturbance.
    """
    allowed = os.sched_getaffinity(0)
    busy = stolen = 0
    for line in (PROC / "stat").read_text(encoding="ascii").splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in allowed:
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, numbers[:8])
            # A guest's time is in user and nice already.
            busy += user + nice + system
            stolen += steal
    return Surroundings(
        at_s=time.monotonic(),
        cpus=len(allowed),
        busy_s=busy / TICKS_PER_S,
        stolen_s=stolen / TICKS_PER_S,
        ours_s=_ours_s(also),
        throttled_s=_throttled_s(),
        hot=_hot(),
    )


def _ours_s(also: Iterable[int]) -> float:
    """Return the processor time of all that descends from us, and of these.

    A parent's counters hold those of the children that it has waited for, so that the sum never goes back; but for the
    moment between a child's end and the wait, and for what outlives its parent.
    """
    used = os.times()
    total = used.user + used.system + used.children_user + used.children_system
    descend = {child.pid: child for child in psutil.Process().children(recursive=True)}
    for pid in {*descend, *also}:
        try:
            of_child = (descend.get(pid) or psutil.Process(pid)).cpu_times()
        except psutil.Error:
            continue
        total += of_child.user + of_child.system + of_child.children_user + of_child.children_system
    return total


def _throttled_s() -> float:
    """Return what ``cpu.stat`` of our own control group and of those above it says, v2 or v1."""
    throttled_s = 0.0
    for line in _lines(PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder = CGROUP / path.lstrip("/")
        elif "cpu" in controllers.split(","):
            folder = CGROUP / "cpu" / path.lstrip("/")
        else:
            continue
        for group in (each for each in (folder, *folder.parents) if each.is_relative_to(CGROUP)):
            counters = dict(each.split(" ", 1) for each in _lines(group / "cpu.stat"))
            throttled_s += int(counters.get("throttled_usec", 0)) / US_PER_S
            throttled_s += int(counters.get("throttled_time", 0)) / NS_PER_S
    return throttled_s


def _hot() -> int:
    counts = CPUS.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    return sum(int(line) for path in counts for line in _lines(path))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
