"""One nebula process: kept alive, reloaded or restarted with proof, left running when we go, adopted when we come.

Does what :mod:`edgegc.nebula.machine` says, through a :class:`~edgegc.nebula.spawn.Spawner`. Knows nothing of
clusters, bundles or the control plane: the configuration is already on disk, complete and tested, when it is
told to :meth:`Process.apply` it.
"""

from __future__ import annotations

import logging
import math
import signal
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import msgspec
import trio

from edgegc.nebula import identity, logfile, ports, proof, record, reload
from edgegc.nebula.executable import (
    MINIMUM_VERSION,
    ApplyFailed,
    InstalledNebula,
    Nebula,
    NebulaUnusable,
    Version,
    find_nebula,
    nebula_version,
    test_config,
    version_text,
)
from edgegc.nebula.logfile import LogFile
from edgegc.nebula.machine import Action, Input, Machine
from edgegc.nebula.probe import probe
from edgegc.nebula.record import Loaded, Record
from edgegc.nebula.spawn import Child, Spawner, SystemSpawner
from edgegc.nebula.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgegc.clock import Clock

__all__ = [
    "MINIMUM_VERSION",
    "Applied",
    "ApplyFailed",
    "Child",
    "InstalledNebula",
    "Nebula",
    "NebulaUnusable",
    "Process",
    "ProcessStatus",
    "Spawner",
    "State",
    "SystemSpawner",
    "Version",
    "Wanted",
    "find_nebula",
    "in_thread",
    "nebula_version",
    "test_config",
    "version_text",
]

APPLY_LIMIT_S = 60.0
"""For one start or restart: TERM limit, start limit, and room."""

RELOAD_LIMIT_S = 10.0
"""From SIGHUP to the last expected log line: 1.4 ms for a firewall, 73 ms for a blocklist of 10,000."""

PROBE_LIMIT_S = 5.0
"""From the proof in the log to the answer on UDP."""

SETTLE_S = 0.25
"""A new process is looked at once more after this: 1.6.1 ends *after* its ready line over some conflicts."""

QUIET_S = 0.05
"""After the last expected line of a reload: sections that come later may still complain."""

LOG_POLL_S = (0.005, 0.1)
"""First and longest interval of looking into the log while a line is expected, doubling; only then."""

ROTATE_CHECK_S = 60.0
"""How often the size of the log is looked at."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Disk(Protocol):
    """Runs a blocking job on files somewhere; in tests right here."""

    async def __call__(self, job: Callable[[], _T], /) -> _T:
        """Return what ``job`` returns."""


async def in_thread(job: Callable[[], _T], /) -> _T:
    """Run a blocking job in a thread; not cancellable once begun."""
    return await trio.to_thread.run_sync(job)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What shall run. ``config`` is complete, with absolute paths, and already on disk at the process's config_path.

    ``config_digest`` names all that belongs to it, certificates included, in the caller's words. ``port`` is the
    UDP port (0: any). ``fingerprint`` that of the host certificate (lower-case hex; None: don't compare).
    ``probe``: whether an answer over UDP belongs to the proof (needs ``listen.send_recv_error: always``).
    """

    config: dict[str, object]
    config_digest: str
    port: int
    fingerprint: str | None
    probe: bool = True


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply did. ``start``: nothing ran before."""

    action: Literal["none", "hup", "restart", "start"]
    reasons: tuple[str, ...]
    pid: int | None


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the process. ``started_at`` in Unix seconds; ``port`` the true UDP port, once known.

    ``config_digest`` is what is provably loaded (None: nothing, or not known). ``last_error`` is kept for a few seconds of
    successful running.
    """

    state: State
    pid: int | None
    adopted: bool
    restarts: int
    started_at: int | None
    last_error: str | None
    nebula_version: Version | None
    config_digest: str | None
    port: int | None


class Process:
    """One nebula, by its record at ``record_path``. Constructing it does nothing; :meth:`run` must be running for the rest.

    ``user`` is whom to run it as when we are root (None: as ourselves). ``random`` returns a float in [0, 1).
    ``on_change`` is called in the Trio thread, and must not block, whenever :attr:`status` may differ.
    ``log_fields`` go with every log line. ``disk`` runs blocking work on files.
    """

    def __init__(
        self,
        *,
        executable: Path,
        config_path: Path,
        record_path: Path,
        log_path: Path,
        user: str | None,
        spawner: Spawner,
        clock: Clock,
        random: Callable[[], float],
        on_change: Callable[[ProcessStatus], None],
        log_fields: Mapping[str, object] | None = None,
        disk: Disk = in_thread,
    ) -> None:
        self.executable = executable
        self._config_path = config_path
        self._record_path = record_path
        self._log_path = log_path
        self._user = user
        self._spawner = spawner
        self._clock = clock
        self._on_change = on_change
        self._log_fields = dict(log_fields or {})
        self._disk = disk

        self._machine = Machine(random=random)
        self._log = LogFile(log_path)
        self._child: Child | None = None
        self._adopted = False
        self._record: Record | None = None
        # What is on disk at config_path; and what the process has provably loaded of it.
        self._on_disk: Loaded | None = None
        self._restarts_before = 0
        self._spawn_due = False
        self._changed = trio.Event()
        self._applying = trio.Lock()
        self._nursery: trio.Nursery | None = None

    # What others call

    @property
    def status(self) -> ProcessStatus:
        """Return what is known now."""
        machine, known = self._machine, self._record
        alive = self._child is not None
        failure = machine.failure
        return ProcessStatus(
            state=machine.state,
            pid=self._child.pid if self._child is not None else None,
            adopted=alive and self._adopted,
            restarts=self._restarts_before + machine.restarts,
            started_at=known.spawned_at if alive and known else None,
            last_error=failure.reason if failure and not machine.settled(trio.current_time()) else None,
            nebula_version=known.nebula_version if alive and known else None,
            config_digest=known.loaded.config_digest if alive and known and known.loaded else None,
            port=known.port if alive and known else None,
        )

    def tail(self, count: int) -> tuple[str, ...]:
        """Return the last ``count`` lines of the log."""
        return self._log.tail(count)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt the process that the record names, or stay stopped; then keep alive what is wanted to run.

        Reports started once adoption is decided. Cancelling it leaves nebula running, to be adopted by the next run.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._adopt()
                task_status.started()
                nursery.start_soon(self._rotate_log)
                await self._turn()
        finally:
            self._nursery = None
            if self._child is not None:
                self._child.release()
                self._child = None

    def plan(self, wanted: Wanted) -> Literal["none", "hup", "restart", "start"]:
        """Return what :meth:`apply` would do now, if the certificates on disk belong to ``wanted``. Blocking, briefly."""
        if self._machine.state is not State.RUNNING:
            return "start"
        return self._difference(_read(wanted))[0]

    async def apply(self, wanted: Wanted) -> Applied:
        """Make the process run what is on disk, by nothing, SIGHUP, or a (re)start, and prove it.

        The proof is nebula's log (with the certificate's fingerprint after a reload) and an answer over UDP.
        Raises :class:`ApplyFailed`; what runs is then either the old configuration, or none and it is being tried again with
        the new one: put the old one on disk and apply that to go back. Cancellation is safe: what is loaded then
        counts as not known, and the next apply restarts. Applies wait for each other.
        """
        async with self._applying:
            target = await self._disk(partial(_read, wanted))
            self._on_disk = target
            await self._unsettled_over()
            action: Literal["none", "hup", "restart", "start"] = "start"
            reasons: tuple[str, ...] = ()
            if self._machine.state is State.RUNNING:
                action, reasons, lines = self._difference(target)
                if action == "hup":
                    silence = await self._reload(target, lines)
                    if silence is not None:
                        action, reasons = "restart", (*reasons, silence)
                elif action == "none":
                    await self._remember(loaded=target)
            if action == "restart":
                _log.info("nebula restarts: %s", "; ".join(reasons), extra=self._fields())
                await self._replace(Input.RESTART)
            elif action == "start":
                await self._replace(Input.START)
            await self._prove(target, wanted.probe, settle=action in ("start", "restart"))
            return Applied(
                action=action, reasons=reasons, pid=self._child.pid if self._child is not None else None
            )

    async def restart(self) -> None:
        """Replace the process by a new one (or start it) with what is on disk. Raises :class:`ApplyFailed`."""
        async with self._applying:
            await self._unsettled_over()
            await self._replace(Input.RESTART)
            if self._on_disk is not None:
                await self._prove(self._on_disk, False, settle=True)

    async def stop(self) -> None:
        """End the process for good: SIGTERM, SIGKILL after a bound; forget it when it is gone.

        Does not wait for an apply under way, which fails. Cancelling it does not make the process go on.
        """
        self._input(Input.STOP)
        await self._until(lambda: self._machine.state is not State.STOPPING)
        if self._machine.state is State.STOPPED:
            self._record = None
            await self._disk(partial(record.remove, self._record_path))

    # The driver: one turn at a time, inputs to the machine from anywhere

    async def _turn(self) -> None:
        while True:
            if self._spawn_due:
                self._spawn_due = False
                await self._spawn()
            changed = self._changed
            deadline = self._machine.deadline
            with trio.move_on_at(math.inf if deadline is None else deadline):
                if not self._spawn_due:
                    await changed.wait()
            if deadline is not None and trio.current_time() >= deadline:
                self._input(Input.TICK)

    def _input(self, what: Input, *, reason: str = "", age_s: float = 0.0) -> None:
        if self._nursery is None:
            raise RuntimeError("Process.run() is not running")
        machine = self._machine
        before = machine.state
        for action in machine.step(what, trio.current_time(), reason=reason, age_s=age_s):
            match action:
                case Action.SPAWN:
                    self._spawn_due = True
                case Action.TERMINATE:
                    self._signal(signal.SIGTERM)
                case Action.KILL:
                    _log.warning("nebula did not end after SIGTERM; sending SIGKILL", extra=self._fields())
                    self._signal(signal.SIGKILL)
        if machine.state is not before:
            self._tell(before, reason)
        self._change()

    def _tell(self, before: State, reason: str) -> None:
        state = self._machine.state
        if state is State.FATAL or (state is State.BACKOFF and before is not State.FATAL):
            level = logging.ERROR if state is State.FATAL else logging.WARNING
            _log.log(level, "nebula is in state %s: %s", state.value, reason, extra=self._fields())
        else:
            _log.info("nebula: %s -> %s", before.value, state.value, extra=self._fields())

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        self._on_change(self.status)

    def _signal(self, number: signal.Signals) -> None:
        # None while it is being spawned: _spawn looks at the state again when it has one.
        if self._child is not None:
            self._child.send_signal(number)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    async def _adopt(self) -> None:
        known = await self._disk(partial(record.load, self._record_path))
        if known is None:
            return
        self._restarts_before = known.restarts
        child = self._spawner.adopt(known)
        if child is None:
            return
        self._record = msgspec.structs.replace(known, pid=child.pid, start_ticks=child.start_ticks)
        self._hold(child, adopted=True)
        age_s = max(0.0, self._clock.now() - known.spawned_at)
        _log.info("adopted a running nebula", extra=self._fields())
        if known.pid is None:
            await self._save()
        self._input(Input.ADOPT_READY if known.ready else Input.ADOPT_STARTING, age_s=age_s)
        self._watch(child)

    async def _spawn(self) -> None:
        target = self._on_disk
        offset = self._log.size()
        self._record = Record(
            boot_id=record.boot_id(),
            executable=str(self.executable),
            config_path=str(self._config_path),
            log_offset=offset,
            spawned_at=self._clock.now(),
            restarts=self._restarts_before + self._machine.restarts,
            loaded=target,
        )
        try:
            if target is not None:
                await self._disk(partial(ports.check_free, _listen_host(target.config), target.port))
            # First the intention, then the deed, then its pid: dying in between leaves a process that is found.
            await self._save()
            if self._in(State.STOPPING):
                self._input(Input.SPAWN_FAILED, reason="stopped before it was started")
                return
            # From here to the record nothing may be cancelled: a process that nobody knows would keep the port.
            with trio.CancelScope(shield=True):
                child = await self._spawner.spawn(
                    [str(self.executable), "-config", str(self._config_path)],
                    log_path=self._log_path,
                    user=self._user,
                )
                self._hold(child, adopted=False)
                self._record = msgspec.structs.replace(
                    self._record, pid=child.pid, start_ticks=child.start_ticks
                )
                await self._save()
        except ApplyFailed as error:
            self._input(Input.SPAWN_FAILED, reason=error.message)
            return
        except OSError as error:
            self._input(Input.SPAWN_FAILED, reason=f"{self.executable} can't be started: {error.strerror}")
            return
        if self._in(State.STOPPING):
            child.send_signal(signal.SIGTERM)
        self._change()
        self._watch(child)

    def _hold(self, child: Child, *, adopted: bool) -> None:
        self._child = child
        self._adopted = adopted

    def _watch(self, child: Child) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._watch_child, child)

    async def _watch_child(self, child: Child) -> None:
        known = self._record
        assert known is not None
        async with trio.open_nursery() as nursery:
            if not known.ready:
                nursery.start_soon(self._await_ready, known.log_offset)
            code = await child.wait()
            nursery.cancel_scope.cancel()
        reason = self._obituary(code, known.log_offset)
        child.release()
        self._child = None
        self._input(Input.EXITED, reason=reason)

    async def _await_ready(self, offset: int) -> None:
        line = await self._log_says(offset, logfile.ready_line)
        await self._remember(ready=True, port=logfile.udp_port(line), nebula_version=logfile.build(line))
        self._input(Input.READY)

    def _obituary(self, code: int | None, offset: int) -> str:
        if code is not None and code < 0:
            return f"nebula was ended by {_signal_name(-code)}"
        how = "with unknown exit code (it was adopted)" if code is None else f"with exit code {code}"
        said = logfile.complaint(self._log.lines_since(max(offset, self._log.size() - logfile.TAIL_BYTES)))
        return f"nebula ended {how}: {said}" if said else f"nebula ended {how}"

    async def _rotate_log(self) -> None:
        while True:
            await trio.sleep(ROTATE_CHECK_S)
            # Not while an apply or a start reads the log from an offset.
            async with self._applying:
                if self._machine.state in (State.RUNNING, State.STOPPED, State.FATAL):
                    await self._disk(self._log.rotate)

    # The record

    async def _remember(self, **changes: object) -> None:
        """Change the record of the present process, on disk too."""
        if self._record is None:
            return
        changed = msgspec.structs.replace(self._record, **changes)
        if changed != self._record:
            self._record = changed
            await self._save()
            self._on_change(self.status)

    async def _save(self) -> None:
        assert self._record is not None
        try:
            await self._disk(partial(record.save, self._record_path, self._record))
        except OSError as error:
            # A full disk must not stop the network. The next start of ours finds the process by an older record, or
            # not at all and says that the port is taken.
            _log.warning(
                "can't record the nebula process: %s",
                error.strerror,
                extra=self._fields(path=str(self._record_path)),
            )

    # Applying

    async def _unsettled_over(self) -> None:
        """Wait while a process is coming or going: SIGHUP before the ready line would kill it."""
        with trio.move_on_after(APPLY_LIMIT_S) as scope:
            await self._until(lambda: self._machine.state not in (State.STARTING, State.STOPPING))
        if scope.cancelled_caught:
            raise ApplyFailed(f"nebula is {self._machine.state.value} for more than {APPLY_LIMIT_S:.0f} s")

    def _difference(
        self, target: Loaded
    ) -> tuple[Literal["none", "hup", "restart"], tuple[str, ...], tuple[str, ...]]:
        known = self._record
        if known is None or known.loaded is None:
            return "restart", ("what it has loaded is not known",), ()
        loaded = known.loaded
        plan = reload.plan(
            loaded.config,
            target.config,
            nebula_version=known.nebula_version or (0, 0, 0),
            certificate_changed=loaded.fingerprint != target.fingerprint,
            address_changed=_differ(loaded.addresses, target.addresses),
            subnets_changed=_differ(loaded.subnets, target.subnets),
            authorities_added=not set(target.authorities) <= set(loaded.authorities),
            authorities_removed=not set(loaded.authorities) <= set(target.authorities),
        )
        return plan.action, plan.reasons, plan.log_lines

    async def _reload(self, target: Loaded, expected: tuple[str, ...]) -> str | None:
        """Send SIGHUP and wait for the proof in the log. Returns None, or why only a restart can help.

        Raises :class:`ApplyFailed` if nebula refused a part (a restart with that would take it down), or died of it.
        """
        attempt = self._machine.attempt
        # If we die now, the next of us must not believe that the old configuration is still what is loaded.
        await self._remember(loaded=None)
        offset = self._log.size()
        if not self._same(attempt):
            raise ApplyFailed(self._why_gone())
        # No checkpoint since the look at the state: it is past its ready line, and alive or a zombie.
        self._signal(signal.SIGHUP)
        unsaid: str | None = reload.CAUGHT_HUP

        def verdict(lines: list[str]) -> Literal[True] | None:
            nonlocal unsaid
            if not self._same(attempt):
                raise ApplyFailed(self._why_gone())
            unsaid = proof.missing(lines, expected, target.fingerprint)
            return True if unsaid is None else None

        with trio.move_on_after(RELOAD_LIMIT_S):
            await self._log_says(offset, verdict)
        if unsaid is not None:
            return f"it did not say {unsaid!r} within {RELOAD_LIMIT_S:.0f} s of SIGHUP"
        await trio.sleep(QUIET_S)
        verdict(self._log.lines_since(offset))
        await self._remember(loaded=target)
        return None

    async def _replace(self, what: Input) -> None:
        """Start or restart, and wait until the new process is past its ready line."""
        before = self._machine.attempt
        self._input(what)
        with trio.move_on_after(APPLY_LIMIT_S) as scope:
            await self._until(
                lambda: self._came(before) or self._failed(before) is not None or self._in(State.STOPPED)
            )
        if scope.cancelled_caught:
            raise ApplyFailed(f"nebula was not ready within {APPLY_LIMIT_S:.0f} s")
        if not self._came(before):
            raise ApplyFailed(self._failed(before) or "nebula was stopped meanwhile")

    async def _prove(self, target: Loaded, probed: bool, *, settle: bool) -> None:
        attempt = self._machine.attempt
        if settle:
            with trio.move_on_after(SETTLE_S):
                await self._until(lambda: not self._same(attempt))
        if not self._same(attempt):
            raise ApplyFailed(self._why_gone())
        port = self._record.port if self._record is not None and self._record.port else target.port
        if not probed or not port:
            return
        host = _probe_host(target.config)
        answered = False
        with trio.move_on_after(PROBE_LIMIT_S):
            while not answered:
                answered = await probe(port, host=host)
        if not answered:
            raise ApplyFailed(f"nebula runs, but does not answer on UDP port {port}")
        if not self._same(attempt):
            raise ApplyFailed(self._why_gone())

    def _same(self, attempt: int) -> bool:
        return self._machine.attempt == attempt and self._machine.state is State.RUNNING

    def _came(self, before: int) -> bool:
        return self._machine.attempt > before and self._machine.state is State.RUNNING

    def _failed(self, before: int) -> str | None:
        failure = self._machine.failure
        return failure.reason if failure is not None and failure.attempt > before else None

    def _in(self, *states: State) -> bool:
        return self._machine.state in states

    def _why_gone(self) -> str:
        failure = self._machine.failure
        return failure.reason if failure is not None else "nebula was stopped meanwhile"

    # The log

    async def _log_says(self, offset: int, verdict: Callable[[list[str]], _T | None]) -> _T:
        """Look at the log after ``offset`` again and again, until ``verdict`` of its lines is not None; return that."""
        # Polled, not watched: only while a line is expected, which is milliseconds, and the same for every file system.
        interval, longest = LOG_POLL_S
        while (found := verdict(self._log.lines_since(offset))) is None:
            await trio.sleep(interval)
            interval = min(2 * interval, longest)
        return found

    def _fields(self, **more: object) -> dict[str, object]:
        pid = self._child.pid if self._child is not None else None
        return {**self._log_fields, "pid": pid, **more}


def _read(wanted: Wanted) -> Loaded:
    host = identity.host(wanted.config)
    if wanted.fingerprint is not None and host.fingerprint != wanted.fingerprint:
        raise ApplyFailed("the certificate on disk is not the one that belongs to this configuration")
    return Loaded(
        config=wanted.config,
        config_digest=wanted.config_digest,
        port=wanted.port,
        fingerprint=host.fingerprint,
        authorities=identity.authorities(wanted.config),
        addresses=host.addresses,
        subnets=host.subnets,
    )


def _differ(old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> bool | None:
    return None if old is None or new is None else old != new


def _listen_host(config: Mapping[str, object]) -> str:
    listen = config.get("listen")
    host = listen.get("host") if isinstance(listen, dict) else None
    return host if isinstance(host, str) else ""


def _probe_host(config: Mapping[str, object]) -> str:
    host = _listen_host(config)
    return "127.0.0.1" if host in ports.ANY_HOST else host.strip("[]")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
