"""The life of one nebula process: spawned, watched, started again when it ends, recorded, adopted, left running.

Does what :mod:`edgegc.nebula.machine` says, through a :class:`~edgegc.nebula.spawn.Spawner`. Knows no reloads and no
proofs: what is on disk is somebody else's choice (``process.py``), and only noted here.
"""

from __future__ import annotations

import logging
import math
import signal
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from edgegc.nebula import identity, logfile, ports, record
from edgegc.nebula.executable import ApplyFailed
from edgegc.nebula.logfile import LogFile
from edgegc.nebula.machine import Action, Input, Machine
from edgegc.nebula.probe import probe
from edgegc.nebula.record import Record
from edgegc.nebula.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgegc.clock import Clock
    from edgegc.nebula.files import Disk
    from edgegc.nebula.record import Loaded
    from edgegc.nebula.spawn import Child, Spawner

LOG_POLL_S = (0.005, 0.1)
"""First and longest interval of looking into the log while a line is expected, doubling; only then."""

SILENT_S = 2.0
"""Without a ready line for so long, and so often, a new process is asked over UDP whether it is there."""

ROTATE_CHECK_S = 60.0
"""How often the size of the log is looked at."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Life:
    """One nebula's life. Constructing it does nothing; :meth:`run` must be running for the rest.

    ``machine`` is where it stands (step it through :meth:`take` only); ``record`` what is remembered of the present
    or last process; ``on_disk`` what a process that is spawned now will load (None: nobody said). Whoever changes files that
    nebula reads, or reads its log from an offset, holds ``quiet`` meanwhile.
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
        on_change: Callable[[], None],
        log_fields: Mapping[str, object],
        disk: Disk,
    ) -> None:
        self.executable = executable
        self.machine = Machine(random=random)
        self.record: Record | None = None
        self.on_disk: Loaded | None = None
        self.log = LogFile(log_path)
        self.quiet = trio.Lock()
        self.child: Child | None = None
        self.is_adopted = False
        self._config_path = config_path
        self._record_path = record_path
        self._user = user
        self._spawner = spawner
        self._clock = clock
        self._on_change = on_change
        self._log_fields = dict(log_fields)
        self._disk = disk
        self._restarts_before = 0
        self._spawn_due = False
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def restarts(self) -> int:
        """How often a process was replaced, also before we adopted it."""
        return self._restarts_before + self.machine.restarts

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt the process that the record names, or stay stopped; then do what the machine says.

        Reports started once adoption is decided. Cancelling it leaves nebula running.
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
            if self.child is not None:
                self.child.release()
                self.child = None

    # For whoever drives it

    def take(self, what: Input, *, reason: str = "", age_s: float = 0.0) -> None:
        """Let the machine take an input, and do at once what it says (spawning follows in :meth:`run`)."""
        if self._nursery is None:
            raise RuntimeError("Life.run() is not running")
        machine = self.machine
        before = machine.state
        for action in machine.step(what, trio.current_time(), reason=reason, age_s=age_s):
            match action:
                case Action.SPAWN:
                    self._spawn_due = True
                case Action.TERMINATE:
                    self.send_signal(signal.SIGTERM)
                case Action.KILL:
                    _log.warning("nebula did not end after SIGTERM; sending SIGKILL", extra=self.fields())
                    self.send_signal(signal.SIGKILL)
        if machine.state is not before:
            self._tell(before, reason)
        self._change()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the present process, if there is one."""
        # None while it is being spawned: _spawn looks at the state again when it has one.
        if self.child is not None:
            self.child.send_signal(number)

    def remove_tunnel(self, device: str) -> None:
        """Remove a tunnel device that was kept, and that no process has."""
        self._spawner.remove_tunnel(device)

    def stands(self, *states: State) -> bool:
        """Return whether the machine is in one of these states."""
        return self.machine.state in states

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition on this object holds."""
        while not holds():
            await self._changed.wait()

    async def log_says(self, offset: int, verdict: Callable[[list[str]], _T | None]) -> _T:
        """Look at the log after ``offset`` again and again, until ``verdict`` of its lines is not None; return that."""
        # Polled, not watched: only while a line is expected, which is milliseconds, and the same for every file system.
        interval, longest = LOG_POLL_S
        while (found := verdict(self.log.lines_since(offset))) is None:
            await trio.sleep(interval)
            interval = min(2 * interval, longest)
        return found

    async def remember(self, **changes: object) -> None:
        """Change the record of the present process, durably."""
        if self.record is None:
            return
        changed = msgspec.structs.replace(self.record, **changes)
        if changed != self.record:
            self.record = changed
            await self._save()
            self._on_change()

    async def forget(self) -> None:
        """Remove the record of a process that is gone for good, durably."""
        self.record = None
        try:
            await self._disk(partial(record.remove, self._record_path))
        except OSError as error:
            # It names a process that is gone, and will be found to.
            _log.warning("can't remove the record of a nebula process: %s", error, extra=self.fields())

    def fields(self, **more: object) -> dict[str, object]:
        """Return the fields of a log line about the present process."""
        pid = self.child.pid if self.child is not None else None
        return {**self._log_fields, "pid": pid, **more}

    # One turn at a time

    async def _turn(self) -> None:
        while True:
            if self._spawn_due:
                self._spawn_due = False
                await self._spawn()
            changed = self._changed
            deadline = self.machine.deadline
            with trio.move_on_at(math.inf if deadline is None else deadline):
                if not self._spawn_due:
                    await changed.wait()
            if deadline is not None and trio.current_time() >= deadline:
                self.take(Input.TICK)

    def _tell(self, before: State, reason: str) -> None:
        state = self.machine.state
        if state in (State.BACKOFF, State.FATAL):
            level = logging.ERROR if state is State.FATAL else logging.WARNING
            why = reason or (self.machine.failure.reason if self.machine.failure is not None else "")
            _log.log(level, "nebula is in state %s: %s", state.value, why, extra=self.fields())
        else:
            _log.info("nebula: %s -> %s", before.value, state.value, extra=self.fields())

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        self._on_change()

    async def _adopt(self) -> None:
        known = await self._disk(partial(record.load, self._record_path))
        if known is None:
            return
        self._restarts_before = known.restarts
        child = self._spawner.adopt(known)
        if child is None:
            return
        if known.pid not in (None, child.pid):
            # Its successor, spawned just before we died: what it has loaded was not written down.
            known = msgspec.structs.replace(known, loaded=None, ready=False, nebula_version=None, port=None)
        is_news = known.pid != child.pid
        self.record = msgspec.structs.replace(known, pid=child.pid, start_ticks=child.start_ticks)
        self.child, self.is_adopted = child, True
        _log.info("adopted a running nebula", extra=self.fields())
        if is_news:
            await self._save()
        age_s = max(0.0, self._clock.now() - known.spawned_at)
        self.take(Input.ADOPT_READY if known.ready else Input.ADOPT_STARTING, age_s=age_s)
        self._watch(child)

    async def _spawn(self) -> None:
        target = await self._loading()
        follows = self.record is not None
        self.record = Record(
            boot_id=record.boot_id(),
            executable=str(self.executable),
            config_path=str(self._config_path),
            log_offset=self.log.size(),
            spawned_at=self._clock.now(),
            restarts=self.restarts,
            loaded=target,
        )
        try:
            if target is not None:
                host, port = ports.listen_host(target.config), target.port
                await self._disk(partial(ports.check_free, host, port))
            # First the intention, then the deed, then its pid: dying in between leaves a process that is found. The
            # record of the process before is intention enough: until this one is up the tunnel device is gone, and
            # writing durably takes time.
            if not follows:
                await self._save()
            if self.stands(State.STOPPING):
                self.take(Input.SPAWN_FAILED, reason="stopped before it was started")
                return
            # From here to the record nothing may be cancelled: a process that nobody knows would keep the port.
            with trio.CancelScope(shield=True):
                child = await self._spawner.spawn(
                    [str(self.executable), "-config", str(self._config_path)],
                    log_path=self.log.path,
                    user=self._user,
                )
                self.child, self.is_adopted = child, False
                self.record = msgspec.structs.replace(
                    self.record, pid=child.pid, start_ticks=child.start_ticks
                )
                await self._save()
        except ApplyFailed as error:
            self.take(Input.SPAWN_FAILED, reason=error.message)
            return
        except OSError as error:
            self.take(Input.SPAWN_FAILED, reason=f"{self.executable} can't be started: {error.strerror}")
            return
        if self.stands(State.STOPPING):
            child.send_signal(signal.SIGTERM)
        self._change()
        self._watch(child)

    async def _loading(self) -> Loaded | None:
        """Return what a process that starts now reads, or None if that is not known.

        It may crash between the moment in which its files change and the one in which we are told: then it comes back with
        content that nobody has announced yet, which must not pass for the old.
        """
        target = self.on_disk
        if target is None:
            return None
        found = await self._disk(partial(identity.stamp, self._config_path, target.config))
        return target if found == target.stamp else None

    def _watch(self, child: Child) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._watch_child, child)

    async def _watch_child(self, child: Child) -> None:
        known = self.record
        assert known is not None
        async with trio.open_nursery() as nursery:
            if not known.ready:
                nursery.start_soon(self._await_ready, known)
            code = await child.wait()
            nursery.cancel_scope.cancel()
        reason = self._obituary(code, known.log_offset)
        child.release()
        self.child = None
        self.take(Input.EXITED, reason=reason)

    async def _await_ready(self, known: Record) -> None:
        """Wait for the ready line; or, where no log can be written (a full disk), for an answer to the probe."""
        line = ""

        async def read() -> None:
            nonlocal line
            line = await self.log_says(known.log_offset, logfile.ready_line)
            nursery.cancel_scope.cancel()

        async def ask() -> None:
            while True:
                await trio.sleep(SILENT_S)
                if await self._answers(known):
                    break
            _log.warning("nebula answers, but does not log that it is ready", extra=self.fields())
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(ask)
        loaded = known.loaded
        if loaded is not None and not self.is_adopted and await self._loading() != loaded:
            loaded = None  # the files changed while it read them
        await self.remember(
            ready=True, loaded=loaded, port=logfile.udp_port(line), nebula_version=logfile.build(line)
        )
        self.take(Input.READY)

    async def _answers(self, known: Record) -> bool:
        config: Mapping[str, object] = known.loaded.config if known.loaded is not None else {}
        port: int | None = known.loaded.port if known.loaded is not None else None
        if not port and self.child is not None:
            port = await self._disk(partial(ports.bound_by, self.child.pid))
        return port is not None and await probe(port, host=ports.reachable(ports.listen_host(config)))

    def _obituary(self, code: int | None, offset: int) -> str:
        if code is not None and code < 0:
            return f"nebula was ended by {_signal_name(-code)}"
        how = "with unknown exit code (it was adopted)" if code is None else f"with exit code {code}"
        said = logfile.complaint(self.log.lines_since(max(offset, self.log.size() - logfile.TAIL_BYTES)))
        return f"nebula ended {how}: {said}" if said else f"nebula ended {how}"

    async def _rotate_log(self) -> None:
        while True:
            await trio.sleep(ROTATE_CHECK_S)
            async with self.quiet:
                # Not while a start looks for its ready line.
                if self.stands(State.RUNNING, State.STOPPED, State.FATAL):
                    try:
                        await self._disk(self.log.rotate)
                    except OSError as error:
                        _log.warning("can't rotate nebula's log: %s", error, extra=self.fields())

    async def _save(self) -> None:
        assert self.record is not None
        try:
            await self._disk(partial(record.save, self._record_path, self.record))
        except OSError as error:
            # A full disk must not stop the network. The next start of ours finds the process by an older record, or
            # not at all and says that the port is taken.
            _log.warning(
                "can't record the nebula process: %s",
                error.strerror,
                extra=self.fields(path=str(self._record_path)),
            )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
