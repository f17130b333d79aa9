"""The store's process: does the work that it is told, one piece after another, and measures it where it is done.

Knows no scenario. In one process with the store, as the daemon's handlers are: whoever asks here takes time of the
interpreter from whoever answers, as they do, and that is part of what is measured.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Unavailable
from edgegc.perf import page_cache, store, timer
from edgegc.perf.generator.wire import packed
from edgegc.perf.histogram import Counts, Histogram
from edgegc.perf.plan import Answered, Load
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
    weighted,
    works,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgegc.perf.store import Ready, Rig
    from edgegc.perf.store_plan import Answer, Work

BESIDE_S: Final = 0.02
"""For how long the neighbours of a checkpoint run before it and after it."""
STAYS_PERCENT: Final = 5.0
"""Of a file that was to be forgotten; with more of it in memory, reads are not cold."""
FILLED_BY: Final = "node_insert"
"""Which writes make a log long: those that write most."""
_NANO: Final = 1_000_000_000


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


class Tally:
    """What operations took, by kind, since it was made."""

    def __init__(self) -> None:
        self.began_at = time.time()
        self.began_ns = time.monotonic_ns()
        self._cpu_s = time.process_time()
        self._latency: dict[str, Histogram] = {}
        self._errors: dict[str, Counter[str]] = {}
        self._per_second: Counter[int] = Counter()
        self.lag = Histogram()

    def note(self, kind: str, since_ns: int) -> None:
        """Count an operation that has just ended well."""
        now = time.monotonic_ns()
        self.add(kind, now - since_ns)
        self._per_second[(now - self.began_ns) // _NANO] += 1

    def add(self, kind: str, took_ns: int) -> None:
        """Count an operation that took so long."""
        histogram = self._latency.get(kind)
        if histogram is None:
            histogram = self._latency[kind] = Histogram()
        histogram.record(took_ns)

    def fail(self, kind: str, error: Error) -> None:
        """Count an operation that failed."""
        self._errors.setdefault(kind, Counter())[error.code] += 1

    def of(self, kind: str) -> Histogram:
        """Return what operations of a kind took, which may be none."""
        return self._latency.get(kind, Histogram())

    def load(self) -> Load:
        """Return all of it."""
        duration_s = (time.monotonic_ns() - self.began_ns) / _NANO
        return Load(
            began_at=self.began_at,
            duration_s=duration_s,
            asks=tuple(self._answered(kind) for kind in sorted({*self._latency, *self._errors})),
            errors={},
            # Who asks shares the interpreter with who answers, so how late it is tells nothing of a generator: it is in the
            # latency, and told as a figure.
            lag=Counts(),
            per_second=tuple(self._per_second[second] for second in range(int(duration_s))),
            connect=Counts(),
            cpu_s=0.0,
            dropped=0,
        )

    def _answered(self, kind: str) -> Answered:
        latency = self.of(kind)
        return Answered(
            name=kind,
            requests=latency.count,
            errors=dict(self._errors.get(kind, {})),
            latency=latency.counts(),
            bytes_read=0,
        )


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
                return await _series(self._rig, work)
            case Clients():
                return await _clients(self._rig, work)
            case Arrivals():
                return await _arrivals(self._rig, work)
            case Checkpoints():
                return await _checkpoints(self._rig, work)
            case OwnCheckpoints():
                return await _own_checkpoints(self._rig, work)
            case Growth():
                return await _growth(self._rig, work)
            case PageCache():
                return await self._page_cache(self._rig, work)

    async def _prepare(self, work: Prepare) -> Done:
        await self._open.aclose()
        self._rig = None
        if self._directory.exists():
            shutil.rmtree(self._directory)
        self._directory.mkdir(mode=0o700)
        database = await self._open.enter_async_context(store.opened(self._directory))
        rig = store.Rig(database, seed=work.seed)
        await rig.fill(node_count=work.nodes, bundle_count=work.bundles, bundle_bytes=work.bundle_bytes)
        self._rig = rig
        return Done(figures={"database_bytes": _bytes(database.stats().database_bytes)})

    async def _page_cache(self, rig: Rig, work: PageCache) -> Done:
        """Read random nodes, with what holds their pages emptied before each round."""
        chosen = random.Random(work.seed)
        await rig.database.checkpoint()
        if work.state == "hot":
            for node_id in rig.nodes:
                await rig.database.read(rig.node_of(node_id))
        tally = Tally()
        left: list[float] = []
        read_before = _io("read_bytes")
        for _ in range(work.rounds):
            if work.state != "hot":
                await self._open.aclose()
                rig.database = await self._open.enter_async_context(store.opened(self._directory))
                # The first read of a connection reads the schema, whatever comes then.
                await rig.database.read(rig.nothing)
            if work.state == "cold":
                dropped = page_cache.drop(store.files(self._directory))
                left.append(dropped.resident_percent)
                if dropped.resident_percent > STAYS_PERCENT:
                    raise Unavailable(
                        f"the kernel keeps {dropped.resident_percent:.0f} % of the database in memory although it was told to"
                        " forget it, as where the directory itself lies in memory: nothing cold can be read here"
                    )
            for _ in range(work.reads):
                job = rig.node_of(chosen.choice(rig.nodes))
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
        read_after = _io("read_bytes")
        if read_before is not None and read_after is not None:
            figures["read_from_disk"] = _bytes(read_after - read_before)
        return Done(load=tally.load(), figures=figures)


async def _series(rig: Rig, work: Series) -> Done:
    prepare = store.OPERATIONS[work.operation]
    # Once for the statements that are then prepared, and for the pages.
    await prepare(rig, work.size)()
    tally = Tally()
    until = time.monotonic() + work.duration_s
    done = 0
    while done < work.at_most and (not done or time.monotonic() < until):
        await _one(tally, work.operation, prepare(rig, work.size))
        done += 1
    return Done(load=tally.load())


async def _one(tally: Tally, kind: str, ready: Ready, *, due_ns: int | None = None) -> None:
    began = time.monotonic_ns() if due_ns is None else due_ns
    try:
        await ready()
    except Error as error:
        tally.fail(kind, error)
    else:
        tally.note(kind, began)


async def _clients(rig: Rig, work: Clients) -> Done:
    for operation in work.mix:
        await store.OPERATIONS[operation](rig, 1)()
    commits, writes = rig.database.stats().commits, rig.database.stats().writes
    tally = Tally()
    until = time.monotonic() + work.duration_s

    async def client(number: int) -> None:
        for operation in _choices(work.mix, work.seed + number):
            if time.monotonic() >= until:
                return
            await _one(tally, _kind(operation), store.OPERATIONS[operation](rig, 1))

    async with trio.open_nursery() as nursery:
        for number in range(work.clients):
            nursery.start_soon(client, number)
    load = tally.load()
    stats = rig.database.stats()
    figures = {}
    if stats.commits > commits:
        figures["writes_per_commit"] = Figure(
            value=(stats.writes - writes) / (stats.commits - commits), unit="count", better="neither"
        )
    return Done(load=load, figures=figures)


async def _arrivals(rig: Rig, work: Arrivals) -> Done:
    for operation in work.mix:
        await store.OPERATIONS[operation](rig, 1)()
    distances = random.Random(work.seed)
    operations = _choices(work.mix, work.seed)
    tally = Tally()
    due_ns = tally.began_ns
    end_ns = due_ns + int(work.duration_s * _NANO)
    with timer.opened() as clock:
        async with trio.open_nursery() as nursery:
            while True:
                due_ns += int(distances.expovariate(work.rate_per_s) * _NANO)
                if due_ns >= end_ns:
                    break
                operation = next(operations)
                # Made before it is due: only what is asked of the store is to be measured.
                ready = store.OPERATIONS[operation](rig, 1)
                await clock.until(due_ns)
                tally.lag.record(time.monotonic_ns() - due_ns)
                nursery.start_soon(_arrival, tally, _kind(operation), ready, due_ns)
    late_ns = tally.lag.value_at(99) if tally.lag.count else 0
    note = "how late operations began, which their latency includes"
    return Done(
        load=tally.load(), figures={"begun_late_p99": Figure(value=late_ns / _NANO, unit="s", note=note)}
    )


async def _arrival(tally: Tally, kind: str, ready: Ready, due_ns: int) -> None:
    await _one(tally, kind, ready, due_ns=due_ns)


def _kind(operation: str) -> str:
    return "write" if operation in store.WRITES else "read"


def _choices(mix: dict[str, int], seed: int) -> Iterator[str]:
    chosen = random.Random(seed)
    operations, weights = weighted(mix)
    while True:
        yield from chosen.choices(operations, weights, k=256)


class Beside:
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


async def _checkpoints(rig: Rig, work: Checkpoints) -> Done:
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
        beside = Beside(rig)
        async with trio.open_nursery() as nursery:
            beside.start(nursery)
            await trio.sleep(BESIDE_S)
            began = time.monotonic_ns()
            done = await database.checkpoint()
            ended = time.monotonic_ns()
            await trio.sleep(BESIDE_S)
            beside.stop()
        # By the writer's own clock: not how long it waited for its turn.
        tally.add("checkpoint", int(done.duration_s * _NANO))
        marks.append(((began - tally.began_ns) / _NANO, "checkpoint"))
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
            value=max(waits) / _NANO, unit="s", note="under way while a checkpoint was"
        )
    if usual.count:
        figures[f"usual_{kind}_p99"] = Figure(
            value=usual.value_at(99) / _NANO, unit="s", note="the same when there was none"
        )
    return figures


async def _own_checkpoints(rig: Rig, work: OwnCheckpoints) -> Done:
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
                marks.append(((time.monotonic_ns() - tally.began_ns) / _NANO, "checkpoint"))

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
        figures["longest_write_met"] = Figure(value=met.max_ns / _NANO, unit="s")
    if usual.count:
        figures["usual_write_p99"] = Figure(value=usual.value_at(99) / _NANO, unit="s")
        figures["longest_usual_write"] = Figure(value=usual.max_ns / _NANO, unit="s")
    return Done(load=load, figures=figures, marks=tuple(marks))


async def _growth(rig: Rig, work: Growth) -> Done:
    database = rig.database
    operation = {"node": "node_insert", "bundle": "bundle_insert", "reports": "flush"}[work.what]
    await database.checkpoint()
    before, written_before = database.stats().database_bytes, _io("write_bytes")
    tally = Tally()
    for _ in range(work.count):
        await _one(tally, work.what, store.OPERATIONS[operation](rig, work.size))
    load = tally.load()
    # Its writes belong to what was written, too.
    await database.checkpoint()
    grown = database.stats().database_bytes - before
    figures = {
        "file_bytes_each": Figure(
            value=grown / work.count, unit="bytes", note=f"of the database file, for each of {work.count}"
        )
    }
    written_after = _io("write_bytes")
    if written_before is not None and written_after is not None:
        figures["written_bytes_each"] = Figure(
            value=(written_after - written_before) / work.count,
            unit="bytes",
            note="to the disk: log and checkpoint",
        )
    return Done(load=load, figures=figures)


def _failed(error: Error) -> Failed:
    return Failed(sentence=error.message, unavailable=isinstance(error, Unavailable))


def _first(error: BaseException) -> Error:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Error)
    return error


def _bytes(value: float) -> Figure:
    return Figure(value=value, unit="bytes", better="neither")


def _io(name: str) -> int | None:
    """Return a counter of this process, None where the kernel does not keep it."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
