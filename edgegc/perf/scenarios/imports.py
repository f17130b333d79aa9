"""What importing costs, of each package alone: time, and memory. Knows of ours only which modules are the largest."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Unavailable
from edgegc.perf import respawn
from edgegc.perf.scenarios import caged

if TYPE_CHECKING:
    from edgegc.perf.bench import Bench

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
