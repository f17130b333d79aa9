"""Control groups of our own, v1 or v2, that hold a server to a device: made, joined, read, and removed again.

Knows the files of control groups and nothing of what runs in them. A group is made below the one that we are in, or as
near to it as the kernel allows, so that whoever limits us limits what runs in it too.
"""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import psutil

from edgegc.errors import Unavailable
from edgegc.perf import control_groups, leftovers, result
from edgegc.perf.control_groups import PROC_SELF, Hierarchies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgegc.perf.device import Device

EMPTY_S: Final = 5.0
"""How long a group may take to be empty after its processes were killed."""
POLL_S: Final = 0.01
MOVES: Final = 3
"""Times that a group's processes are moved: what one of them started meanwhile is in the group that it was in itself."""
JOIN: Final = (
    "groups=$1; shift; "
    'while [ "$groups" -gt 0 ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; groups=$((groups - 1)); done; '
    'exec "$@"'
)
"""Joins and becomes the program: nothing of it, and none of its children, ever runs outside. 125 is what ``env`` and
``timeout`` end with where they fail themselves."""
REMEDY: Final = (
    "run it as root (in a container: with control groups that can be written), or in a scope of your own "
    "(systemd-run --user --scope -p Delegate=yes edgegc perf …), or measure without --device"
)

_numbers = itertools.count(1)


class Cage:
    """Control groups for one server, and what they say of it. What they count, they count since they were made."""

    def __init__(self, device: Device, *, version: Literal["v1", "v2"], memory: Path, cpu: Path) -> None:
        self.device = device
        self.version: Final = version
        self._memory = memory
        self._cpu = cpu

    @property
    def described(self) -> result.Device:
        """What a report says of it."""
        return result.Device(
            memory_bytes=self.device.memory_bytes,
            cpu_percent=self.device.cpu_percent,
            period_us=self.device.period_us,
            cgroup=self.version,
        )

    @property
    def groups(self) -> tuple[Path, ...]:
        """The directories of its groups; v2 has one."""
        return tuple(dict.fromkeys((self._memory, self._cpu)))

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs ``argv`` inside. It ends with 125 where it can't get in, and says why."""
        groups = [os.fspath(group) for group in self.groups]
        return ["/bin/sh", "-c", JOIN, leftovers.NAME, str(len(groups)), *groups, *argv]

    def pids(self) -> tuple[int, ...]:
        """Return the processes that are inside."""
        return tuple(_members(self._memory))

    def throttled_s(self) -> float:
        """Return for how long it was held back, because its share of the core was used up."""
        if self.version == "v1":
            return _field(self._cpu / "cpu.stat", "throttled_time") / 1e9
        return _field(self._cpu / "cpu.stat", "throttled_usec") / 1e6

    def peak_bytes(self) -> int | None:
        """Return the most memory that it held, page cache included; None where the kernel (before 5.19) does not keep it."""
        name = "memory.max_usage_in_bytes" if self.version == "v1" else "memory.peak"
        try:
            return int((self._memory / name).read_text(encoding="ascii"))
        except FileNotFoundError:
            return None

    def oom_kills(self) -> int:
        """Return how many processes were killed for passing the memory limit."""
        return _field(
            self._memory / ("memory.oom_control" if self.version == "v1" else "memory.events"), "oom_kill"
        )


@contextmanager
def cage(device: Device, *, proc_self: Path = PROC_SELF) -> Iterator[Cage]:
    """Make the control groups of a device; at the end kill what is in them and remove them.

    Raises Unavailable with the plain reason where this process can't have any. What suites that were killed left is
    removed first. Blocking; making takes milliseconds, and the end waits for killed processes to be gone.
    """
    sweep(proc_self=proc_self)
    hierarchies = Hierarchies.read(proc_self)
    name = leftovers.name(str(next(_numbers)))
    if hierarchies.version == "v1":
        with (
            _group_v1(hierarchies, "memory", name) as memory,
            _group_v1(hierarchies, "cpu", name) as cpu,
        ):
            _limit_memory_v1(memory, device)
            _limit_cpu_v1(cpu, device)
            made = Cage(device, version="v1", memory=memory, cpu=cpu)
            _try(made)
            yield made
    else:
        with _group_v2(hierarchies, name) as group:
            _limit_v2(group, device)
            made = Cage(device, version="v2", memory=group, cpu=group)
            _try(made)
            yield made


def sweep(*, proc_self: Path = PROC_SELF) -> list[str]:
    """Remove the control groups of suites that are gone, and kill what runs in them. Blocking.

    Returns a sentence for each, for people. They may be anywhere: each suite makes them where it is itself.
    """
    found: list[str] = []
    try:
        roots = Hierarchies.read(proc_self).roots
    except Unavailable:
        return found
    for root in roots:
        for directory, inner, _ in os.walk(root, topdown=True):
            abandoned = [entry for entry in inner if leftovers.is_abandoned(Path(entry))]
            inner[:] = [entry for entry in inner if entry not in abandoned]
            for entry in abandoned:
                group = Path(directory, entry)
                _remove(group)
                left = "; it can't be removed" if group.exists() else ", and removed it"
                found.append(f"found the control group {group} of a run that was killed{left}")
    return found


@contextmanager
def _group_v1(hierarchies: Hierarchies, controller: str, name: str) -> Iterator[Path]:
    group = hierarchies.v1[controller].own / name
    try:
        group.mkdir()
    except OSError as error:
        raise Unavailable(
            f"no control group for {controller} can be made in {group.parent} ({error.strerror}): {REMEDY}"
        ) from error
    try:
        yield group
    finally:
        _remove(group)


def _limit_memory_v1(group: Path, device: Device) -> None:
    _write(group / "memory.limit_in_bytes", device.memory_bytes)
    # A board without swap: what does not fit is killed, and does not become slow instead.
    with_swap = group / "memory.memsw.limit_in_bytes"
    if with_swap.exists():
        _write(with_swap, device.memory_bytes)


def _limit_cpu_v1(group: Path, device: Device) -> None:
    _write(group / "cpu.cfs_period_us", device.period_us)
    _write(group / "cpu.cfs_quota_us", device.quota_us)


@contextmanager
def _group_v2(hierarchies: Hierarchies, name: str) -> Iterator[Path]:
    hierarchy = hierarchies.v2
    if hierarchy is None:
        raise AssertionError("version 2 was chosen and is not mounted")
    reason = ""
    for parent in hierarchy.lineage:
        with ExitStack() as stack:
            try:
                stack.enter_context(_handing_down(parent))
                (parent / name).mkdir()
            except OSError as error:
                reason = f"no control group with limits can be made in {parent} ({error.strerror})"
                continue
            stack.callback(_remove, parent / name)
            yield parent / name
            return
    raise Unavailable(f"{reason}: {REMEDY}")


@contextmanager
def _handing_down(parent: Path) -> Iterator[None]:
    """Have a group control memory and CPU of the groups in it; afterwards it is as it was, unless others rely on that.

    A group that has processes of its own may not do that, but for the root. Ours has us: where nobody else is in it, as
    in a scope that was made for us, we step aside into a group below; else its parents are next. Raises OSError.
    """
    handed = (parent / "cgroup.subtree_control").read_text(encoding="ascii").split()
    available = (parent / "cgroup.controllers").read_text(encoding="ascii").split()
    missing = [name for name in control_groups.CONTROLLERS if name not in handed]
    if lacking := [name for name in missing if name not in available]:
        raise OSError(errno.ENOENT, f"it is given no control of {' and '.join(lacking)} itself")
    aside: Path | None = None
    try:
        _switch(parent, "+", missing)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        aside = _step_aside(parent)
        try:
            _switch(parent, "+", missing)
        except OSError:
            _step_back(parent, aside)
            raise
    try:
        yield
    finally:
        # Where there are groups that were made meanwhile, somebody has begun to rely on it.
        if missing and all(entry == aside for entry in parent.iterdir() if entry.is_dir()):
            with suppress(OSError):
                _switch(parent, "-", missing)
                if aside is not None:
                    _step_back(parent, aside)


def _switch(parent: Path, sign: Literal["+", "-"], controllers: Sequence[str]) -> None:
    if controllers:
        words = " ".join(f"{sign}{name}" for name in controllers)
        (parent / "cgroup.subtree_control").write_text(words, encoding="ascii")


def _step_aside(parent: Path) -> Path:
    """Move the processes of a group into one below it. Raises OSError where one of them is not ours."""
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    # A group that we stepped aside into is as deep as we go. One of another pid namespace shows as 0.
    if leftovers.is_named(parent) or not ours.issuperset(_listed(parent)):
        raise OSError(errno.EBUSY, "it has processes of its own")
    aside = parent / leftovers.name("aside")
    aside.mkdir(exist_ok=True)
    try:
        _move(parent, aside)
    except OSError:
        _step_back(parent, aside)
        raise
    return aside


def _step_back(parent: Path, aside: Path) -> None:
    with suppress(OSError):
        _move(aside, parent)
        aside.rmdir()


def _move(source: Path, target: Path) -> None:
    """Move all processes of a group. Raises OSError."""
    for _ in range(MOVES):
        for pid in _members(source):
            with suppress(ProcessLookupError):
                (target / "cgroup.procs").write_text(str(pid), encoding="ascii")


def _limit_v2(group: Path, device: Device) -> None:
    _write(group / "memory.max", device.memory_bytes)
    if (group / "memory.swap.max").exists():
        _write(group / "memory.swap.max", 0)
    _write(group / "cpu.max", f"{device.quota_us} {device.period_us}")


def _try(made: Cage) -> None:
    """Have something join, and raise Unavailable where it can't: v2 asks for rights on the group that it leaves, too."""
    tried = subprocess.run(made.wrap(["/bin/sh", "-c", ":"]), capture_output=True, text=True, check=False)
    if tried.returncode:
        raise Unavailable(
            f"no process can be brought into the control group {made.groups[-1]} ({tried.stderr.strip()}): {REMEDY}"
        )


def _write(path: Path, value: int | str) -> None:
    try:
        path.write_text(f"{value}", encoding="ascii")
    except OSError as error:
        # With v1 a group further up may have less than is asked for here; with v2 the least of all holds.
        raise Unavailable(
            f"the limit {value} can't be written to {path} ({error.strerror}), so this device can't be emulated"
        ) from error


def _remove(group: Path) -> None:
    """Kill what is in a group and remove it. What can't be removed in time stays for the next suite to find."""
    until = time.monotonic() + EMPTY_S
    while True:
        leftovers.kill(_members(group))
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > until:
                return
            time.sleep(POLL_S)
        else:
            return


def _members(group: Path) -> list[int]:
    # One of another pid namespace shows as 0, and to kill 0 is to kill ourselves.
    return [pid for pid in _listed(group) if pid > 0]


def _listed(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _field(path: Path, name: str) -> int:
    for line in path.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
