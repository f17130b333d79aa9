"""How long the store's log takes to be written back, how often that happens by itself, and who waits for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

from edgegc.perf import store
from edgegc.perf.histogram import Histogram
from edgegc.perf.result import Figure
from edgegc.perf.store_plan import Done
from edgegc.perf.store_tally import NS_PER_S, Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.perf.store import Ready
    from edgegc.perf.store_plan import Checkpoints, OwnCheckpoints
    from edgegc.perf.store_rig import Rig

BESIDE_S: Final = 0.02
"""For how long the neighbours of a checkpoint run before it and after it."""
FILLED_BY: Final = "node_insert"
"""Which writes make a log long: those that write most."""


class _Beside:
    """One writer and one reader who ask without a pause, and what became of each operation: when, and how long."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._stop = False
        self.took: dict[str, list[tuple[int, int]]] = {"write": [], "read": []}
        """When each began and ended."""

    async def _ask(self, kind: str, operation: Callable[[Rig, int], Ready]) -> None:
        while not self._stop:
            ready = operation(self._rig, 1)
            began = time.monotonic_ns()
            await ready()
            self.took[kind].append((began, time.monotonic_ns()))

    def start(self, nursery: trio.Nursery) -> None:
        """Begin."""
        nursery.start_soon(self._ask, "write", store.OPERATIONS["one_row"])
        nursery.start_soon(self._ask, "read", store.OPERATIONS["node_by_id"])

    def stop(self) -> None:
        """End after what is being asked."""
        self._stop = True

    def within(self, kind: str, begin_ns: int, end_ns: int) -> tuple[list[int], list[int]]:
        """Return how long operations took: those that were under way in that time, and the others."""
        during: list[int] = []
        apart: list[int] = []
        for began, ended in self.took[kind]:
            (during if began < end_ns and ended > begin_ns else apart).append(ended - began)
        return during, apart


async def forced(rig: Rig, work: Checkpoints) -> Done:
    """Make the log as long as is wanted and have it written back, while one writes and one reads, again and again."""
    database = rig.database
    tally = Tally()
    waits: dict[str, list[int]] = {"write": [], "read": []}
    usual: dict[str, Histogram] = {"write": Histogram(), "read": Histogram()}
    writes = pages = incomplete = 0
    marks = []
    await database.checkpoint()
    for _ in range(work.repeat):
        while database.stats().wal_bytes < work.wal_bytes:
            await store.OPERATIONS[FILLED_BY](rig, 1)()
            writes += 1
        beside = _Beside(rig)
        async with trio.open_nursery() as nursery:
            beside.start(nursery)
            await trio.sleep(BESIDE_S)
            began = time.monotonic_ns()
            done = await database.checkpoint()
            ended = time.monotonic_ns()
            await trio.sleep(BESIDE_S)
            beside.stop()
        # By the writer's own clock: not how long it waited for its turn.
        tally.add("checkpoint", int(done.duration_s * NS_PER_S))
        marks.append(((began - tally.began_ns) / NS_PER_S, "checkpoint"))
        pages += done.pages
        incomplete += not done.complete
        for kind, seen in waits.items():
            during, apart = beside.within(kind, began, ended)
            seen += during
            for took in apart:
                usual[kind].record(took)
    figures = {
        "pages": Figure(value=pages / work.repeat, unit="count", better="neither"),
        "writes_per_checkpoint": Figure(
            value=writes / work.repeat, unit="count", better="higher", note="nodes made, one write each"
        ),
        "incomplete": Figure(value=incomplete, unit="count", note="kept from ending by somebody who read"),
    }
    for kind in waits:
        figures |= _waited(kind, waits[kind], usual[kind])
    return Done(load=tally.load(), figures=figures, marks=tuple(marks))


def _waited(kind: str, waits: list[int], usual: Histogram) -> dict[str, Figure]:
    figures = {}
    if waits:
        figures[f"longest_{kind}_beside"] = Figure(
            value=max(waits) / NS_PER_S, unit="s", note="under way while a checkpoint was"
        )
    if usual.count:
        figures[f"usual_{kind}_p99"] = Figure(
            value=usual.value_at(99) / NS_PER_S, unit="s", note="the same when there was none"
        )
    return figures


async def own(rig: Rig, work: OwnCheckpoints) -> Done:
    """Write until the log has passed its limit often enough. Who was answered after a checkpoint began has met it."""
    database = rig.database
    await store.OPERATIONS[FILLED_BY](rig, 1)()
    begun = seen = database.stats().checkpoints
    written = database.stats().writes
    tally = Tally()
    met, usual = Histogram(), Histogram()
    marks = []
    until = time.monotonic() + work.at_most_s

    async def client() -> None:
        nonlocal seen
        while seen - begun < work.wanted and time.monotonic() < until:
            ready = store.OPERATIONS[FILLED_BY](rig, 1)
            before = database.stats().checkpoints
            began = time.monotonic_ns()
            await ready()
            tally.note("write", began)
            took = time.monotonic_ns() - began
            after = database.stats().checkpoints
            (met if after > before else usual).record(took)
            if after > seen:
                seen = after
                marks.append(((time.monotonic_ns() - tally.began_ns) / NS_PER_S, "checkpoint"))

    async with trio.open_nursery() as nursery:
        for _ in range(work.clients):
            nursery.start_soon(client)
    load = tally.load()
    made = database.stats().checkpoints - begun
    writes = database.stats().writes - written
    figures = {
        "checkpoints": Figure(value=made, unit="count", better="neither"),
        "writes_that_met_one": Figure(value=met.count, unit="count"),
    }
    if made:
        figures["writes_per_checkpoint"] = Figure(value=writes / made, unit="count", better="higher")
        figures["seconds_between"] = Figure(value=load.duration_s / made, unit="s", better="higher")
    if met.count:
        figures["longest_write_met"] = Figure(value=met.max_ns / NS_PER_S, unit="s")
    if usual.count:
        figures["usual_write_p99"] = Figure(value=usual.value_at(99) / NS_PER_S, unit="s")
        figures["longest_usual_write"] = Figure(value=usual.max_ns / NS_PER_S, unit="s")
    return Done(load=load, figures=figures, marks=tuple(marks))
