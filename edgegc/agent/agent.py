"""The agent: every cluster of ``agent.toml`` under one nursery, each with a failure of its own. Knows no versions.

The only owner of tasks on the node's side. SIGTERM, a crash, and kill -9 leave every nebula running, to be adopted
by the next start; SIGINT, which is a person at a terminal, ends them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import random as random_module
import signal
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from edgegc import systemd
from edgegc.agent import ping, settings, status
from edgegc.agent.membership import Membership
from edgegc.clock import SystemClock
from edgegc.errors import Conflict, Error
from edgegc.nebula import orphans
from edgegc.nebula.process import SystemSpawner, in_thread
from edgegc.watch import open_watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgegc.agent.settings import Cluster
    from edgegc.clock import Clock
    from edgegc.nebula.process import Spawner

LOCK_NAME: Final = "agent.lock"
FIRST_BACKOFF_S: Final = 1.0
LONGEST_BACKOFF_S: Final = 300.0
"""A cluster whose task crashes is started again: a bug in it must not take the other clusters along."""
STOP_LIMIT_S: Final = 20.0
"""For ending all nebulas at SIGINT: SIGTERM, SIGKILL and some room."""

SETTLED_AFTER_S: Final = 15.0
"""When everything has been started, and worker threads have ended (Trio keeps them for 10 s)."""

_log = logging.getLogger(__name__)


class Agent:
    """All clusters of one directory. Constructing it does nothing."""

    def __init__(
        self, directory: Path, *, clock: Clock, random: Callable[[], float], spawner: Spawner
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._random = random
        self._spawner = spawner
        self._running: dict[str, tuple[Membership, trio.CancelScope, trio.Event]] = {}

    def view(self) -> status.AgentStatus:
        """Return what ``edgegc agent status`` shows."""
        return status.AgentStatus(
            clusters=tuple(membership.view() for membership, _, _ in self._running.values())
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run every cluster of ``agent.toml``, and follow its changes, until cancelled."""
        with open_watcher(self._directory) as watcher:
            async with trio.open_nursery() as nursery:
                wanted = await in_thread(partial(settings.load, self._directory))
                await nursery.start(status.serve, self._directory, self.view)
                nursery.start_soon(self._end_unwanted, wanted)
                await self._follow(wanted, nursery)
                task_status.started()
                while True:
                    await watcher.changed()
                    try:
                        changed = await in_thread(partial(settings.load, self._directory))
                    except Error as error:
                        # What runs is right, what was written is not: go on, and say so.
                        _log.error("%s: the clusters run on as they were", error.message)
                        continue
                    await self._follow(changed, nursery)

    async def _end_unwanted(self, wanted: settings.Settings) -> None:
        """End what runs for clusters that were removed while no agent ran."""
        records = self._directory.glob(f"*/{status.RECORD_NAME}")
        unwanted = [path for path in records if wanted.cluster(path.parent.name) is None]
        for stopped in await orphans.stop_recorded(unwanted, spawner=self._spawner):
            _log.info(
                "the nebula of a removed cluster: %s",
                stopped.outcome,
                extra={"cluster_id": stopped.cluster_id, "pid": stopped.pid},
            )

    async def stop_all(self) -> None:
        """End every nebula, bounded."""
        with trio.move_on_after(STOP_LIMIT_S):
            async with trio.open_nursery() as nursery:
                for membership, _, _ in self._running.values():
                    nursery.start_soon(membership.stop_nebula)

    async def _follow(self, wanted: settings.Settings, nursery: trio.Nursery) -> None:
        """Start, restart and end clusters, until what runs is what is wanted."""
        for cluster_id, (membership, scope, ended) in list(self._running.items()):
            cluster = wanted.cluster(cluster_id)
            if cluster == membership.cluster:
                continue
            if cluster is None:
                _log.info("the cluster was removed: its nebula ends", extra={"cluster_id": cluster_id})
                with trio.move_on_after(STOP_LIMIT_S):
                    await membership.stop_nebula()
            scope.cancel()
            await ended.wait()
            del self._running[cluster_id]
        for cluster in wanted.clusters:
            if cluster.id not in self._running:
                self._start(cluster, nursery)

    def _start(self, cluster: Cluster, nursery: trio.Nursery) -> None:
        membership = Membership(
            self._directory, cluster, clock=self._clock, random=self._random, spawner=self._spawner
        )
        scope, ended = trio.CancelScope(), trio.Event()
        self._running[cluster.id] = (membership, scope, ended)
        nursery.start_soon(self._keep, membership, scope, ended)

    async def _keep(self, membership: Membership, scope: trio.CancelScope, ended: trio.Event) -> None:
        """Run a cluster, and run it again when it crashes."""
        fields = {"cluster_id": membership.cluster.id, "node_id": membership.cluster.node_id}
        backoff_s = FIRST_BACKOFF_S
        try:
            with scope:
                while True:
                    started = trio.current_time()
                    try:
                        membership.crash = None
                        await membership.run()
                    except Exception as error:
                        membership.crash = _sentence(error)
                        _log.exception("the cluster's task crashed; it is started again", extra=fields)
                    if trio.current_time() - started > LONGEST_BACKOFF_S:
                        backoff_s = FIRST_BACKOFF_S
                    await trio.sleep(backoff_s * (0.5 + 0.5 * self._random()))
                    backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
        finally:
            ended.set()


async def run(
    directory: Path,
    *,
    clock: Clock | None = None,
    random: Callable[[], float] = random_module.random,
    spawner: Spawner | None = None,
) -> None:
    """Run the agent of a directory until SIGTERM (its nebulas run on) or SIGINT (they end).

    Raises Conflict where an agent runs for this directory already, Invalid where ``agent.toml`` is wrong.
    """
    await in_thread(partial(settings.make_directory, directory))
    lock = lock_directory(directory)
    try:
        agent = Agent(
            directory, clock=clock or SystemClock(), random=random, spawner=spawner or SystemSpawner()
        )
        # Before anything starts: a SIGTERM during the start must not be lost, nor end us with half of it done.
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                await nursery.start(agent.run)
                nursery.start_soon(systemd.watchdog)
                nursery.start_soon(_give_memory_back)
                systemd.notify("READY=1")
                _log.info("the agent runs", extra={"pid": os.getpid()})
                if (why_not := ping.may_ping()) is not None:
                    _log.warning(
                        "pings can't be sent, so no version is asked to reach a lighthouse: give the agent CAP_NET_RAW",
                        extra={"reason": why_not},
                    )
                async for number in signals:
                    systemd.notify("STOPPING=1")
                    if number == signal.SIGINT:
                        await agent.stop_all()
                    break
                nursery.cancel_scope.cancel()
    finally:
        os.close(lock)


def lock_directory(directory: Path) -> int:
    """Take the directory for this process, and return the lock's file descriptor; Conflict where another has it."""
    descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"an agent runs for {directory} already: edgegc agent status shows it") from None
    return descriptor


async def _give_memory_back() -> None:
    """Return to the system what the C library keeps after imports and the first parsing: a megabyte of forty."""
    await trio.sleep(SETTLED_AFTER_S)
    with contextlib.suppress(OSError, AttributeError):  # not every C library can
        ctypes.CDLL(None).malloc_trim(0)


def _sentence(error: BaseException) -> str:
    """Return what a person should hear of a crash: our own sentence where there is one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.message if isinstance(error, Error) else f"internal error: {type(error).__name__}"
