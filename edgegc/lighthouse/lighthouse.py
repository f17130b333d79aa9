"""One lighthouse of the box: brings its files and its nebula process to what is wanted, and says how it is.

Level-triggered: whatever happens only marks it dirty, and then everything is compared again. Knows no other
lighthouse, no database and no API.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import trio

from edgegc.lighthouse import render
from edgegc.lighthouse.account import first_closed
from edgegc.lighthouse.orphans import RECORD
from edgegc.model.lighthouse import LighthouseStatus
from edgegc.nebula.process import ApplyFailed, NebulaUnusable, Process, ProcessStatus, State, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.clock import Clock
    from edgegc.lighthouse.account import Choice
    from edgegc.model.lighthouse import LighthouseSpec
    from edgegc.nebula.process import Disk, Nebula, Spawner

RETRY_S = (10.0, 600.0)
"""First and longest delay, doubling, before the same content that failed is applied again."""

CANNOT_READ = "no config files found"
"""What nebula says of a file that its user may not see."""

TAIL_LINES = 20
"""Of nebula's log, in the status."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all lighthouses of a box share. ``random`` returns a float in [0, 1); ``publish`` must not block.

    ``turn`` bounds how many apply at the same time.
    """

    data_dir: Path
    account: Choice
    spawner: Spawner
    nebula: Nebula
    clock: Clock
    random: Callable[[], float]
    disk: Disk
    publish: Callable[[LighthouseStatus], None]
    watch: Callable[[Path], None]
    turn: trio.CapacityLimiter


class Lighthouse:
    """One lighthouse. Tell it what is wanted with the methods; :meth:`run` does it."""

    def __init__(self, spec: LighthouseSpec, surroundings: Surroundings) -> None:
        self.spec = spec
        self._around = surroundings
        self._process: Process | None = None
        self._dirty = trio.Event()
        self._held = False
        self._restart = False
        self._ending = False
        # Why what is wanted does not run; problems of overrides don't hinder it.
        self._error: str | None = None
        self._problems: tuple[str, ...] = ()
        # The content (its digest) that was last given to the process, and the one that failed and waits for its retry.
        self._given: str | None = None
        self._failed: str | None = None
        self._failures = 0
        self._retry_at = math.inf
        self._generation: int | None = None
        # What nebula -test said of a content: None is yes. Asked again at every retry.
        self._verdicts: dict[str, str | None] = {}
        self._usage = _NO_USAGE
        self._measured: psutil.Process | None = None

    # What the supervisor calls

    def want(self, spec: LighthouseSpec) -> None:
        """Take a newer specification."""
        if spec != self.spec:
            self.spec = spec
            self.look()

    def look(self) -> None:
        """Compare again: something may have changed."""
        self._dirty.set()

    def restart(self) -> None:
        """Replace its process, or start it if it was held."""
        self._held = False
        self._restart = True
        self.look()

    def hold(self) -> None:
        """End its process until it is restarted, or the daemon is."""
        self._held = True
        self.look()

    def end(self) -> None:
        """End its process and remove its files; :meth:`run` then returns."""
        self._ending = True
        self.look()

    async def stop(self) -> None:
        """End its process and wait for that, because the daemon ends."""
        self._held = True
        if self._process is not None:
            await self._process.stop()

    @property
    def complaint(self) -> str | None:
        """Return what is wrong with it, for people, or None."""
        status = self._process.status if self._process is not None else None
        if self._held:
            return None
        if self._error is not None:
            return self._error
        if status is not None and status.last_error is not None and status.state is not State.RUNNING:
            return status.last_error
        return "; ".join(self._problems) or None

    # Its task

    async def run(self) -> None:
        """Keep it as it is wanted, until :meth:`end`. Cancelling leaves its nebula running."""
        around, cluster_id = self._around, self.spec.cluster_id
        directory = await around.disk(
            partial(render.prepare, around.data_dir, cluster_id, gid=around.account.gid)
        )
        for each in (directory, directory / render.OVERRIDES):
            try:
                around.watch(each)
            except OSError as error:
                # The slow tick looks at them too.
                _log.warning(
                    "can't watch a lighthouse's files: %s", error.strerror, extra={"path": str(each)}
                )
        process = self._process = Process(
            executable=Path("nebula"),  # until it is found, which only starting one needs
            config_path=directory / "config.yml",
            record_path=directory / RECORD,
            log_path=directory / "nebula.log",
            user=around.account.user,
            spawner=around.spawner,
            clock=around.clock,
            random=around.random,
            on_change=self._changed,
            log_fields={"cluster_id": cluster_id},
            disk=around.disk,
        )
        self._given = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(process.run)
                while not self._ending:
                    self._dirty = trio.Event()
                    await self._converge(process, directory)
                    self.publish()
                    with trio.move_on_at(self._retry_at):
                        await self._dirty.wait()
                await process.stop()
                nursery.cancel_scope.cancel()
        finally:
            self._process = None
        await around.disk(partial(render.remove, around.data_dir, cluster_id))

    async def _converge(self, process: Process, directory: Path) -> None:
        """Bring what is to what is wanted. Failures are remembered and shown, and tried again later; never raised."""
        if self._held:
            await process.stop()
            self._fine()
            return
        restart, self._restart = self._restart, False
        if restart or trio.current_time() >= self._retry_at:
            self._failed = None
            self._verdicts.clear()
        digest = ""
        try:
            process.executable, _ = await self._around.nebula.find()
            self._note_generation()
            overrides = await self._around.disk(partial(render.read_overrides, directory))
            self._problems = overrides.problems
            digest = render.render(self.spec, directory, overrides.fragments).digest
            if self._failed == digest and not self._runs(process, digest):
                return
            async with self._around.turn:
                chosen = await self._choose(process, directory, overrides)
                await self._apply(process, directory, chosen, restart)
            if chosen.fragments == overrides.fragments:
                await self._around.disk(partial(render.keep_good, directory, overrides.fragments))
        except NebulaUnusable as error:
            # Most likely it is about to be installed: looked for often, which is cheap; and then started at once,
            # however many starts without it have failed.
            self._given = None
            self._fail(None, error.message)
        except ApplyFailed as error:
            self._fail(digest, error.message)
        except OSError as error:
            self._fail(digest, f"the lighthouse's files can't be written: {error.strerror or error}")
        else:
            self._fine()

    def _note_generation(self) -> None:
        """Let another nebula try at once what the one before it failed at; its delays were for that one."""
        generation = self._around.nebula.generation
        if self._generation not in (None, generation):
            self._given = self._failed = None
            self._verdicts.clear()
        self._generation = generation

    async def _choose(self, process: Process, directory: Path, overrides: render.Overrides) -> _Chosen:
        """Return the first of these that nebula accepts: the overrides as they are, as they were last good, none.

        Raises :class:`ApplyFailed` with what it says of the specification alone.
        """
        running = process.status.config_digest
        good = await self._around.disk(partial(render.last_good, directory))
        verdict: str | None = None
        for fragments in (overrides.fragments, good, ()):
            rendered = render.render(self.spec, directory, fragments)
            if rendered.digest != running and rendered.digest not in self._verdicts:
                self._verdicts[rendered.digest] = await self._test(fragments)
            verdict = self._verdicts.get(rendered.digest)
            if verdict is None:
                return _Chosen(rendered, fragments)
            if fragments and not self._problems:
                self._problems = (*self._problems, f"the overrides are not used: {verdict}")
        raise ApplyFailed(verdict or "nebula -test refuses the configuration")

    async def _test(self, fragments: tuple[render.Fragment, ...]) -> str | None:
        """Let nebula judge a twin of the files. Returns None, or the sentence with which it refuses."""
        around = self._around
        try:
            candidate = await around.disk(
                partial(render.write_candidate, around.data_dir, self.spec, fragments, gid=around.account.gid)
            )
            await around.nebula.test(candidate, user=around.account.user)
        except NebulaUnusable:
            raise
        except ApplyFailed as error:
            if CANNOT_READ in error.message:
                await self._say_if_closed()
            return error.message
        finally:
            with trio.CancelScope(shield=True):
                await around.disk(partial(render.discard_candidate, around.data_dir, self.spec.cluster_id))
        return None

    async def _say_if_closed(self) -> None:
        """Raise what is really wrong where the lighthouses' user can't come to the files at all."""
        user, data_dir = self._around.account.user, self._around.data_dir
        closed = await self._around.disk(partial(first_closed, data_dir, user))
        if closed is not None:
            raise NebulaUnusable(
                f"the user {user!r}, as which lighthouses run, can't pass through {closed}: "
                f"chmod o+x {closed}, or keep the data directory elsewhere (/var/lib/edgegc)"
            )

    async def _apply(self, process: Process, directory: Path, chosen: _Chosen, restart: bool) -> None:
        rendered, spec = chosen.rendered, self.spec
        changed = await self._around.disk(
            partial(render.write, directory, rendered.files, gid=self._around.account.gid)
        )
        status = process.status
        given = self._given == rendered.digest
        if not restart and given and self._runs(process, rendered.digest):
            return
        if not restart and given and status.state not in (State.RUNNING, State.STOPPED):
            return  # It crashed, or does not start: the machine's delays hold, a tick must not shorten them.
        self._given = rendered.digest
        applied = await process.apply(
            Wanted(
                config=rendered.config,
                config_digest=rendered.digest,
                port=spec.port,
                fingerprint=spec.fingerprint,
                probe=rendered.probe,
            )
        )
        _log.info(
            "lighthouse applied (%s)",
            applied.action,
            extra={
                "cluster_id": spec.cluster_id,
                "version": spec.version,
                "pid": applied.pid,
                "reason": "; ".join(applied.reasons) or ", ".join(changed),
            },
        )
        if restart and applied.action not in ("restart", "start"):
            await process.restart()

    def _runs(self, process: Process, digest: str) -> bool:
        status = process.status
        return status.state is State.RUNNING and status.config_digest == digest

    def _fail(self, digest: str | None, sentence: str) -> None:
        first, longest = RETRY_S
        delay_s = first if digest is None else min(first * 2**self._failures, longest)
        self._failures += digest is not None
        self._failed = digest
        self._retry_at = trio.current_time() + delay_s
        if sentence != self._error:
            _log.error(
                "lighthouse is not as wanted: %s", sentence, extra={"cluster_id": self.spec.cluster_id}
            )
        self._error = sentence

    def _fine(self) -> None:
        self._error = self._failed = None
        self._failures = 0
        # Refused overrides may become right without changing: a file that they name comes into being, say.
        self._verdicts = {digest: said for digest, said in self._verdicts.items() if said is not None}
        self._retry_at = trio.current_time() + RETRY_S[1] if self._verdicts else math.inf

    # What is shown

    def measure(self) -> None:
        """Take the process's memory, CPU and file descriptors, and publish. CPU is that since the last time."""
        if self._process is not None:
            self._measure(self._process.status.pid)
            self.publish()

    def _measure(self, pid: int | None) -> None:
        self._usage = _NO_USAGE
        if pid is None:
            self._measured = None
            return
        try:
            if self._measured is None or self._measured.pid != pid:
                self._measured = psutil.Process(pid)
                self._measured.cpu_percent()  # the first is always 0: it only begins the interval
                cpu_percent = None
            else:
                cpu_percent = self._measured.cpu_percent()
            with self._measured.oneshot():
                self._usage = _Usage(self._measured.memory_info().rss, cpu_percent, self._measured.num_fds())
        except psutil.Error:
            self._measured = None

    def publish(self) -> None:
        """Say how it is."""
        process = self._process
        if process is None:
            return
        status = process.status
        uptime_s = None
        if status.state is State.RUNNING and status.started_at is not None:
            uptime_s = float(max(0, self._around.clock.now() - status.started_at))
        if status.state is State.RUNNING and (self._measured is None or self._measured.pid != status.pid):
            self._measure(status.pid)
        usage = self._usage if status.pid is not None else _NO_USAGE
        self._around.publish(
            LighthouseStatus(
                cluster_id=self.spec.cluster_id,
                name=self.spec.cluster_name,
                state=status.state.value,
                pid=status.pid,
                overlay_ip=self.spec.overlay_ip,
                port=self.spec.port,
                version_running=render.version_of(status.config_digest),
                version_desired=self.spec.version,
                restarts=status.restarts,
                uptime_s=uptime_s,
                rss_bytes=usage.rss_bytes,
                cpu_percent=usage.cpu_percent,
                fds=usage.fds,
                last_error=self.complaint or status.last_error,
                log_tail=process.tail(TAIL_LINES),
            )
        )

    def _changed(self, status: ProcessStatus) -> None:
        # It came back by itself, with what had failed, or with something that nobody knows.
        if status.state is State.RUNNING and (self._error is not None or status.config_digest is None):
            self.look()
        self.publish()


class _Chosen(NamedTuple):
    rendered: render.Rendered
    fragments: tuple[render.Fragment, ...]


class _Usage(NamedTuple):
    rss_bytes: int | None
    cpu_percent: float | None
    fds: int | None


_NO_USAGE = _Usage(None, None, None)
