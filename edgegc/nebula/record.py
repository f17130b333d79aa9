"""What is remembered of a nebula process across our own death, and how a living process is compared with it.

Knows no signals: whether the process is ours is decided here, what to do with it elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgegc.nebula import files

FORMAT = 1


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a process was started with, or has provably reloaded since.

    ``config`` is complete, with paths; ``config_digest`` is whatever the caller calls its version's digest;
    ``fingerprint`` that of the host certificate and ``authorities`` those of the CA certificates (lower-case hex);
    ``stamp`` is :func:`edgegc.nebula.identity.stamp` of the files. ``addresses`` and ``subnets`` are what the host
    certificate speaks for (None: could not be read).
    """

    config: dict[str, object]
    config_digest: str
    port: int
    fingerprint: str | None
    authorities: tuple[str, ...]
    stamp: str
    addresses: tuple[str, ...] | None = None
    subnets: tuple[str, ...] | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One process. ``pid`` None: about to be spawned when we last wrote; it may exist or not. With a pid that is gone it may
    have a successor that was not written down yet.

    ``start_ticks`` is field 22 of ``/proc/<pid>/stat`` and with ``boot_id`` makes ``pid`` unambiguous.
    ``executable`` is what was asked for, which a wrapper may have replaced. ``log_offset`` is where this
    process's log began. ``ready``: seen past its ready line. ``loaded`` None: not known (we died, or failed,
    between telling it to reload and the proof). Times in Unix seconds.
    """

    boot_id: str
    executable: str
    config_path: str
    log_offset: int
    spawned_at: int
    restarts: int
    loaded: Loaded | None
    pid: int | None = None
    start_ticks: int | None = None
    ready: bool = False
    nebula_version: tuple[int, int, int] | None = None
    port: int | None = None
    format: int = FORMAT


def load(path: Path) -> Record | None:
    """Return the record in a file, or None: there is none, or it is of no use. Blocking."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        # Written atomically, so an unreadable one is of another edgegc, or somebody's: adopting nothing is the
        # harmless side, since a process that still runs keeps its port and is reported by the check of it.
        return None
    return record if record.format == FORMAT else None


def save(path: Path, record: Record) -> None:
    """Write a record, durably. Blocking."""
    files.write_atomic(path, msgspec.json.encode(record), mode=0o600)


def remove(path: Path) -> None:
    """Forget the process, durably. Blocking."""
    files.remove_durably(path)


class Stat(msgspec.Struct, frozen=True):
    """From ``/proc/<pid>/stat``: the state letter, and the start in clock ticks since boot."""

    state: str
    start_ticks: int


def boot_id() -> str:
    """Return what identifies the running boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def stat(pid: int) -> Stat | None:
    """Return the kernel's word on a process, or None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name in parentheses may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(fields[0], int(fields[19]))


def is_alive(seen: Stat | None) -> bool:
    """Return whether a process runs; a zombie does not, whoever should reap it."""
    return seen is not None and seen.state not in "ZX"


def names(record: Record, pid: int) -> bool:
    """Return whether the living process ``pid`` is the one that the record is about.

    Hold a pidfd of ``pid`` while asking: only then is the answer still true afterwards.
    """
    seen = stat(pid)
    return (
        seen is not None
        and is_alive(seen)
        and record.boot_id == boot_id()
        and record.start_ticks == seen.start_ticks
        and _runs_config(pid, record.config_path)
    )


def find_spawned(record: Record) -> int | None:
    """Return the process that was spawned although the record does not know it: we died in between.

    Looks for a process with exactly the command line that we use, started in this boot.
    """
    if record.boot_id != boot_id():
        return None
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            pid = int(entry.name)
            argv = _argv(pid)
            if argv[-2:] == ["-config", record.config_path] and "-test" not in argv and is_alive(stat(pid)):
                return pid
    return None


def _runs_config(pid: int, config_path: str) -> bool:
    # Not the executable: a wrapper that execs nebula changes it, an upgrade marks it "(deleted)", and it is
    # unreadable for us when we are not root and the process is somebody else's.
    return config_path in _argv(pid)


def _argv(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode("utf-8", "surrogateescape") for part in raw.split(b"\0")[:-1]]
