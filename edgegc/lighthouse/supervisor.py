"""Runs the box's own lighthouses: compares what is wanted with what there is, one task for each. Knows no HTTP.

Level-triggered: the bus, the file watcher and a slow tick only say *look*; then everything is compared. A lost
event costs at most one tick. Restarts of several lighthouses need no distance here: each belongs to another cluster, so
no two of them relay the same traffic (those of one cluster are on other machines and keep their restart_delay_s).
"""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING

import trio

from edgegc.control import lighthouses
from edgegc.errors import Error
from edgegc.lighthouse import account, orphans, render
from edgegc.lighthouse.lighthouse import Lighthouse, Surroundings
from edgegc.model.event import RestartRequested, StopRequested
from edgegc.nebula.process import InstalledNebula, SystemSpawner, in_thread
from edgegc.watch import open_watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.control.bus import Subscription
    from edgegc.control.control import Control
    from edgegc.model.lighthouse import LighthouseSpec, LighthouseStatus
    from edgegc.nebula.process import Disk, Nebula, Spawner
    from edgegc.watch import Watcher

CHECK = "lighthouses"
"""Our line on the health board."""

SETTLE_S = 0.2
SETTLE_LIMIT_S = 2.0
"""A burst of changes is one: wait until nothing has come for this long, but no longer than the limit."""

TICK_S = 30.0
"""Everything is compared at least this often, whatever events were lost."""

MEASURE_S = 5.0
"""Between looks at memory, CPU and file descriptors."""

APPLY_AT_ONCE = 4
"""Lighthouses that test and start at the same time: eight at boot on a small board would starve each other."""

CRASH_DELAY_S = (1.0, 60.0)
"""First and longest delay before the task of a lighthouse that crashed (a bug of ours) runs again, doubling."""

_log = logging.getLogger(__name__)


class Supervisor:
    """All lighthouses of this box. The keyword arguments are seams for tests."""

    def __init__(
        self,
        control: Control,
        *,
        spawner: Spawner | None = None,
        nebula: Nebula | None = None,
        random: Callable[[], float] = random.random,
        disk: Disk = in_thread,
    ) -> None:
        settings = control.settings
        self._control = control
        self._data_dir = settings.data.dir.absolute()
        self._spawner = spawner or SystemSpawner()
        self._nebula = nebula or InstalledNebula(settings.nebula.path)
        self._random = random
        self._disk = disk
        self._lighthouses: dict[str, Lighthouse] = {}
        self._crashes: dict[str, str] = {}
        self._look = trio.Event()
        self._swept = False
        self._nursery: trio.Nursery | None = None
        self._surroundings: Surroundings | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Supervise until cancelled, which leaves every nebula running. Reports started after the first comparison.

        A lighthouse that fails, or whose task crashes, concerns no other: it is shown on the board and on
        ``/health/ready``, and tried again.
        """
        control = self._control
        with open_watcher() as watcher, control.bus.subscribe() as events:
            self._surroundings = self._survey(watcher)
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await self._compare()
                    task_status.started()
                    nursery.start_soon(self._listen, events)
                    nursery.start_soon(self._watch_files, watcher)
                    nursery.start_soon(self._tick)
                    nursery.start_soon(self._measure)
                    while True:
                        await self._settled()
                        await self._compare()
                finally:
                    self._nursery = None

    async def stop_all(self) -> None:
        """End every lighthouse process, because the daemon ends and shall leave none. :meth:`run` must be running."""
        async with trio.open_nursery() as nursery:
            for each in self._lighthouses.values():
                nursery.start_soon(each.stop)

    def _survey(self, watcher: Watcher) -> Surroundings:
        control = self._control
        chosen = account.choose(control.settings.lighthouse.user)
        if chosen.warning is not None:
            _log.warning("%s", chosen.warning)
        return Surroundings(
            data_dir=self._data_dir,
            account=chosen,
            spawner=self._spawner,
            nebula=self._nebula,
            clock=control.clock,
            random=self._random,
            disk=self._disk,
            publish=self._publish,
            watch=watcher.add,
            turn=trio.CapacityLimiter(APPLY_AT_ONCE),
        )

    # What wakes

    async def _listen(self, events: Subscription) -> None:
        while True:
            for event in await events.wait():
                known = self._lighthouses.get(event.cluster_id)
                if isinstance(event, RestartRequested) and known is not None:
                    _log.info("lighthouse: restart requested", extra={"cluster_id": event.cluster_id})
                    known.restart()
                elif isinstance(event, StopRequested) and known is not None:
                    _log.info("lighthouse: stop requested", extra={"cluster_id": event.cluster_id})
                    known.hold()
            self._look.set()

    async def _watch_files(self, watcher: Watcher) -> None:
        while True:
            await watcher.changed()
            for each in self._lighthouses.values():
                each.look()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            for each in self._lighthouses.values():
                each.look()
            self._look.set()

    async def _measure(self) -> None:
        while True:
            for each in list(self._lighthouses.values()):
                each.measure()
            await trio.sleep(MEASURE_S)

    async def _settled(self) -> None:
        await self._look.wait()
        with trio.move_on_after(SETTLE_LIMIT_S):
            while self._look.is_set():
                self._look = trio.Event()
                with trio.move_on_after(SETTLE_S):
                    await self._look.wait()
        self._look = trio.Event()

    # Comparing

    async def _compare(self) -> None:
        try:
            specs = {spec.cluster_id: spec for spec in await lighthouses.desired(self._control)}
        except Error as error:
            # Not knowing what is wanted is no reason to change anything.
            _log.warning("what lighthouses are wanted can't be read: %s", error.message)
            return
        if not self._swept:
            self._swept = await self._sweep(set(specs))
        for cluster_id, known in self._lighthouses.items():
            if cluster_id not in specs:
                known.end()
        for cluster_id, spec in specs.items():
            known_or_none = self._lighthouses.get(cluster_id)
            if known_or_none is None:
                self._add(spec)
            else:
                known_or_none.want(spec)
        self._report()

    async def _sweep(self, wanted: set[str]) -> bool:
        """End what is recorded but not wanted: the cluster was deleted, or its lighthouse, while no daemon ran."""
        try:
            known = await self._disk(partial(orphans.recorded, self._data_dir))
            swept = True
            for cluster_id in sorted(set(known) - wanted):
                for ended in await orphans.stop_recorded(self._data_dir, cluster_id, spawner=self._spawner):
                    _log.info(
                        "a lighthouse is no longer wanted: %s",
                        ended.outcome,
                        extra={"cluster_id": cluster_id, "pid": ended.pid},
                    )
                    swept &= ended.outcome != "still running"
                if swept:
                    await self._disk(partial(render.remove, self._data_dir, cluster_id))
        except OSError as error:
            _log.warning("old lighthouses can't be removed: %s", error)
            return False
        return swept

    def _add(self, spec: LighthouseSpec) -> None:
        assert self._nursery is not None
        assert self._surroundings is not None
        each = self._lighthouses[spec.cluster_id] = Lighthouse(spec, self._surroundings)
        self._nursery.start_soon(self._keep, spec.cluster_id, each)

    async def _keep(self, cluster_id: str, each: Lighthouse) -> None:
        """Run one lighthouse until it is no longer wanted; a crash of its task concerns no other."""
        delay_s, longest_s = CRASH_DELAY_S
        while True:
            try:
                await each.run()
                break
            except Exception as error:
                # Its nebula runs on, and is adopted by the next try.
                _log.exception("the task of a lighthouse crashed", extra={"cluster_id": cluster_id})
                self._crashes[cluster_id] = f"its supervision crashed and is tried again: {error!r}"
                self._report()
            await trio.sleep(delay_s)
            delay_s = min(2 * delay_s, longest_s)
            self._crashes.pop(cluster_id, None)
        del self._lighthouses[cluster_id]
        self._control.lighthouses.remove(cluster_id)
        self._report()
        # It may have become wanted again meanwhile.
        self._look.set()

    # Showing

    def _publish(self, status: LighthouseStatus) -> None:
        self._control.lighthouses.publish(status)
        self._report()

    def _report(self) -> None:
        wrong = {
            each.spec.cluster_name: complaint
            for cluster_id, each in self._lighthouses.items()
            if (complaint := self._crashes.get(cluster_id) or each.complaint) is not None
        }
        if wrong:
            text = "; ".join(f"{name}: {complaint}" for name, complaint in sorted(wrong.items()))
            self._control.health.set(CHECK, text, level="degraded")
        else:
            self._control.health.set(CHECK)
