"""The machine that is measured on: what a report says of it, and which versions run there. Judges nothing: see doctor.

No name, address or path of it gets into a report: of the host's name there is a hash.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil
import trio

from edgegc import build
from edgegc.perf import control_groups, filesystem, result
from edgegc.perf.cpus import SYSTEM
from edgegc.perf.histogram import Histogram

FSYNCS: Final = 200
"""Enough for a p99 that a single slow one does not make: two may be slower."""
FSYNC_S: Final = 5.0
"""A slow card does fewer in this time; then those count."""
FSYNC_BYTES: Final = 4096
"""A page of the database's log, as a small write appends it."""
THERMAL: Final = Path("/sys/class/thermal")
CPUINFO: Final = Path("/proc/cpuinfo")
HASH_DIGITS: Final = 12
GIB: Final = 1 << 30
NEBULA_PLACES: Final = "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/opt/nebula"
NEBULA_S: Final = 10.0
PACKAGES: Final = ("trio", "hypercorn", "quart", "quart-trio", "h11", "msgspec", "cryptography", "psutil")
CPU_NAMES: Final = ("model name", "Model", "Hardware", "cpu model")
"""As x86, Arm boards, older Arm kernels and MIPS have it."""


def glance(directory: Path, *, asks: str | None = None) -> result.Host:
    """Return what can be told of this machine in a moment: all but how long an fsync takes.

    ``directory`` is where databases will lie. ``asks``: another machine that this one asks, which a comparison then is
    of, too; its name or address gets no further than into the fingerprint.
    """
    memory = psutil.virtual_memory().total
    cores = len(os.sched_getaffinity(0))
    cpu = cpu_model()
    kind = _filesystem(directory)
    # What changes a figure and does not change by itself. A new kernel is told, and does not forbid to compare.
    comparable = [platform.machine(), cpu, str(cores), str(round(memory / GIB, 1)), kind]
    if asks is not None:
        comparable.append(asks)
    return result.Host(
        fingerprint=_hash("\n".join(comparable)),
        name_hash=_hash(socket.gethostname()),
        system=system(),
        kernel=platform.release(),
        machine=platform.machine(),
        cpu_model=cpu,
        cores=cores,
        memory_bytes=memory,
        swap_bytes=psutil.swap_memory().total,
        governor=governor(),
        temperature_c=temperature_c(),
        cgroup=control_groups.surroundings(),
        filesystem=kind,
        fsync_p50_s=None,
        fsync_p99_s=None,
        load_1m=os.getloadavg()[0],
    )


async def describe(known: result.Host, directory: Path) -> result.Host:
    """Return what is known of this machine, and how long an fsync takes in ``directory``.

    It takes as long as two hundred fsyncs do, at most 5 s. Cancelled, it ends after the fsync that is under way.
    Raises Unavailable where nothing can be written there.
    """
    fsyncs = await fsync_times(directory)
    return msgspec.structs.replace(
        known, fsync_p50_s=fsyncs.value_at(50) / 1e9, fsync_p99_s=fsyncs.value_at(99) / 1e9
    )


def versions(nebula: Path | None = None) -> dict[str, str]:
    """Return what runs here, by name; ``nebula`` is the executable that is used. Blocking, for milliseconds."""
    found = {
        "edgegc": f"{build.describe()['version']} ({build.commit()})",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION,
    }
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    executable = nebula or find_nebula()
    found["nebula"] = nebula_version(executable) if executable is not None else "none"
    return found


def find_nebula() -> Path | None:
    """Return the nebula in ``PATH`` or at the usual places; None where there is none."""
    found = shutil.which("nebula", path=f"{os.environ.get('PATH', '')}:{NEBULA_PLACES}")
    return Path(found) if found else None


def nebula_version(executable: Path) -> str:
    """Return what a nebula says of itself. Blocking."""
    try:
        said = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, timeout=NEBULA_S, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
    return said.strip().removeprefix("Version:").strip() or "unknown"


async def fsync_times(directory: Path) -> Histogram:
    """Return how long it takes to append a page to a file in ``directory`` and have it on the disk.

    Cancelled, it ends after the fsync that is under way. Raises Unavailable where nothing can be written there.
    """
    place = filesystem.workplace(directory)
    return await trio.to_thread.run_sync(_fsync_times, place)


def _fsync_times(place: Path) -> Histogram:
    found = Histogram()
    page = os.urandom(FSYNC_BYTES)
    until = time.monotonic() + FSYNC_S
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        while found.count < FSYNCS and (found.count < 3 or time.monotonic() < until):
            began = time.perf_counter_ns()
            file.write(page)
            os.fsync(file.fileno())
            trio.from_thread.check_cancelled()
            found.record(time.perf_counter_ns() - began)
    return found


def system() -> str:
    """Return the operating system's name for people."""
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.system()


def cpu_model(*, cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name."""
    lines: dict[str, str] = {}
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            lines.setdefault(name.strip(), value.strip())
    return next((lines[name] for name in CPU_NAMES if lines.get(name)), platform.machine())


def governor(*, system: Path = SYSTEM) -> str:
    """Return how the processors' speed is governed: ``performance``, ``ondemand`` …, or ``none`` where it is not."""
    found = set()
    for path in system.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        with suppress(OSError):
            found.add(path.read_text(encoding="ascii").strip())
    return ", ".join(sorted(found)) or "none"


def temperature_c(*, thermal: Path = THERMAL) -> float | None:
    """Return the hottest sensor's temperature; None where there is none."""
    found = []
    for path in thermal.glob("thermal_zone*/temp"):
        with suppress(OSError, ValueError):
            found.append(int(path.read_text(encoding="ascii")) / 1000)
    return max(found, default=None)


def _filesystem(directory: Path) -> str:
    try:
        return filesystem.mount_of(directory).kind
    except OSError:
        return "unknown"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
