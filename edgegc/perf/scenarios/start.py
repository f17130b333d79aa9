"""``start.*``: what it takes a server to start: its files in memory, not in memory, not even unpacked. Also lists its neighbours.

Knows no server's inside. Whatever starts here is in the device's control groups. What packages cost, and what a server costs that
has nothing to do, are in modules of their own beside this one.
"""

from __future__ import annotations

import os
import signal
import sysconfig
import zipfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

import edgegc
from edgegc.errors import Unavailable
from edgegc.perf import filesystem, page_cache, process, respawn, server
from edgegc.perf.scenario import Scenario
from edgegc.perf.scenarios import caged
from edgegc.perf.scenarios.idle import idle_cost
from edgegc.perf.scenarios.imports import PACKAGES, imports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgegc.perf.bench import Bench
    from edgegc.perf.meter import Meter

MIB: Final = 1024 * 1024
NODES: Final = 1000
QUICK_NODES: Final = 100
NS_PER_S: Final = 1_000_000_000

MOSTLY_PERCENT: Final = 50.0
"""Of a server's files: with more of them still in memory, a start is not cold."""


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
