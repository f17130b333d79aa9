"""Children that outlive us: spawning a nebula detached, and holding one, own or adopted, by its pidfd.

Knows nothing about configurations or restarts. This is the seam: tests put a fake :class:`Spawner` here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Protocol

import trio

from edgegc.nebula import record, tunnel
from edgegc.nebula.executable import ENVIRONMENT, account, as_account
from edgegc.nebula.logfile import LogFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FILES_LIMIT = 4096
"""RLIMIT_NOFILE of a nebula: uses about 7, plus a listener or two. The daemon's own limit is far higher."""

LIMITED = ("/bin/sh", "-c", f'ulimit -c 0; ulimit -n {FILES_LIMIT} 2>/dev/null; exec "$0" "$@"')
"""Lowers limits and becomes the program. Not preexec_fn, which is not safe in a process with threads; not prlimit() from
outside, which needs CAP_SYS_RESOURCE for another user's process, and a sandboxed service has none."""

PROC_POLL_S = 1.0
"""How often ``/proc`` is asked where the kernel has no pidfd (before 5.3)."""


class Child(Protocol):
    """A living process that we may signal and wait for."""

    pid: int
    start_ticks: int

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it; nothing happens if it is gone. Never hits another process that got the same pid."""

    def keep_tunnel(self, *, kept: bool) -> bool:
        """Let its tunnel device outlive it, or not any more. Returns whether that was done."""

    async def wait(self) -> int | None:
        """Wait for its end, reap it if it is ours to reap. Returns the exit code (negative: the signal), None if unknown."""

    def release(self) -> None:
        """Let go of it: it runs on, and we can neither signal nor wait for it any more."""


class Spawner(Protocol):
    """Starts and finds children."""

    async def spawn(self, argv: Sequence[str], *, log_path: Path, user: str | None) -> Child:
        """Start a detached process that appends to ``log_path``. Not cancellable once begun. Raises OSError or ApplyFailed."""

    def adopt(self, known: record.Record) -> Child | None:
        """Return the living process that a record is about, or its successor that it does not know yet, or None.

        Signals nothing.
        """

    def remove_tunnel(self, device: str) -> None:
        """Remove a tunnel device that was kept, and that no process has."""


class SystemSpawner:
    """Real processes."""

    async def spawn(self, argv: Sequence[str], *, log_path: Path, user: str | None) -> Child:
        """Start a process in its own session, without our files, environment and privileges."""
        who = account(user)
        if not os.access(argv[0], os.X_OK):  # the shell would say so only in the log
            raise FileNotFoundError(errno.ENOENT, "there is no such program", argv[0])

        def start() -> Child:
            log = LogFile(log_path).open_append()
            try:
                process = subprocess.Popen(
                    [*LIMITED, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    close_fds=True,
                    cwd="/",
                    env=dict(ENVIRONMENT),
                    start_new_session=True,
                    umask=0o077,
                    **as_account(who),
                )
            finally:
                os.close(log)
            try:
                child = _held(process.pid)
            except OSError:
                process.kill()  # at once, so that it did nothing yet
                process.wait()
                raise
            # Popen and trio.Process insist on being waited for and warn when let go; ours are left running on
            # purpose and waited for through the pidfd. asyncio silences Popen in the same way.
            process.returncode = 0
            return child

        # In a thread: fork and exec of a large daemon take milliseconds, and Popen waits for both.
        return await trio.to_thread.run_sync(start)

    def adopt(self, known: record.Record) -> Child | None:
        """Return the process with the recorded pid; else the one that runs with the record's configuration."""
        child = _held_if(known.pid, lambda pid: record.names(known, pid))
        return child or _held_if(record.find_spawned(known), lambda pid: record.find_spawned(known) == pid)

    def remove_tunnel(self, device: str) -> None:
        """Remove it, if it is there."""
        tunnel.remove(device)


class _PidfdChild:
    def __init__(self, pid: int, start_ticks: int, pidfd: int) -> None:
        self.pid = pid
        self.start_ticks = start_ticks
        self._pidfd = pidfd

    def send_signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def keep_tunnel(self, *, kept: bool) -> bool:
        return self._pidfd >= 0 and tunnel.keep(self.pid, self._pidfd, kept=kept)

    async def wait(self) -> int | None:
        # Readable as soon as it is dead, reaped or not: right for a zombie that nobody reaps, too.
        await trio.lowlevel.wait_readable(self._pidfd)
        return _reap(os.P_PIDFD, self._pidfd)

    def release(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


class _ProcChild:
    """For kernels without pidfd: a pid, and the start ticks that say it is still the same process."""

    def __init__(self, pid: int, start_ticks: int) -> None:
        self.pid = pid
        self.start_ticks = start_ticks

    def _alive(self) -> bool:
        seen = record.stat(self.pid)
        return seen is not None and record.is_alive(seen) and seen.start_ticks == self.start_ticks

    def send_signal(self, number: signal.Signals) -> None:
        if self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def keep_tunnel(self, *, kept: bool) -> bool:
        return False

    async def wait(self) -> int | None:
        while self._alive():  # noqa: ASYNC110
            await trio.sleep(PROC_POLL_S)
        return _reap(os.P_PID, self.pid)

    def release(self) -> None:
        """Nothing is held."""


def _held_if(pid: int | None, is_it: Callable[[int], bool]) -> Child | None:
    """Hold the process first, compare then: in this order its pid can't change hands in between."""
    if pid is None or record.stat(pid) is None:
        return None
    try:
        child = _held(pid)
    except ProcessLookupError:
        return None
    if not is_it(pid):
        child.release()
        return None
    return child


def _held(pid: int) -> Child:
    pidfd = -1
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # old kernel; seccomp of old container runtimes
            raise
    seen = record.stat(pid)
    if seen is None:
        if pidfd >= 0:
            os.close(pidfd)
        raise ProcessLookupError(errno.ESRCH, "no such process")
    return _PidfdChild(pid, seen.start_ticks, pidfd) if pidfd >= 0 else _ProcChild(pid, seen.start_ticks)


def _reap(kind: int, identity: int) -> int | None:
    try:
        result = os.waitid(kind, identity, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None  # adopted: only its parent is told
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
