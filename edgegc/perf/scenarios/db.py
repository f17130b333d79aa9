"""``db.*``: the store by itself, without HTTP: real files, its own threads, the functions that use cases call.

Measured where it is called, in one process with the store (the cases say ``in_process``), which is a process of its own
beside the suite, in the device's control groups. The model of a case is what it is: ``none`` for one operation after another,
``closed`` for clients that ask again when answered, ``open`` for operations that come by chance whatever has become of the
others. Knows no SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgegc.errors import Unavailable
from edgegc.perf.result import Mark
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios import caged
from edgegc.perf.scenarios.paces import bearable, throughput
from edgegc.perf.store_plan import (
    Arrivals,
    Checkpoints,
    Clients,
    Growth,
    OwnCheckpoints,
    PageCache,
    Prepare,
    Series,
)

if TYPE_CHECKING:
    from typing import Literal

    from edgegc.perf.bench import Bench
    from edgegc.perf.result import Model
    from edgegc.perf.store_plan import Done, Work
    from edgegc.perf.store_process import StoreProcess

MIB: Final = 1024 * 1024
NODES: Final = 1000
QUICK_NODES: Final = 200
MANY_NODES: Final = 5000
"""9 MB of database: some times what SQLite keeps in memory, so that reads go to the kernel."""
KEPT_BUNDLES: Final = 10
BATCHES: Final = (1, 10, 100, 1000)
MOST_NODES: Final = 20_000
"""What inserting may add, or the last insert would be into another database than the first."""
MOST: Final = 1_000_000
BUNDLES: Final = {"100KiB": 100 * 1024, "1MiB": MIB, "5MiB": 5 * MIB, "10MiB": 10 * MIB}
QUICK_BUNDLES: Final = ("100KiB", "1MiB")
SERIES_S: Final = 3.0
QUICK_SERIES_S: Final = 0.3
LOAD_S: Final = 10.0
QUICK_LOAD_S: Final = 0.7
WRITERS: Final = 50
"""What the targets are stated for."""
CLIENTS: Final = 16
FLOOR_PER_S: Final = 2500.0
"""Of the mixed load: 2,000 reads and 500 writes, the floors of both, at once."""
MIXED: Final = {
    "node_by_id": 50,
    "versions": 15,
    "nodes_of_cluster": 5,
    "topology": 5,
    "bundle_of_version": 5,
    "one_row": 8,
    "node_update": 8,
    "node_insert": 4,
}
"""Operations in a hundred: four reads to a write."""
LOGS: Final = {"1MiB": 1, "4MiB": 4, "12MiB": 12}
"""MiB of log: the least that housekeeping takes the trouble for, and up to where the writer would do it by itself (16)."""


async def node_insert(bench: Bench) -> None:
    """Measure making 1, 10, 100 and 1,000 nodes in one write, each into a database of 1,000."""
    async with caged.store(bench) as store:
        for size in BATCHES:
            nodes = await _prepare(bench, store)
            work = Series(
                operation="node_insert",
                size=size,
                duration_s=bench.seconds(SERIES_S, QUICK_SERIES_S),
                at_most=MOST_NODES // size,
            )
            await _measure(bench, store, f"{size}", work, each=size, nodes=nodes, nodes_per_write=size)


async def node_query(bench: Bench) -> None:
    """Measure reading one node, the first page of a cluster's nodes, and all pages one after the other."""
    await _series(bench, {"by-id": "node_by_id", "by-cluster": "nodes_of_cluster", "page-walk": "next_page"})


async def topology_query(bench: Bench) -> None:
    """Measure reading a topology of 20 lighthouses and relays and 100 routes."""
    await _series(bench, {"": "topology"})


async def bundle_query(bench: Bench) -> None:
    """Measure reading a cluster's history of bundles, one bundle of it, and the whole content of one of 1 MiB."""
    operations = {
        "by-cluster": "bundles_of_cluster",
        "by-version": "bundle_of_version",
        "content": "bundle_body",
    }
    await _series(bench, operations, bundles=KEPT_BUNDLES)


async def bundle_insert(bench: Bench) -> None:
    """Measure storing an upload, piece by piece, until it is the active bundle; nothing but the store's part of it."""
    async with caged.store(bench) as store:
        for case in BUNDLES if bench.suite == "full" else QUICK_BUNDLES:
            size = BUNDLES[case]
            nodes = await _prepare(bench, store)
            work = Series(
                operation="bundle_insert",
                size=size,
                duration_s=bench.seconds(SERIES_S, QUICK_SERIES_S),
                at_most=MOST,
            )
            await _measure(bench, store, case, work, nodes=nodes, size_bytes=size)


async def transaction(bench: Bench) -> None:
    """Measure several operations in one write: kept, and taken back because the last of them fails."""
    await _series(bench, {"kept": "several", "taken-back": "several_fail"}, at_most=MOST_NODES)


async def mixed(bench: Bench) -> None:
    """Measure reads and writes at once: how many there can be, and how long each takes at the rate of the floors."""
    async with caged.store(bench) as store:
        nodes = await _prepare(bench, store, bundles=KEPT_BUNDLES)
        seed, seconds = bench.random.getrandbits(32), bench.seconds(LOAD_S, QUICK_LOAD_S)
        closed = Clients(mix=MIXED, clients=CLIENTS, duration_s=seconds, seed=seed)
        done = await _measure(bench, store, "closed", closed, model="closed", nodes=nodes, clients=CLIENTS)
        can = throughput(done.load) if done.load is not None else 0.0
        per_s = bearable(bench, "open", FLOOR_PER_S, can)
        nodes = await _prepare(bench, store, bundles=KEPT_BUNDLES)
        arrivals = Arrivals(mix=MIXED, rate_per_s=per_s, duration_s=seconds, seed=seed)
        await _measure(bench, store, "open", arrivals, model="open", nodes=nodes, rate_per_s=per_s)


async def concurrency(bench: Bench) -> None:
    """Measure how many writes that survive a power cut, and how many reads, 50 clients get done: the smallest, and whole ones."""
    kinds = {
        "writes": "one_row",
        "node-creations": "node_insert",
        "reads": "versions",
        "node-reads": "node_by_id",
    }
    async with caged.store(bench) as store:
        for case, operation in kinds.items():
            nodes = await _prepare(bench, store)
            seed, seconds = bench.random.getrandbits(32), bench.seconds(LOAD_S / 2, QUICK_LOAD_S)
            work = Clients(mix={operation: 1}, clients=WRITERS, duration_s=seconds, seed=seed)
            await _measure(
                bench, store, case, work, model="closed", nodes=nodes, clients=WRITERS, operation=operation
            )


async def growth(bench: Bench) -> None:
    """Measure by how much a node, a bundle and a flush of 1,000 nodes' reports let the file grow, and what they write."""
    pieces = (
        ("node", Growth(what="node", count=bench.count(1000, 50))),
        ("bundle", Growth(what="bundle", count=bench.count(KEPT_BUNDLES, 2), size=MIB)),
        ("reports", Growth(what="reports", count=bench.count(8, 2))),
    )
    async with caged.store(bench) as store:
        for case, work in pieces:
            nodes = await _prepare(bench, store)
            await _measure(bench, store, case, work, nodes=nodes, count=work.count)


async def checkpoint(bench: Bench) -> None:
    """Measure checkpoints of logs of several lengths, and whether anyone waits; then those that the writer makes itself."""
    async with caged.store(bench) as store:
        for case, mib in LOGS.items():
            nodes = await _prepare(bench, store)
            work = Checkpoints(wal_bytes=mib * MIB, repeat=bench.count(max(3, 10 // mib), 1))
            await _measure(bench, store, case, work, nodes=nodes, wal_bytes=work.wal_bytes)
        nodes = await _prepare(bench, store)
        own = OwnCheckpoints(
            clients=CLIENTS, wanted=bench.count(3, 1), at_most_s=bench.seconds(4 * LOAD_S, QUICK_LOAD_S)
        )
        await _measure(bench, store, "own", own, model="closed", nodes=nodes, clients=CLIENTS)


async def page_cache(bench: Bench) -> None:
    """Measure reads of single nodes from memory, with SQLite's cache empty, and with the kernel's empty as well."""
    states: tuple[Literal["hot", "reopened", "cold"], ...] = ("hot", "reopened", "cold")
    async with caged.store(bench) as store:
        nodes = await _prepare(bench, store, nodes=bench.count(MANY_NODES, NODES))
        for state in states:
            work = PageCache(
                state=state, rounds=bench.count(20, 2), reads=50, seed=bench.random.getrandbits(32)
            )
            try:
                await _measure(bench, store, state, work, nodes=nodes, reads_per_round=work.reads)
            except Unavailable as error:
                bench.unavailable(state, error.message)


async def _prepare(bench: Bench, store: StoreProcess, *, nodes: int | None = None, bundles: int = 0) -> int:
    """Have a fresh database made; return how many nodes it has."""
    nodes = bench.count(NODES, QUICK_NODES) if nodes is None else nodes
    seed = bench.random.getrandbits(32)
    await store.do(Prepare(nodes=nodes, seed=seed, bundles=bundles, bundle_bytes=MIB))
    return nodes


async def _series(bench: Bench, operations: dict[str, str], *, bundles: int = 0, at_most: int = MOST) -> None:
    """Measure operations, one after another each, in one database."""
    async with caged.store(bench) as store:
        nodes = await _prepare(bench, store, bundles=bundles)
        for case, operation in operations.items():
            seconds = bench.seconds(SERIES_S, QUICK_SERIES_S)
            work = Series(operation=operation, duration_s=seconds, at_most=at_most)
            await _measure(bench, store, case, work, nodes=nodes)


async def _measure(
    bench: Bench,
    store: StoreProcess,
    case: str,
    work: Work,
    *,
    model: Model = "none",
    each: int = 1,
    **parameters: str | float,
) -> Done:
    async with bench.measure(case, model=model, of=store, parameters=parameters) as meter:
        done = await store.do(work)
        if done.load is not None:
            meter.take(done.load)
            if each > 1:
                meter.figure("nodes_per_s", throughput(done.load) * each, "per_s", better="higher")
            into_s = done.load.began_at - meter.entered_at
            meter.marks += [Mark(at_s=into_s + at_s, what=what) for at_s, what in done.marks]
        meter.figures |= done.figures
    return done


SMALL_BYTES: Final = 90 * MIB

NEEDS_OWN: Final = "it measures the store, and no server"

SCENARIOS: Final = (
    Scenario(
        name="db.node_insert",
        proves="making 1, 10, 100 and 1,000 nodes in one durable write",
        run=node_insert,
        cases=tuple(f"{size}" for size in BATCHES),
        quick_s=3,
        full_s=18,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.node_query",
        proves="reading a node, a page of nodes, all pages",
        run=node_query,
        cases=("by-id", "by-cluster", "page-walk"),
        quick_s=0,
        full_s=11,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.bundle_insert",
        proves="storing bundles of 100 KiB to 10 MiB",
        run=bundle_insert,
        cases=tuple(BUNDLES),
        quick_s=0,
        full_s=16,
        ram_bytes=2 * SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.bundle_query",
        proves="reading the history of bundles, one of them, its content",
        run=bundle_query,
        cases=("by-cluster", "by-version", "content"),
        quick_s=0,
        full_s=12,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.topology_query",
        proves="reading who is lighthouse or relay, and all routes",
        run=topology_query,
        quick_s=0,
        full_s=5,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.transaction",
        proves="several operations in one durable write, kept or taken back",
        run=transaction,
        cases=("kept", "taken-back"),
        quick_s=0,
        full_s=8,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.mixed",
        proves="how long reads and writes take beside each other, at 2,000 and 500 a second",
        run=mixed,
        cases=("closed", "open"),
        quick_s=3,
        full_s=24,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.concurrency",
        proves="durable writes and reads a second, of 50 clients",
        run=concurrency,
        cases=("writes", "node-creations", "reads", "node-reads"),
        quick_s=0,
        full_s=24,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.growth",
        proves="bytes per node, per bundle and per flush of reports: of the file, and written",
        run=growth,
        cases=("node", "bundle", "reports"),
        quick_s=0,
        full_s=10,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.checkpoint",
        proves="how often, how long, and whether anyone waits",
        run=checkpoint,
        cases=(*LOGS, "own"),
        quick_s=3,
        full_s=20,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
    Scenario(
        name="db.page_cache",
        proves="reads from memory, and from the disk",
        run=page_cache,
        cases=("hot", "reopened", "cold"),
        quick_s=0,
        full_s=12,
        ram_bytes=SMALL_BYTES,
        needs_own=NEEDS_OWN,
        in_process=True,
    ),
)
