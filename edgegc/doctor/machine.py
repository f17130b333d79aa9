"""What a box and a node both need of their machine: nebula, tunnels, rights, clock, disk, limits, memory. Read-only,
but for the small file by which the disk is timed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgegc import build
from edgegc.doctor.finding import Finding, fail, of_error, ok, warn
from edgegc.errors import Error
from edgegc.nebula.executable import find_nebula, nebula_version, version_text

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB: Final = 1024 * 1024
TUN: Final = Path("/dev/net/tun")

CAPABILITIES: Final = {
    "CAP_CHOWN": 0,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
}
"""Bit numbers, https://www.man7.org/linux/man-pages/man7/capabilities.7.html and linux/capability.h."""

FSYNC_ROUNDS: Final = 5
FSYNC_WARN_S: Final = 0.1
"""A write is answered after an fsync: beyond this ``edgegc`` feels slow, and the agent's switch takes seconds."""
FSYNC_FAIL_S: Final = 2.0
"""A card that takes this long is dying, or shared with something that writes all the time."""
DISK_WARN_TIMES: Final = 4
"""Times the least that must be free: there it is time to look."""

_STA_UNSYNC: Final = 0x0040


async def nebula(path: Path | None) -> Finding:
    """Whether there is a nebula that we can work with."""
    try:
        executable = find_nebula(path)
        version = await nebula_version(executable)
    except Error as error:
        return of_error("nebula", error)
    return ok("nebula", f"{version_text(version)} at {executable}")


def tun(*, needed: bool) -> Finding:
    """Whether tunnel devices can be made; a box's own lighthouses need none."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        detail = f"{TUN}: {error.strerror}"
        if not needed:
            return ok("tun", f"{detail}; lighthouses need none, this machine can't be a node as well")
        remedy = "modprobe tun"
        if not TUN.exists():
            remedy += f"; mkdir -p {TUN.parent}; mknod {TUN} c 10 200 (in a container: give it that device)"
        return fail("tun", detail, remedy)
    return ok("tun", f"{TUN} can be opened")


def capabilities(needed: Mapping[str, str], *, without: str | None = None) -> Finding:
    """Whether this process has what ``needed`` names, each with what it is for.

    ``without``: what happens where they are missing, if that is not the end of it.
    """
    status = Path("/proc/self/status").read_text("ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("CapEff:")]
    held = int(line.split()[1], 16)
    missing = [f"{name} ({use})" for name, use in needed.items() if not held >> CAPABILITIES[name] & 1]
    if not missing:
        return ok("capabilities", ", ".join(needed))
    lacking = f"missing: {', '.join(missing)}"
    if without is not None:
        return warn("capabilities", f"{lacking}; {without}", "run this, and edgegc, as root")
    return fail("capabilities", lacking, "run this, and edgegc, as root")


def clock(now: float) -> Finding:
    """Whether the time can be right, and is kept right."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    remedy = "set the clock, and keep it right: apt install chrony, or timedatectl set-ntp true"
    if now < build.built_at():
        return fail("clock", f"{shown}, before this edgegc was built: certificates wait for it", remedy)
    if is_synchronised() is False:
        return warn("clock", f"{shown}, not synchronised", remedy)
    return ok("clock", shown)


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex``, and room for the rest, https://www.man7.org/linux/man-pages/man2/adjtimex.2.html."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def is_synchronised() -> bool | None:
    """Return whether the kernel knows the clock to be synchronised; None where it does not tell."""
    asked = _Timex()  # modes 0: only read
    try:
        if ctypes.CDLL(None).adjtimex(ctypes.byref(asked)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return not asked.status & _STA_UNSYNC


def disk(directory: Path, *, least_bytes: int) -> Finding:
    """Whether there is room."""
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    detail = f"{free // MIB} MiB free for {directory}"
    remedy = f"make room: du -xh {directory} | sort -h | tail"
    if found.f_files and not found.f_favail:
        return fail("disk", f"{detail}, but no inode: no file can be made", remedy)
    if free < least_bytes:
        return fail("disk", f"{detail}, it should have {least_bytes // MIB} MiB", remedy)
    if free < DISK_WARN_TIMES * least_bytes:
        return warn("disk", f"{detail}, less than {DISK_WARN_TIMES} times what is needed", remedy)
    return ok("disk", detail)


def fsync(directory: Path) -> Finding:
    """How long a small write takes to be safe on the disk; the median of a few."""
    took = sorted(_one_fsync(directory) for _ in range(FSYNC_ROUNDS))
    median = statistics.median(took)
    detail = f"{median * 1000:.1f} ms for a small write to {directory} (worst of {FSYNC_ROUNDS}: {took[-1] * 1000:.1f} ms)"
    remedy = "use another card or disk, or find what else writes to it (iotop)"
    if median >= FSYNC_FAIL_S:
        return fail("fsync", detail, remedy)
    if median >= FSYNC_WARN_S:
        return warn("fsync", detail, remedy)
    return ok("fsync", detail)


def _one_fsync(directory: Path) -> float:
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(4096))
        file.flush()
        started = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - started


def open_files(needed: int) -> Finding:
    """Whether enough files may be open at once: each client is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        return warn(
            "open files",
            f"at most {hard}, {needed} may be needed",
            "the unit of 'edgegc service show' raises it; elsewhere: ulimit -Hn",
        )
    return ok("open files", f"at most {'any number' if hard == resource.RLIM_INFINITY else hard}")


def memory(needed_bytes: int, *, pid: int | None = None) -> Finding:
    """Whether the control group of a process (None: this one) leaves it the memory it may need."""
    version, limit = memory_limit(Path(f"/proc/{pid or 'self'}/cgroup"), Path("/sys/fs/cgroup"))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    bound = min(limit, total) if limit is not None else total
    where = "no control group" if version is None else f"control groups v{version}"
    detail = f"{bound // MIB} MiB ({where}{', limited' if limit is not None and limit < total else ''})"
    if bound < needed_bytes:
        return warn(
            "memory",
            f"{detail}, {needed_bytes // MIB} MiB may be needed",
            "raise the limit (MemoryMax of the unit), or lower the budgets",
        )
    return ok("memory", detail)


def memory_limit(membership: Path, root: Path) -> tuple[int | None, int | None]:
    """Return the version of control groups that rules a process's memory, and the lowest limit on its way up.

    ``membership`` is its ``/proc/<pid>/cgroup``, ``root`` is where they are mounted.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text("utf-8").splitlines()]
    except OSError:
        return None, None
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return 1, _lowest(root / "memory", path, "memory.limit_in_bytes")
    for _, controllers, path in lines:
        if not controllers and (root / "cgroup.controllers").exists():
            return 2, _lowest(root, path, "memory.max")
    return None, None


def _lowest(root: Path, path: str, name: str) -> int | None:
    limits: list[int] = []
    here = root / path.lstrip("/")
    while True:
        try:
            text = (here / name).read_text("ascii").strip()
        except OSError:
            text = "max"
        if text.isdecimal():
            limits.append(int(text))
        if here in (root, here.parent):
            return min(limits, default=None)
        here = here.parent
