"""Operations on the store: one after another, by clients that wait for their answers, and on a schedule.

Knows no operation's inside. Who asks is in one process with who answers.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import trio

from edgegc.errors import Error
from edgegc.perf import store, timer
from edgegc.perf.result import Figure
from edgegc.perf.store_plan import Done, weighted
from edgegc.perf.store_tally import NS_PER_S, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.store import Ready
    from edgegc.perf.store_plan import Arrivals, Clients, Series
    from edgegc.perf.store_rig import Rig


async def series(rig: Rig, work: Series) -> Done:
    """Do one operation after another."""
    prepare = store.OPERATIONS[work.operation]
    # Once for the statements that are then prepared, and for the pages.
    await prepare(rig, work.size)()
    tally = Tally()
    until = time.monotonic() + work.duration_s
    done = 0
    while done < work.at_most and (not done or time.monotonic() < until):
        await one(tally, work.operation, prepare(rig, work.size))
        done += 1
    return Done(load=tally.load())


async def one(tally: Tally, kind: str, ready: Ready, *, due_ns: int | None = None) -> None:
    """Do an operation and count it: from when it was due, or from now."""
    began = time.monotonic_ns() if due_ns is None else due_ns
    try:
        await ready()
    except Error as error:
        tally.fail(kind, error)
    else:
        tally.note(kind, began)


async def clients(rig: Rig, work: Clients) -> Done:
    """Have clients do operations, each its next one when the one before is answered."""
    for operation in work.mix:
        await store.OPERATIONS[operation](rig, 1)()
    commits, writes = rig.database.stats().commits, rig.database.stats().writes
    tally = Tally()
    until = time.monotonic() + work.duration_s

    async def client(number: int) -> None:
        for operation in _choices(work.mix, work.seed + number):
            if time.monotonic() >= until:
                return
            await one(tally, _kind(operation), store.OPERATIONS[operation](rig, 1))

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


async def arrivals(rig: Rig, work: Arrivals) -> Done:
    """Have operations begin on a schedule, whatever has become of the others."""
    for operation in work.mix:
        await store.OPERATIONS[operation](rig, 1)()
    distances = random.Random(work.seed)
    operations = _choices(work.mix, work.seed)
    tally = Tally()
    due_ns = tally.began_ns
    end_ns = due_ns + int(work.duration_s * NS_PER_S)
    with timer.opened() as clock:
        async with trio.open_nursery() as nursery:
            while True:
                due_ns += int(distances.expovariate(work.rate_per_s) * NS_PER_S)
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
        load=tally.load(), figures={"begun_late_p99": Figure(value=late_ns / NS_PER_S, unit="s", note=note)}
    )


async def _arrival(tally: Tally, kind: str, ready: Ready, due_ns: int) -> None:
    await one(tally, kind, ready, due_ns=due_ns)


def _kind(operation: str) -> str:
    return "write" if operation in store.WRITES else "read"


def _choices(mix: dict[str, int], seed: int) -> Iterator[str]:
    chosen = random.Random(seed)
    operations, weights = weighted(mix)
    while True:
        yield from chosen.choices(operations, weights, k=256)
