"""The store's process: has a database, and work done on it as it is told, one piece after another.

Knows no scenario. In one process with the store, as the daemon's handlers are: whoever asks here takes time of the
interpreter from whoever answers, as they do, and that is part of what is measured.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Unavailable
from edgegc.perf import (
    page_cache,
    process,
    store,
    store_checkpoints,
    store_content,
    store_growth,
    store_loads,
    store_rig,
)
from edgegc.perf.generator.wire import packed
from edgegc.perf.result import Figure
from edgegc.perf.store_plan import (
    Arrivals,
    Checkpoints,
    Clients,
    Done,
    Failed,
    Growth,
    OwnCheckpoints,
    PageCache,
    Prepare,
    Series,
    works,
)
from edgegc.perf.store_tally import Tally

if TYPE_CHECKING:
    from edgegc.perf.store_plan import Answer, Work
    from edgegc.perf.store_rig import Rig

STAYS_PERCENT: Final = 5.0
"""Of a file that was to be forgotten; with more of it in memory, reads are not cold."""


def main(directory: str) -> None:
    """Do the work that comes on the standard input, answer on the standard output; end with the input."""
    # Ctrl-C is for the suite.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever else prints must not get between the answers.
    said = os.dup(1)
    os.dup2(2, 1)
    trio.run(_serve, Path(directory), os.dup(0), said)


async def _serve(directory: Path, questions: int, said: int) -> None:
    async with (
        trio.lowlevel.FdStream(questions) as source,
        trio.lowlevel.FdStream(said) as outgoing,
        Child(directory) as child,
    ):
        incoming = works(source)
        while (work := await incoming.next()) is not None:
            await outgoing.send_all(packed(await child.answer(work)))


class Child:
    """The database of the present scenario, and what can be done with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rig: Rig | None = None
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._open.aclose()

    async def answer(self, work: Work) -> Answer:
        """Do a piece of work. What it can't do it answers, and is ready for the next."""
        try:
            return await self._do(work)
        except Error as error:
            return _failed(error)
        except ExceptionGroup as group:
            # Of several clients: what the first of them met.
            _, others = group.split(Error)
            if others is not None:
                raise
            return _failed(_first(group))

    async def _do(self, work: Work) -> Done:
        if isinstance(work, Prepare):
            return await self._prepare(work)
        if self._rig is None:
            raise Error("the store's process has no database yet")
        match work:
            case Series():
                return await store_loads.series(self._rig, work)
            case Clients():
                return await store_loads.clients(self._rig, work)
            case Arrivals():
                return await store_loads.arrivals(self._rig, work)
            case Checkpoints():
                return await store_checkpoints.forced(self._rig, work)
            case OwnCheckpoints():
                return await store_checkpoints.own(self._rig, work)
            case Growth():
                return await store_growth.growth(self._rig, work)
            case PageCache():
                return await self._page_cache(self._rig, work)

    async def _prepare(self, work: Prepare) -> Done:
        await self._open.aclose()
        self._rig = None
        if self._directory.exists():
            shutil.rmtree(self._directory)
        self._directory.mkdir(mode=0o700)
        database = await self._open.enter_async_context(store_rig.opened(self._directory))
        rig = store_rig.Rig(database, seed=work.seed)
        await store_content.fill(
            rig, node_count=work.nodes, bundle_count=work.bundles, bundle_bytes=work.bundle_bytes
        )
        self._rig = rig
        return Done(figures={"database_bytes": _bytes(database.stats().database_bytes)})

    async def _page_cache(self, rig: Rig, work: PageCache) -> Done:
        """Read random nodes, with what holds their pages emptied before each round."""
        chosen = random.Random(work.seed)
        await rig.database.checkpoint()
        if work.state == "hot":
            for node_id in rig.nodes:
                await rig.database.read(store.node_of(node_id))
        tally = Tally()
        left: list[float] = []
        read_before = process.io(os.getpid(), "read_bytes")
        for _ in range(work.rounds):
            if work.state != "hot":
                await self._open.aclose()
                rig.database = await self._open.enter_async_context(store_rig.opened(self._directory))
                # The first read of a connection reads the schema, whatever comes then.
                await rig.database.read(store.nothing)
            if work.state == "cold":
                dropped = page_cache.drop(store_rig.files(self._directory))
                left.append(dropped.resident_percent)
                if dropped.resident_percent > STAYS_PERCENT:
                    raise Unavailable(
                        f"the kernel keeps {dropped.resident_percent:.0f} % of the database in memory although it was told to"
                        " forget it, as where the directory itself lies in memory: nothing cold can be read here"
                    )
            for _ in range(work.reads):
                job = store.node_of(chosen.choice(rig.nodes))
                began = time.monotonic_ns()
                await rig.database.read(job)
                tally.note("read", began)
        figures = {}
        if work.state == "cold":
            figures["still_in_memory"] = Figure(
                value=max(left),
                unit="percent",
                note="of the database file, after the kernel was told to forget it",
            )
        read_after = process.io(os.getpid(), "read_bytes")
        if read_before is not None and read_after is not None:
            figures["read_from_disk"] = _bytes(read_after - read_before)
        return Done(load=tally.load(), figures=figures)


def _failed(error: Error) -> Failed:
    return Failed(sentence=error.message, unavailable=isinstance(error, Unavailable))


def _first(error: BaseException) -> Error:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Error)
    return error


def _bytes(value: float) -> Figure:
    return Figure(value=value, unit="bytes", better="neither")
