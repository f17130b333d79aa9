"""One cluster of an agent: wires its poller, applier, reporter and nebula together. Decides nothing itself."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from edgegc.agent import settings, status
from edgegc.agent.apply import Applier
from edgegc.agent.poll import Poller
from edgegc.agent.reach import Reach
from edgegc.agent.report import Condition, Reporter
from edgegc.agent.servers import Servers
from edgegc.agent.state import Memory
from edgegc.agent.versions import Versions
from edgegc.model.message import rfc3339
from edgegc.nebula.process import (
    InstalledNebula,
    NebulaUnusable,
    Process,
    ProcessStatus,
    in_thread,
    test_config,
    version_text,
)
from edgegc.nebula.states import State as ProcessState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgegc.agent.settings import Cluster
    from edgegc.agent.versions import Version
    from edgegc.clock import Clock
    from edgegc.model.manifest import Server
    from edgegc.model.node import ReportedState
    from edgegc.nebula.process import Spawner
    from edgegc.nebula.process import Version as NebulaVersion

LOOK_EVERY_S: Final = 15.0
"""How often nebula is looked for, and at, and the machine's own certificate: whoever installs, mends or replaces one of
them should not have to do anything else. A look costs a few ``stat``."""

_log = logging.getLogger(__name__)


class Membership:
    """This machine as a node of one cluster. Constructing it does nothing; :meth:`run` does everything."""

    def __init__(
        self,
        directory: Path,
        cluster: Cluster,
        *,
        clock: Clock,
        random: Callable[[], float],
        spawner: Spawner,
    ) -> None:
        self.cluster = cluster
        """As in ``agent.toml``, changes of our own included."""
        self.crash: str | None = None
        """Why :meth:`run` ended last time; set by whoever runs it again."""
        self._directory = directory
        self._clock = clock
        self._random = random
        self._spawner = spawner
        self._changed = trio.Event()
        self._missing: str | None = None
        self._nebula = InstalledNebula(cluster.nebula)
        self._installed: NebulaVersion | None = None
        home = directory / cluster.id
        self._versions = Versions(home)
        self._memory = Memory(home / status.STATE_NAME)
        self._servers = Servers(cluster, on_good=self._server_is_good)
        self._reach = Reach(on_answer=self._lighthouse_answers)
        self._reporter = Reporter(
            servers=self._servers, look=self.condition, reached=lambda: self._reach.reached
        )
        self._poller = Poller(
            cluster=cluster,
            servers=self._servers,
            versions=self._versions,
            memory=self._memory,
            reporter=self._reporter,
            clock=clock,
            random=random,
            on_version=self._version_is_here,
            on_change=self._change,
            settled=self._settled,
        )
        # These two need a nebula, which may have to be installed first.
        self._process: Process | None = None
        self._applier: Applier | None = None

    async def run(self) -> None:
        """Keep the machine a node, for ever. Cancelling it leaves nebula running, for the next run to adopt.

        Raises Invalid where what is remembered is damaged.
        """
        await in_thread(partial(settings.make_directory, self._versions.directory))
        await self._memory.recall()
        self._servers.prefer(self._memory.state.server)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._poller.run)
                nursery.start_soon(self._reporter.run)
                nursery.start_soon(self._reach.run)
                executable = await self._find_nebula()
                self._process = self._make_process(executable)
                await nursery.start(self._process.run)
                self._applier = self._make_applier(self._process)
                nursery.start_soon(self._look_around, self._process, self._applier)
                await self._applier.run()
        finally:
            self._servers.close()
            self._process = self._applier = None

    async def stop_nebula(self) -> None:
        """End the nebula of this cluster, bounded; only while :meth:`run` runs."""
        if self._process is not None:
            await self._process.stop()

    def _make_process(self, executable: Path) -> Process:
        home = self._versions.directory
        return Process(
            executable=executable,
            config_path=self._versions.config_path,
            record_path=home / status.RECORD_NAME,
            log_path=home / status.LOG_NAME,
            user=None,
            spawner=self._spawner,
            clock=self._clock,
            random=self._random,
            on_change=self._process_changed,
            log_fields={"cluster_id": self.cluster.id, "node_id": self.cluster.node_id},
        )

    def _make_applier(self, process: Process) -> Applier:
        async def test(path: Path) -> None:
            await test_config(await self._renew(process), path, user=None)

        return Applier(
            cluster=self.cluster,
            versions=self._versions,
            memory=self._memory,
            nebula=process,
            reach=self._reach,
            clock=self._clock,
            random=self._random,
            test=test,
            adopt=self._adopt,
            on_change=self._change,
        )

    # What is shown and reported

    def condition(self) -> Condition:
        """Return what the control plane should know of this node now."""
        state = self._memory.state
        failed = state.failure if state.failure is not None and state.failure.version == state.tried else None
        state_said: ReportedState = "failed"
        # What keeps us from hearing of anything newer comes first: what failed may long be mended, or be nobody's wish.
        error = self._poller.trouble or (failed.reason if failed is not None else self._trouble())
        if error is None:
            if state.trial is not None or state.applied is None or state.applied != state.tried:
                state_said = "applying"
            elif (error := self._process_trouble()) is None:
                state_said = "ok"
        version = self._nebula_version()
        return Condition(
            applied=state.applied,
            state=state_said,
            error=error,
            nebula_version=version_text(version) if version else None,
        )

    def view(self) -> status.ClusterStatus:
        """Return what ``edgegc agent status`` shows."""
        condition = self.condition()
        process = self._process.status if self._process is not None else None
        version = self._nebula_version()
        contact = self._poller.last_contact_at
        desired = self._poller.desired
        return status.ClusterStatus(
            cluster_id=self.cluster.id,
            name=self.cluster.name,
            applied_version=condition.applied,
            desired_version=self._memory.state.highest or None if desired is None else desired,
            state=condition.state,
            error=condition.error,
            nebula=status.NebulaStatus(
                pid=process.pid if process else None,
                state=process.state.value if process else ProcessState.STOPPED.value,
                version=version_text(version) if version else None,
            ),
            last_contact_at=rfc3339(contact) if contact is not None else None,
            certificate_not_after=status.certificate_not_after(self._versions, condition.applied),
        )

    def _trouble(self) -> str | None:
        """Return what keeps the node from becoming what the control plane wants."""
        return self.crash or self._missing or (self._applier.trouble if self._applier is not None else None)

    def _process_trouble(self) -> str | None:
        known = self._process.status if self._process is not None else None
        if known is None or known.state not in (ProcessState.BACKOFF, ProcessState.FATAL):
            return None
        return known.last_error or f"nebula is in state {known.state.value}"

    def _nebula_version(self) -> NebulaVersion | None:
        running = self._process.status.nebula_version if self._process is not None else None
        return running or self._installed

    # How the parts hear of each other

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        self._reporter.changed()

    def _process_changed(self, known: ProcessStatus) -> None:
        self._change()

    def _version_is_here(self) -> None:
        if self._applier is not None:
            self._applier.wake()
        self._change()

    def _lighthouse_answers(self) -> None:
        if self._applier is not None:
            self._applier.lighthouse_answers()

    async def _settled(self) -> None:
        """Wait until the newest version is applied, or has failed."""
        while True:
            changed, state = self._changed, self._memory.state
            failed = state.failure is not None and state.failure.version == state.tried
            if state.trial is None and (failed or state.applied == state.tried):
                return
            await changed.wait()

    async def _find_nebula(self) -> Path:
        """Return the executable, waiting for somebody to install it if need be."""
        while True:
            try:
                executable, self._installed = await self._nebula.find()
            except NebulaUnusable as error:
                if self._missing is None:
                    _log.error("%s", error.message, extra={"cluster_id": self.cluster.id})
                self._missing = error.message
                self._change()
                await trio.sleep(LOOK_EVERY_S)
            else:
                self._missing = None
                self._change()
                return executable

    async def _renew(self, process: Process) -> Path:
        """Return the executable as it is now, with which ``process`` starts from now on. Raises NebulaUnusable."""
        process.executable, self._installed = await self._nebula.find()
        return process.executable

    async def _look_around(self, process: Process, applier: Applier) -> None:
        """Tell the applier when somebody has replaced something that does not come with a version."""
        before: object = None
        while True:
            try:
                nebula: Path | None = await self._renew(process)
            except NebulaUnusable:
                nebula = None
            now = (nebula, self._nebula.generation, self._versions.own_files())
            if before not in (None, now):
                applier.replaced()
            before = now
            await trio.sleep(LOOK_EVERY_S)

    # Changes of agent.toml that are ours to make

    async def _adopt(self, version: Version) -> None:
        """Take over the servers and signers of a proven version."""
        manifest, good = version.manifest, self._servers.good
        await self._edit(
            lambda own: settings.adopt(own, servers=manifest.servers, signers=manifest.signers, good=good)
        )

    async def _server_is_good(self, server: Server) -> None:
        if self.cluster.fallback is not None and server in self.cluster.servers:
            await self._edit(lambda own: settings.without_fallback(own, server))
        if self._servers.several and self._memory.state.server != server.url:
            try:
                await self._memory.change(server=server.url)
            except OSError as error:
                # An answer is an answer: only the next start asks in the wrong order.
                _log.warning("can't write down which server answers: %s", error)

    async def _edit(self, change: Callable[[Cluster], Cluster]) -> None:
        if change(self.cluster) == self.cluster:
            return

        def edit(all_: settings.Settings) -> settings.Settings:
            own = all_.cluster(self.cluster.id)
            return all_ if own is None else all_.with_cluster(change(own))

        after = await in_thread(partial(settings.edit, self._directory, edit))
        own = after.cluster(self.cluster.id)
        if own is None:
            return  # removed meanwhile: whoever watches the file will end us
        self.cluster = own
        self._servers.use(own)
        self._poller.cluster = own
