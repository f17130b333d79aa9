"""One nebula process: what is on disk applied to it by nothing, SIGHUP, or a restart, and proven.

That it lives is ``life.py``'s. Knows nothing of clusters, bundles or the control plane: the configuration is
already on disk, complete and tested, when it is told to :meth:`Process.apply` it.
"""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec
import trio

from edgegc.nebula import identity, ports, proof, reload
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
from edgegc.nebula.files import Disk, in_thread
from edgegc.nebula.life import Life
from edgegc.nebula.machine import Input
from edgegc.nebula.probe import probe
from edgegc.nebula.record import Loaded
from edgegc.nebula.spawn import Child, Spawner, SystemSpawner
from edgegc.nebula.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from edgegc.clock import Clock

__all__ = [
    "MINIMUM_VERSION",
    "Applied",
    "ApplyFailed",
    "Child",
    "Disk",
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
"""For one start or restart; the process goes on trying for longer."""

PATIENCE_S = 5.0
"""For a process that happens to be starting to get ready, before it is restarted with what is newer."""

RELOAD_LIMIT_S = 10.0
"""From SIGHUP to the last expected log line: 1.4 ms for a firewall, 73 ms for a blocklist of 10,000."""

PROBE_LIMIT_S = 5.0
"""From the proof in the log to the answer on UDP."""

SETTLE_S = 0.25
"""A new process is looked at once more after this: 1.6.1 ends *after* its ready line over some conflicts."""

QUIET_S = 0.05
"""After the last expected line of a reload: sections that come later may still complain."""

_log = logging.getLogger(__name__)

Action = Literal["none", "hup", "restart", "start"]


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

    action: Action
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
        self._config_path = config_path
        self._disk = disk
        self._probed = False
        self._life = Life(
            executable=executable,
            config_path=config_path,
            record_path=record_path,
            log_path=log_path,
            user=user,
            spawner=spawner,
            clock=clock,
            random=random,
            on_change=lambda: on_change(self.status),
            log_fields=log_fields or {},
            disk=disk,
        )

    @property
    def executable(self) -> Path:
        """What the next start runs; may be set at any time."""
        return self._life.executable

    @executable.setter
    def executable(self, path: Path) -> None:
        self._life.executable = path

    @property
    def status(self) -> ProcessStatus:
        """Return what is known now."""
        life, machine = self._life, self._life.machine
        known = life.record if life.child is not None else None
        failure = machine.failure
        return ProcessStatus(
            state=machine.state,
            pid=life.child.pid if life.child is not None else None,
            adopted=life.child is not None and life.is_adopted,
            restarts=life.restarts,
            started_at=known.spawned_at if known else None,
            last_error=failure.reason if failure and not machine.settled(trio.current_time()) else None,
            nebula_version=known.nebula_version if known else None,
            config_digest=known.loaded.config_digest if known and known.loaded else None,
            port=known.port if known else None,
        )

    def tail(self, count: int) -> tuple[str, ...]:
        """Return the last ``count`` lines of the log."""
        return self._life.log.tail(count)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt the process that the record names, or stay stopped; then keep alive what is wanted to run.

        Reports started once adoption is decided. Cancelling it leaves nebula running, to be adopted by the next run.
        """
        await self._life.run(task_status=task_status)

    def plan(self, wanted: Wanted) -> Action:
        """Return what :meth:`apply` would do now with what is on disk. Blocking, briefly. Raises :class:`ApplyFailed`."""
        if not self._life.stands(State.RUNNING):
            return "start"
        return self._difference(_read(wanted, self._config_path)).action

    async def apply(self, wanted: Wanted) -> Applied:
        """Make the process run what is on disk, by nothing, SIGHUP, or a (re)start, and prove it.

        The proof is nebula's log (with the certificate's fingerprint after a reload) and an answer over UDP.
        Raises :class:`ApplyFailed`; what runs is then either the old configuration, or none and it is being tried again with
        the new one: put the old one on disk and apply that to go back. Cancellation is safe: what is loaded then
        counts as not known, and the next apply restarts. Applies wait for each other.
        """
        life = self._life
        async with life.quiet:
            target = await self._disk(partial(_read, wanted, self._config_path))
            life.on_disk, self._probed = target, wanted.probe
            await self._unsettled_over()
            action: Action = "start"
            reasons: tuple[str, ...] = ()
            if life.stands(State.STARTING) and (life.record is None or life.record.loaded != target):
                action, reasons = "restart", ("it does not get ready with what it was started with",)
            elif life.stands(State.RUNNING):
                plan = self._difference(target)
                action, reasons = plan.action, plan.reasons
                if action == "hup":
                    silence = await self._reload(target, plan.log_lines)
                    if silence is not None:
                        action, reasons = "restart", (*reasons, silence)
                elif action == "none":
                    await life.remember(loaded=target)
            if action == "restart":
                _log.info("nebula restarts: %s", "; ".join(reasons), extra=life.fields())
                with self._device_kept(target):
                    await self._replace(Input.RESTART)
            elif action == "start":
                await self._replace(Input.START)
            await self._prove(target, settle=action in ("start", "restart"))
            pid = life.child.pid if life.child is not None else None
            return Applied(action=action, reasons=reasons, pid=pid)

    async def restart(self) -> None:
        """Replace the process by a new one (or start it) with what is on disk. Raises :class:`ApplyFailed`."""
        async with self._life.quiet:
            await self._unsettled_over()
            target = self._life.on_disk
            with self._device_kept(target):
                await self._replace(Input.RESTART)
            if target is not None:
                await self._prove(target, settle=True)

    async def stop(self) -> None:
        """End the process for good: SIGTERM, SIGKILL after a bound; forget it when it is gone.

        Does not wait for an apply under way, which fails. Cancelling it does not make the process go on.
        """
        self._life.take(Input.STOP)
        await self._life.until(lambda: not self._life.stands(State.STOPPING))
        if self._life.stands(State.STOPPED):
            await self._life.forget()

    # Applying

    async def _unsettled_over(self) -> None:
        """Wait while a process is coming or going: SIGHUP before the ready line would kill it."""
        life = self._life
        with trio.move_on_after(PATIENCE_S):
            await life.until(lambda: not life.stands(State.STARTING))
        with trio.move_on_after(APPLY_LIMIT_S) as scope:
            await life.until(lambda: not life.stands(State.STOPPING))
        if scope.cancelled_caught:
            raise ApplyFailed(f"nebula does not end, {APPLY_LIMIT_S:.0f} s after it should have")

    def _difference(self, target: Loaded) -> reload.Plan:
        known = self._life.record
        if known is None or known.loaded is None:
            return reload.Plan(action="restart", reasons=("what it has loaded is not known",))
        loaded = known.loaded
        return reload.plan(
            loaded.config,
            target.config,
            nebula_version=known.nebula_version or (0, 0, 0),
            certificate_changed=loaded.fingerprint != target.fingerprint,
            address_changed=_differ(loaded.addresses, target.addresses),
            subnets_changed=_differ(loaded.subnets, target.subnets),
            authorities_added=not set(target.authorities) <= set(loaded.authorities),
            authorities_removed=not set(loaded.authorities) <= set(target.authorities),
        )

    async def _reload(self, target: Loaded, expected: tuple[str, ...]) -> str | None:
        """Send SIGHUP and wait for the proof in the log. Returns None, or why only a restart can help.

        Raises :class:`ApplyFailed` if nebula refused a part (a restart with that would take it down), or died of it.
        """
        life = self._life
        attempt = life.machine.attempt
        # If we die now, the next of us must not believe that the old configuration is still what is loaded.
        await life.remember(loaded=None)
        offset = life.log.size()
        if not self._is_still(attempt):
            raise ApplyFailed(self._why_gone())
        # No checkpoint since the look at the state: it is past its ready line, and alive or a zombie.
        life.send_signal(signal.SIGHUP)
        unsaid: str | None = reload.CAUGHT_HUP

        def verdict(lines: list[str]) -> Literal[True] | None:
            nonlocal unsaid
            if not self._is_still(attempt):
                raise ApplyFailed(self._why_gone())
            unsaid = proof.missing(lines, expected, target.fingerprint)
            return True if unsaid is None else None

        with trio.move_on_after(RELOAD_LIMIT_S):
            await life.log_says(offset, verdict)
        if unsaid is not None:
            return f"it did not say {unsaid!r} within {RELOAD_LIMIT_S:.0f} s of SIGHUP"
        await trio.sleep(QUIET_S)
        verdict(life.log.lines_since(offset))
        await life.remember(loaded=target)
        return None

    async def _replace(self, what: Input) -> None:
        """Start or restart, and wait until the new process is past its ready line. One that starts already is waited for."""
        # A file that is read when all of us are cancelled is read to its end: run() may be over by now.
        await trio.lowlevel.checkpoint_if_cancelled()
        life, before = self._life, self._life.machine.attempt
        if what is Input.START and life.stands(State.STARTING):
            before -= 1
        life.take(what)
        with trio.move_on_after(APPLY_LIMIT_S) as scope:
            await life.until(
                lambda: (
                    self._has_come(before) or self._failed(before) is not None or life.stands(State.STOPPED)
                )
            )
        if scope.cancelled_caught:
            raise ApplyFailed(f"nebula was not ready within {APPLY_LIMIT_S:.0f} s")
        if not self._has_come(before):
            raise ApplyFailed(self._failed(before) or "nebula was stopped meanwhile")

    @contextmanager
    def _device_kept(self, target: Loaded | None) -> Iterator[None]:
        """Keep the tunnel device, where it may stay, while the next process takes the place of the present one."""
        life = self._life
        loaded = life.record.loaded if life.record is not None else None
        device = None
        if target is not None and loaded is not None and loaded.addresses == target.addresses:
            device = reload.kept_device(loaded.config, target.config)
        if device is None or life.child is None or not life.child.keep_tunnel(kept=True):
            yield
            return
        try:
            yield
        finally:
            # Whoever has it now: most likely the next process, or still the one before, which does not end.
            if life.child is None or not life.child.keep_tunnel(kept=False):
                life.remove_tunnel(device)

    async def _prove(self, target: Loaded, *, settle: bool) -> None:
        life, attempt = self._life, self._life.machine.attempt
        if settle:
            with trio.move_on_after(SETTLE_S):
                await life.until(lambda: not self._is_still(attempt))
        if not self._is_still(attempt):
            raise ApplyFailed(self._why_gone())
        port = life.record.port if life.record is not None and life.record.port else target.port
        if not self._probed or not port:
            return
        host = ports.reachable(ports.listen_host(target.config))
        answered = False
        with trio.move_on_after(PROBE_LIMIT_S):
            while not answered:
                answered = await probe(port, host=host)
        if not self._is_still(attempt):
            raise ApplyFailed(self._why_gone())
        if not answered:
            raise ApplyFailed(f"nebula runs, but does not answer on UDP port {port}")

    def _is_still(self, attempt: int) -> bool:
        return self._life.machine.attempt == attempt and self._life.stands(State.RUNNING)

    def _has_come(self, before: int) -> bool:
        return self._life.machine.attempt > before and self._life.stands(State.RUNNING)

    def _failed(self, before: int) -> str | None:
        failure = self._life.machine.failure
        return failure.reason if failure is not None and failure.attempt > before else None

    def _why_gone(self) -> str:
        failure = self._life.machine.failure
        return failure.reason if failure is not None else "nebula was stopped meanwhile"


def _read(wanted: Wanted, config_path: Path) -> Loaded:
    host = identity.host(wanted.config)
    if wanted.fingerprint is not None and host.fingerprint != wanted.fingerprint:
        raise ApplyFailed("the certificate on disk is not the one that belongs to this configuration")
    return Loaded(
        config=_plain(wanted.config),
        config_digest=wanted.config_digest,
        port=wanted.port,
        fingerprint=host.fingerprint,
        authorities=identity.authorities(wanted.config),
        stamp=identity.stamp(config_path, wanted.config),
        addresses=host.addresses,
        subnets=host.subnets,
    )


def _plain(config: Mapping[str, object]) -> dict[str, object]:
    """Return a configuration as it will be read back from the record: else a tuple or a date would differ after an adoption."""
    try:
        return msgspec.json.decode(msgspec.json.encode(config), type=dict[str, object])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ApplyFailed(f"the configuration holds something that nebula has no use for: {error}") from None


def _differ(old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> bool | None:
    return None if old is None or new is None else old != new
