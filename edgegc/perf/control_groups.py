"""Which control groups this machine has, v1 or v2, which of them we are in, and what those hold us to.

Reads the kernel's own lists and makes nothing: see :mod:`edgegc.perf.cages`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from edgegc.errors import Unavailable

UNLIMITED_BYTES: Final = 1 << 60
"""v1 writes no limit as the largest number of pages."""
PROC_SELF: Final = Path("/proc/self")
CONTROLLERS: Final = ("memory", "cpu")


class Hierarchy(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of control groups, and the group in it that we are in."""

    root: Path
    own: Path

    @property
    def lineage(self) -> list[Path]:
        """Our group and those above it, as far up as the mount shows."""
        upwards = [self.own, *self.own.parents]
        return upwards[: upwards.index(self.root) + 1]


class Hierarchies:
    """Which control groups this machine has, from the kernel's own lists."""

    def __init__(self, v1: dict[str, Hierarchy], v2: Hierarchy | None) -> None:
        self.v1 = v1
        self.v2 = v2
        controllers: set[str] = set()
        if v2 is not None:
            with suppress(OSError):
                controllers = set((v2.root / "cgroup.controllers").read_text(encoding="ascii").split())
        self.version: Literal["v1", "v2"]
        if all(name in v1 for name in CONTROLLERS):
            self.version = "v1"
        elif controllers.issuperset(CONTROLLERS):
            self.version = "v2"
        elif not v1 and v2 is None:
            raise Unavailable("no control groups are mounted here, so no device can be emulated")
        else:
            missing = [name for name in CONTROLLERS if name not in v1 and name not in controllers]
            reason = (
                f"the kernel offers no control of {' and '.join(missing)} to its control groups"
                if missing
                else "memory is controlled by one version of control groups and cpu by the other"
            )
            raise Unavailable(f"{reason}, so no device can be emulated")

    @property
    def roots(self) -> tuple[Path, ...]:
        """The mounts in which groups of ours may be."""
        if self.version == "v2" and self.v2 is not None:
            return (self.v2.root,)
        return tuple(dict.fromkeys(self.v1[name].root for name in CONTROLLERS))

    @classmethod
    def read(cls, proc_self: Path) -> Hierarchies:
        """Read them. Raises Unavailable where there is nothing that a device could be made of."""
        try:
            mounts = (proc_self / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
            memberships = (proc_self / "cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise Unavailable(
                f"{error.filename} can't be read ({error.strerror}), so no device can be emulated"
            ) from error
        own = {}
        for line in memberships.splitlines():
            _, controllers, path = line.split(":", 2)
            own.update(dict.fromkeys(controllers.split(","), path))
        v1: dict[str, Hierarchy] = {}
        v2: Hierarchy | None = None
        for line in mounts.splitlines():
            head, _, tail = line.partition(" - ")
            shown, point = head.split()[3:5]
            kind, _, options = tail.split(" ", 2)
            if kind == "cgroup":
                for name in set(options.split(",")).intersection(CONTROLLERS):
                    v1[name] = _hierarchy(point, shown, own.get(name, "/"))
            elif kind == "cgroup2":
                v2 = _hierarchy(point, shown, own.get("", "/"))
        return cls(v1, v2)


def _hierarchy(point: str, shown: str, own: str) -> Hierarchy:
    """``shown``: the group that the mount shows as its root, in a container not the real one."""
    root = Path(point)
    inside = os.path.relpath(own, shown)
    return Hierarchy(root=root, own=root if inside.startswith("..") else root / inside)


def surroundings(*, proc_self: Path = PROC_SELF) -> str:
    """Return which control groups there are and what they hold this process to, for a report; no path is in it."""
    try:
        hierarchies = Hierarchies.read(proc_self)
    except Unavailable:
        return "none"
    memory, percent = _limits(hierarchies)
    said = [
        f"{memory >> 20} MiB" if memory is not None else "",
        f"{percent:g} % of a core" if percent is not None else "",
    ]
    held = " and ".join(filter(None, said))
    return f"{hierarchies.version}, held to {held}" if held else f"{hierarchies.version}, no limits"


def _limits(hierarchies: Hierarchies) -> tuple[int | None, float | None]:
    """Return the narrowest limits on memory and CPU of all groups that we are in."""
    memory: list[int] = []
    percent: list[float] = []
    if hierarchies.version == "v1":
        for group in hierarchies.v1["memory"].lineage:
            memory += _numbers_in(group / "memory.limit_in_bytes")[:1]
        for group in hierarchies.v1["cpu"].lineage:
            quota, period = _numbers_in(group / "cpu.cfs_quota_us"), _numbers_in(group / "cpu.cfs_period_us")
            percent += [100 * q / p for q, p in zip(quota, period, strict=False) if q > 0]
    elif hierarchies.v2 is not None:
        for group in hierarchies.v2.lineage:
            memory += _numbers_in(group / "memory.max")[:1]
            quota_and_period = _numbers_in(group / "cpu.max")
            if len(quota_and_period) == 2:  # else the first word is "max"
                percent.append(100 * quota_and_period[0] / quota_and_period[1])
    limited = [value for value in memory if value < UNLIMITED_BYTES]
    return min(limited, default=None), min(percent, default=None)


def _numbers_in(path: Path) -> list[int]:
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError:
        return []
    return [int(word) for word in words if word.lstrip("-").isdecimal()]
