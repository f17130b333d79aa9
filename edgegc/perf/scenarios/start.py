"""``start.*``: what starting costs, of each package alone and of a server, and what a server costs that has nothing to do.

Knows no server's inside but which packages it is made of. Whatever starts here is in the device's control groups.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import msgspec
import trio

import edgegc
from edgegc.errors import Error, Unavailable
from edgegc.perf import filesystem, page_cache, process, requests, respawn, server
from edgegc.perf.histogram import Counts
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios import caged, furnish
from edgegc.perf.store_plan import Growth, Prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgegc.perf.bench import Bench, Meter, Served
    from edgegc.perf.plan import Load

MIB: Final = 1024 * 1024
NODES: Final = 1000
QUICK_NODES: Final = 100
HOUR_S: Final = 3600
NS_PER_S: Final = 1_000_000_000

BARE: Final = "python"
PACKAGES: Final = {
    BARE: "sys",
    "trio": "trio",
    "msgspec": "msgspec",
    "h11": "h11",
    "hypercorn": "hypercorn.trio",
    "quart_trio": "quart_trio",
    "cryptography": "cryptography.hazmat.primitives.ciphers.aead,cryptography.hazmat.primitives.asymmetric.ed25519",
    "sqlite3": "sqlite3",
    "yaml": "yaml",
    "psutil": "psutil",
    "click": "click",
    "rich": "rich.console",
    "command-line": "edgegc.cli.main",
    "agent": "edgegc.agent.agent",
    "server": "edgegc.daemon",
}
"""What is imported, by the case's name: each into an interpreter that has imported nothing yet, so that what packages have in
common counts for each of them. The last three are ours, with all that they import."""

IMPORTER: Final = """
import sys
def memory():
    found = {}
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("Rss", "Private_Clean", "Private_Dirty"):
                found[name] = int(rest.split()[0]) * 1024
    return found["Rss"], found["Private_Clean"] + found["Private_Dirty"]
rss, private = memory()
from time import perf_counter_ns
began = perf_counter_ns()
for name in sys.argv[1].split(","):
    __import__(name)
took = perf_counter_ns() - began
rss_after, private_after = memory()
print(took, rss_after - rss, private_after - private, rss_after, private_after)
"""
"""What the fresh interpreter runs: nanoseconds, then bytes of memory that came with the import, then all that it has."""

MOSTLY_PERCENT: Final = 50.0
"""Of a server's files: with more of them still in memory, a start is not cold."""

WINDOW_S: Final = 40.0
QUICK_WINDOW_S: Final = 5.0
"""For how long an idle server is watched; what it does seldomer than this is not seen, and the figures say so."""
LOOK_EVERY_S: Final = 2.0
"""Each look holds the server up for some milliseconds: the kernel adds its pages up."""
POLL_S: Final = 5.0
"""How often a node asks that can't be held."""
HOLD_S: Final = 50.0
"""For how long a node lets its question be held."""
FLUSHES_PER_HOUR: Final = 4
"""How often a server writes down when it has heard of its nodes; too seldom to be seen in the window."""
CONNECT_S: Final = 20.0
QUICK_CONNECT_S: Final = 0.5
"""Over which 1,000 connections are opened with TLS: a small board takes 10 ms of its core for each handshake."""
POLL_CONNECTIONS: Final = 64
"""For the first question of each node, before anything is measured."""
LONGEST_S: Final = 40.0


async def imports(bench: Bench) -> None:
    """Measure what each package costs: time, and memory that comes with it."""
    if bench.laboratory.command is not None:
        raise Unavailable(
            "the packages of another release can't be imported from here: run the suite from its file"
        )
    with caged.cage(bench) as cage:
        for case, modules in PACKAGES.items():
            argv: list[str] = [sys.executable, "-c", IMPORTER, modules]
            async with bench.measure(case, model="none", parameters={"imports": modules}) as meter:
                seen = [
                    await _import(argv if cage is None else cage.wrap(argv)) for _ in range(bench.count(5, 1))
                ]
                for took_ns, whole_ns, *_ in seen:
                    # Of the bare interpreter, what is to be known is how long it takes to be there at all.
                    meter.record(whole_ns if case == BARE else took_ns)
                for column, name, note in (
                    (2, "rss_added", "resident memory that came with the import"),
                    (3, "private_added", "of which private"),
                    (4, "rss_total", "of the whole interpreter then"),
                    (5, "private_total", "of the whole interpreter then"),
                ):
                    meter.figure(name, median(each[column] for each in seen), "bytes", note=note)


async def _import(argv: list[str]) -> tuple[int, ...]:
    """Return for how long it imported and ran, in nanoseconds, and the memory that :data:`IMPORTER` tells of."""
    began = time.monotonic_ns()
    done = await trio.run_process(
        argv,
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=respawn.environ(),
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Error(
            f"an interpreter could not import: {said[-1] if said else f'exit code {done.returncode}'}"
        )
    whole_ns = time.monotonic_ns() - began
    took_ns, *memory = map(int, done.stdout.split())
    return took_ns, whole_ns, *memory


async def warm(bench: Bench) -> None:
    """Measure starts of a server whose files were read a moment ago, with 1,000 nodes: until its first answer."""
    nodes = bench.count(NODES, QUICK_NODES)
    async with (
        bench.server(nodes=nodes) as served,
        bench.measure(model="none", of=served, parameters={"nodes": nodes}) as meter,
    ):
        for _ in range(bench.count(5, 1)):
            meter.mark("restart")
            meter.record(_ns(await served.server.restart()))
        _first_answer(meter)


async def cold(bench: Bench) -> None:
    """Measure the same after the kernel was told to forget all files of it: program, packages, libraries, data."""
    nodes = bench.count(NODES, QUICK_NODES)
    async with bench.server(nodes=nodes) as served:
        files = await trio.to_thread.run_sync(_loaded, served.server.pid)
        async with bench.measure(model="none", of=served, parameters={"nodes": nodes}) as meter:
            held = page_cache.Held(0, 0)
            kept = 0.0
            for _ in range(bench.count(5, 1)):
                await served.server.stop(number=signal.SIGTERM)
                held = await trio.to_thread.run_sync(_forget, files, served.server.data_dir)
                kept = max(kept, held.resident_percent)
                if held.resident_percent > MOSTLY_PERCENT:
                    raise Unavailable(
                        f"the kernel keeps {held.resident_percent:.0f} % of the server's files in memory although it was told"
                        " to forget them: they lie on a file system in memory, or others run from them"
                    )
                meter.mark("restart")
                meter.record(_ns(await served.server.start()))
            _first_answer(meter)
            meter.figure(
                "files",
                held.total_bytes,
                "bytes",
                better="neither",
                note="of the server, that were in memory and were to be forgotten",
            )
            meter.figure(
                "still_in_memory",
                kept,
                "percent",
                note="of them: what other processes run from, as this suite from the interpreter",
            )


def _loaded(pid: int) -> list[Path]:
    """Return the files that a server consists of, as far as they are in memory: what it has mapped, its modules, its archive."""
    found = {Path(edgegc.__file__).parent, Path(sysconfig.get_path("stdlib"))}
    for path in process.mapped_files(pid):
        found.add(path)
        # Libraries lie among the modules of their packages.
        found.update(parent for parent in path.parents if parent.name == "site-packages")
    found.update(Path(word) for word in process.arguments(pid) if word.endswith(".pyz"))
    return page_cache.loaded(_files(found))


def _forget(files: Iterable[Path], data_dir: Path) -> page_cache.Held:
    return page_cache.drop(chain(files, _files([data_dir])))


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    """Yield every file below some directories, or that is one of them, once."""
    seen = set()
    for root in roots:
        for path in root.rglob("*") if root.is_dir() else (root,):
            if path not in seen and path.is_file() and not path.is_symlink():
                seen.add(path)
                yield path


async def pyz_first_run(bench: Bench) -> None:
    """Measure the first start of a ``.pyz`` on a machine: unpacking itself, then until the first answer of an empty box."""
    command = bench.laboratory.command or respawn.program()
    if not zipfile.is_zipfile(command[-1]):
        raise Unavailable(
            "this program does not run from a .pyz: run the suite from one, or name one with --server FILE"
        )
    workplace = filesystem.workplace(bench.laboratory.directory)
    unpacked = 0
    async with bench.measure(model="none", parameters={"file_bytes": os.stat(command[-1]).st_size}) as meter:
        for _ in range(bench.count(3, 1)):
            with caged.cage(bench) as cage, filesystem.temporary(workplace) as root:
                options = server.ServerOptions(
                    command=command,
                    environ={"SHIV_ROOT": str(root)},
                    nebula=bench.nebula,
                    directory=bench.laboratory.directory,
                )
                async with server.serving(options, cage=cage, cpu=bench.cpus.server) as started:
                    meter.record(_ns(started.started_s))
                unpacked = sum(path.stat().st_size for path in _files([root]))
        _first_answer(meter)
        meter.figure("unpacked", unpacked, "bytes", note="that stay on the disk")


async def idle_cost(bench: Bench) -> None:
    """Measure what a server with 1,000 nodes uses while nothing changes: none connected, all polling, all held."""
    flushed = await _flush_bytes(bench)
    nodes = bench.count(NODES, QUICK_NODES)
    window_s = bench.seconds(WINDOW_S, QUICK_WINDOW_S)
    async with bench.server(nodes=nodes) as served:
        seeded = process.usage(served.server.pids()).private_bytes
        # A box was started once and is idle then; it is seldom that it has just made all its nodes.
        await served.server.restart()
        await bench.settle(served.server.pid)
        async with bench.measure("registered", model="none", of=served, parameters={"nodes": nodes}) as meter:
            before, used = _Written.look(served), process.usage(served.server.pids())
            await trio.sleep(window_s)
            spent_s = process.usage(served.server.pids()).cpu_s - used.cpu_s
            _figure_cpu(meter, spent_s, trio.current_time() - before.at_s)
            before.tell(meter, served, flushed=0.0)
            meter.figure(
                "private_after_seeding",
                seeded,
                "bytes",
                note="before the restart: just after all nodes were made",
            )
        versions = await furnish.versions(served.server.admin, served.seeded.cluster_id)
        await _everybody_once(bench, served)
        checks = tuple(
            requests.version(node.token, current=versions[node.id]) for node in served.seeded.nodes
        )
        plan = Plan(
            target=served.server.target,
            asks=(Ask(name="version", requests=checks, order="connection"),),
            connections=nodes,
            duration_s=window_s,
            rate_per_s=nodes / POLL_S,
            seed=bench.random.getrandbits(32),
            # Soon enough that nobody who has connected waits for longer than a server lets him.
            connect_within_s=bench.seconds(POLL_S, QUICK_CONNECT_S),
            warmup_s=bench.seconds(POLL_S, QUICK_CONNECT_S),
        )
        parameters = {"nodes": nodes, "interval_s": POLL_S}
        async with bench.measure("polling", model="open", of=served, parameters=parameters) as meter:
            await _under_load(bench, served, meter, plan, flushed)
    async with bench.server(nodes=nodes, tls=True) as served:
        await _everybody_once(bench, served)
        await served.server.restart()
        await bench.settle(served.server.pid)
        versions = await furnish.versions(served.server.admin, served.seeded.cluster_id)
        # For as long as they are held: in which each asks once more, however they are spread.
        held_s = bench.seconds(HOLD_S, QUICK_WINDOW_S)
        held = tuple(
            requests.version(node.token, current=versions[node.id], wait_s=held_s)
            for node in served.seeded.nodes
        )
        plan = Plan(
            target=served.server.target,
            asks=(Ask(name="version", requests=held, order="connection"),),
            connections=nodes,
            duration_s=held_s,
            # Each asks when it has connected, and all questions are held before the measured time.
            eager=True,
            warmup_s=bench.seconds(CONNECT_S + POLL_S, 2 * QUICK_CONNECT_S),
            timeout_s=held_s + HOLD_S,
            seed=bench.random.getrandbits(32),
            connect_within_s=bench.seconds(CONNECT_S, QUICK_CONNECT_S),
        )
        parameters = {"nodes": nodes, "held_s": held_s, "tls": True}
        async with bench.measure("longpoll", model="closed", of=served, parameters=parameters) as meter:
            await _under_load(bench, served, meter, plan, flushed, held=True)


async def _everybody_once(bench: Bench, served: Served) -> None:
    """Let each node ask once: the first use of a token is written down, and no part of being idle."""
    checks = tuple(requests.version(node.token) for node in served.seeded.nodes)
    await bench.load(
        Plan(
            target=served.server.target,
            asks=(Ask(name="version", requests=checks, once=True),),
            connections=POLL_CONNECTIONS,
            duration_s=LONGEST_S,
        )
    )
    await bench.settle(served.server.pid)


async def _under_load(
    bench: Bench, served: Served, meter: Meter, plan: Plan, flushed: float, *, held: bool = False
) -> None:
    before = _Written.look(served)
    seen: list[tuple[float, process.Usage]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, served, seen)
        load = await bench.load(plan)
        nursery.cancel_scope.cancel()
    meter.take(_without_latency(load) if held else load)
    # Not while all of them connect at once, which no fleet does for long.
    calm = [each for each in seen if load.began_at <= each[0] <= load.began_at + load.duration_s]
    if len(calm) > 1:
        (began, first), (ended, last) = calm[0], calm[-1]
        _figure_cpu(meter, last.cpu_s - first.cpu_s, ended - began)
    private = median(used.private_bytes for _, used in calm or seen)
    meter.figure("private_meanwhile", private, "bytes", note="the median after all had connected")
    before.tell(meter, served, flushed=flushed)


async def _watch(served: Served, into: list[tuple[float, process.Usage]]) -> None:
    while True:
        into.append((time.time(), process.usage(served.server.pids())))
        await trio.sleep(LOOK_EVERY_S)


def _figure_cpu(meter: Meter, used_s: float, watched_s: float) -> None:
    meter.figure("cpu_percent", 100 * used_s / watched_s, "percent", note="of one core")


def _without_latency(load: Load) -> Load:
    """How long a held question was held says nothing: it is what was asked for."""
    asks = tuple(msgspec.structs.replace(ask, latency=Counts()) for ask in load.asks)
    return msgspec.structs.replace(load, asks=asks)


@dataclass(frozen=True, kw_only=True)
class _Written:
    """What a server has written up to a moment: in all, and into its log."""

    at_s: float
    written_bytes: int
    log_bytes: int

    @classmethod
    def look(cls, served: Served) -> _Written:
        return cls(
            at_s=trio.current_time(),
            written_bytes=process.usage(served.server.pids()).written_bytes,
            log_bytes=served.server.log_path.stat().st_size,
        )

    def tell(self, meter: Meter, served: Served, *, flushed: float) -> None:
        """Say what is written in an hour: what was since then, as often as it fits, and what is seldomer."""
        now = _Written.look(served)
        watched_s = now.at_s - self.at_s
        seen = now.written_bytes - self.written_bytes
        per_hour = seen * HOUR_S / watched_s
        note = f"{seen} bytes in {watched_s:.0f} s, and so on for an hour"
        if flushed:
            rarely = FLUSHES_PER_HOUR * flushed
            note += f"; with {FLUSHES_PER_HOUR} flushes of when nodes were heard of, {flushed:.0f} bytes each in the store alone"
            meter.figure("flushed_per_hour", rarely, "bytes", note="of it, when nodes were heard of")
            per_hour += rarely
        logged = (now.log_bytes - self.log_bytes) * HOUR_S / watched_s
        meter.figure(
            "logged_per_hour", logged, "bytes", note="of it, the log: here a file, else the journal's"
        )
        meter.figure("written_per_hour", per_hour, "bytes", note=note)


async def _flush_bytes(bench: Bench) -> float:
    """Return what writing down when all nodes were heard of writes to the disk: it happens too seldom to be waited for."""
    async with caged.store(bench) as store:
        await store.do(Prepare(nodes=bench.count(NODES, QUICK_NODES)))
        done = await store.do(Growth(what="reports", count=4))
    figure = done.figures.get("written_bytes_each")
    return 0.0 if figure is None else figure.value


def _first_answer(meter: Meter) -> None:
    """Say it as one number: of a few starts there are no percentiles."""
    middle = meter.latency.value_at(50) / NS_PER_S
    note = f"after the start; the median of {meter.requests}" if meter.requests > 1 else "after the start"
    meter.figure("first_answer", middle, "s", note=note)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


SERVER_BYTES: Final = 120 * MIB

NEEDS_OWN: Final = "it starts servers"

SCENARIOS: Final = (
    Scenario(
        name="start.import",
        proves="time and memory of each package, in an interpreter that has none of the others",
        run=imports,
        cases=tuple(PACKAGES),
        quick_s=0,
        full_s=20,
        ram_bytes=70 * MIB,
        needs_own=NEEDS_OWN,
    ),
    Scenario(
        name="start.cold",
        proves="the first answer of a server none of whose files is in memory",
        run=cold,
        quick_s=0,
        full_s=20,
        ram_bytes=SERVER_BYTES,
        needs_own=NEEDS_OWN,
    ),
    Scenario(
        name="start.warm",
        proves="the first answer of a server that ran a moment ago",
        run=warm,
        quick_s=4,
        full_s=15,
        ram_bytes=SERVER_BYTES,
        needs_own=NEEDS_OWN,
    ),
    Scenario(
        name="start.pyz_first_run",
        proves="the first answer of a file that was just copied here: it unpacks itself first",
        run=pyz_first_run,
        quick_s=0,
        full_s=12,
        ram_bytes=SERVER_BYTES,
        needs_own=NEEDS_OWN,
    ),
    Scenario(
        name="start.idle_cost",
        proves="memory, processor and bytes written of 1,000 nodes: registered, polling, held",
        run=idle_cost,
        cases=("registered", "polling", "longpoll"),
        quick_s=0,
        full_s=210,
        ram_bytes=2 * SERVER_BYTES,
        needs_own=NEEDS_OWN,
    ),
)
