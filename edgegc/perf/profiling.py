"""``perf profile``: runs a scenario as ``perf run`` does, and finds out where its processes spend time or memory, or wait.

Only what lies in measured time counts, and only what is measured: never the generator. Knows no scenario's inside. What is
measured is slower meanwhile; how much slower it says.
"""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psutil
import trio

from edgegc.errors import Unavailable
from edgegc.perf import cpus, filesystem, process, respawn
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.profiler import recording, sampler, tools
from edgegc.perf.profiler.profile import Profile, named
from edgegc.perf.run import lacks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from pathlib import Path

    from edgegc.perf.bench import Suite
    from edgegc.perf.device import Device
    from edgegc.perf.meter import Meter
    from edgegc.perf.profiler.recording import Kind, Recording
    from edgegc.perf.profiler.tools import Tool
    from edgegc.perf.scenario import Scenario

SNAPSHOT_S: Final = 120.0
"""How long a process may take to look through its memory: a million allocations take 10 s here."""
POLL_S: Final = 0.02
NS_PER_S: Final = 1_000_000_000
COMMAND: Final = ("perf", "_profiled")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be profiled, and how."""

    scenario: Scenario
    kind: Kind
    tool: Tool
    suite: Suite = "full"
    seed: int = 0
    device: Device | None = None
    nebula: Path | None = None
    directory: Path
    """In which the servers keep their data."""


@dataclass(kw_only=True)
class Profiled:
    """What was found out about one case, or about processes of one kind in it."""

    case: str
    process: str = ""
    """``edgegc agent``, where there are several kinds of processes, or not those that are watched: they don't add up."""
    profile: Profile
    duration_s: float
    requests: int
    cpu_s: float | None
    """That the measured processes used, by the kernel's count."""
    grown: Profile | None = None
    """Of memory: what was held at the end and not at the beginning."""
    blocks: int = 0
    samples: int = 0
    cost: float | None = None
    """Of the sampler's: a share of the CPU time, of the time, or bytes."""

    @property
    def name(self) -> str:
        """The case and the processes, as far as there is something to tell apart."""
        return ", ".join(filter(None, (self.case, self.process)))


@dataclass(kw_only=True)
class Profiling:
    """All that was found out."""

    cases: list[Profiled] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Window:
    """The measured time of one case, on the monotonic clock."""

    case: str
    number: int
    pids: tuple[int, ...] = ()
    """That are watched: what the kernel says of CPU time is theirs."""
    begin_ns: int = 0
    end_ns: int = 0
    files: list[Path] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """How long it was."""
        return (self.end_ns - self.begin_ns) / NS_PER_S


async def run(options: Options) -> Profiling:
    """Run a scenario once and return the profiles of its cases.

    Raises Unavailable where this machine lacks what the scenario or the tool needs, and what the scenario raises. Cancelled,
    it ends all that it started.
    """
    scenario = options.scenario
    if why := lacks(
        scenario.needs,
        nebula=options.nebula,
        ram_bytes=scenario.ram_bytes,
        free_bytes=psutil.virtual_memory().available,
    ):
        raise Unavailable(f"{scenario.name}: {why}")
    with filesystem.temporary(options.directory) as spool:
        # Agents and the like may run as somebody else, and nobody else finds it.
        profiler = Profiler(options.kind, options.tool, spool)
        laboratory = Laboratory(
            suite=options.suite,
            seed=options.seed,
            directory=options.directory,
            cpus=cpus.cpus(),
            device=options.device,
            nebula=options.nebula,
            around=profiler.around,
        )
        bench = Bench(laboratory, scenario=scenario.name, cases=scenario.cases, repetition=0)
        with respawn.through(*profiler.words):
            await scenario.run(bench)
        return profiler.found(bench)


class Profiler:
    """Marks the measured time of each case, for samplers inside of processes, and reads what they wrote."""

    def __init__(self, kind: Kind, tool: Tool, spool: Path) -> None:
        self._kind = kind
        self._tool: Tool = tool
        self._spool = spool
        self._windows: list[Window] = []
        self._number = 0
        self._say_window()

    @property
    def words(self) -> tuple[str, ...]:
        """What stands before the command of a process that is to be profiled."""
        if self._tool == tools.PY_SPY:
            return ()
        return (*COMMAND, self._kind, self._tool, os.fspath(self._spool))

    @asynccontextmanager
    async def around(self, case: str, meter: Meter, pids: Sequence[int]) -> AsyncIterator[None]:
        """Hold what is measured in here to be a window of that case."""
        window = Window(case=case, number=self._number + 1, pids=tuple(pids))
        if self._tool == tools.PY_SPY:
            async with tools.py_spy(pids, self._spool) as window.files:
                window.begin_ns = time.monotonic_ns()
                yield
                window.end_ns = time.monotonic_ns()
        else:
            await self._turn()
            window.begin_ns = time.monotonic_ns()
            yield
            window.end_ns = time.monotonic_ns()
            window.number = self._number + 1
            await self._turn()
        if meter.began_at is not None and self._tool == sampler.OWN and self._kind != "memory":
            # Without what was before the measured time: the generator's start, connecting, the warm-up.
            window.begin_ns = int((meter.entered_s + meter.began_at - meter.entered_at) * NS_PER_S)
            if len(meter.plans) == 1:
                window.end_ns = window.begin_ns + int(meter.load_s * NS_PER_S)
        self._windows.append(window)

    def found(self, bench: Bench) -> Profiling:
        """Return what was found out, once all that was profiled has ended."""
        result = Profiling(warnings=list(bench.warnings))
        if self._tool == sampler.MEMRAY:
            result.cases.append(self._of_memray())
            return result
        recordings = [recording.read(path) for path in sorted(self._spool.glob(f"*{recording.SUFFIX}"))]
        for window in self._windows:
            measurements = bench.found[window.case].measurements if window.case in bench.found else []
            requests = sum(each.requests for each in measurements)
            used = [each.server_cpu_s for each in measurements if each.server_cpu_s is not None]
            cpu_s = sum(used) if used else None
            if self._tool == tools.PY_SPY:
                result.cases.append(self._of_py_spy(window, requests=requests, cpu_s=cpu_s))
            else:
                result.cases += self.of_window(window, recordings, requests=requests, cpu_s=cpu_s)
        return result

    def of_window(
        self, window: Window, recordings: Sequence[Recording], *, requests: int, cpu_s: float | None
    ) -> list[Profiled]:
        """Return the profile of a window, of several kinds of processes one each."""
        kinds: dict[str, list[Recording]] = {}
        for each in recordings:
            if _is_in(each, window):
                kinds.setdefault(" ".join(("edgegc", *_verbs(each.words))), []).append(each)
        found = []
        for kind, some in sorted(kinds.items()) or [("", [])]:
            watched = not window.pids or any(each.pid in window.pids for each in some)
            found.append(
                self._of_kind(
                    window,
                    some,
                    process=kind if len(kinds) > 1 or not watched else "",
                    requests=requests,
                    cpu_s=cpu_s if watched else None,
                )
            )
        return found

    def _of_kind(
        self,
        window: Window,
        recordings: Sequence[Recording],
        *,
        process: str,
        requests: int,
        cpu_s: float | None,
    ) -> Profiled:
        profile = Profile(unit="bytes" if self._kind == "memory" else "s")
        found = Profiled(
            case=window.case,
            process=process,
            profile=profile,
            duration_s=window.duration_s,
            requests=requests,
            cpu_s=cpu_s,
        )
        for each in recordings:
            for sample in each.samples:
                if window.begin_ns <= sample.at_ns <= window.end_ns:
                    profile.add(sample.stack, sample.weight / NS_PER_S)
                    found.samples += 1
            for held in each.held:
                if held.window == window.number:
                    stack = named(held.stack)
                    profile.add(stack, held.bytes)
                    found.grown = found.grown or Profile(unit="bytes")
                    found.grown.add(stack, held.grown)
                    found.blocks += held.blocks
        found.profile = profile.trimmed()
        found.grown = found.grown.trimmed() if found.grown else None
        found.cost = _cost(self._kind, recordings)
        return found

    def _of_py_spy(self, window: Window, *, requests: int, cpu_s: float | None) -> Profiled:
        profile = Profile(unit="s")
        for file in window.files:
            for stack, weight in tools.read_py_spy(file).weights.items():
                profile.add(stack, weight)
        return Profiled(
            case=window.case,
            profile=profile.trimmed(),
            duration_s=window.duration_s,
            requests=requests,
            cpu_s=cpu_s,
            samples=round(profile.total * tools.PY_SPY_PER_S),
        )

    def _of_memray(self) -> Profiled:
        """Return the most that any process held at once: memray knows no windows."""
        profiles = [tools.read_memray(file) for file in self._spool.glob(f"*{tools.MEMRAY_SUFFIX}")]
        if not profiles:
            raise Unavailable("memray wrote nothing: no process of edgegc's own was measured")
        most = max(profiles, key=lambda each: each.total)
        return Profiled(case="", profile=most.trimmed(), duration_s=0.0, requests=0, cpu_s=None)

    async def _turn(self) -> None:
        """Begin or end a window; for memory, wait until every process has looked at what it holds."""
        self._number += 1
        self._say_window()
        if self._kind != "memory" or self._tool != sampler.OWN:
            return
        with trio.move_on_after(SNAPSHOT_S):
            while self._anyone_is_behind():  # noqa: ASYNC110  other processes write files
                await trio.sleep(POLL_S)

    def _anyone_is_behind(self) -> bool:
        """Whether a process that lives has not yet looked at its memory for the present window."""
        return any(
            path.read_bytes() != sampler.written(self._number)
            for path in self._spool.glob(f"*{sampler.DONE_SUFFIX}")
            if process.is_alive(int(path.stem))
        )

    def _say_window(self) -> None:
        fd = os.open(self._spool / sampler.WINDOW_FILE, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, sampler.written(self._number), 0)
        finally:
            os.close(fd)


def _is_in(found: Recording, window: Window) -> bool:
    return any(window.begin_ns <= each.at_ns <= window.end_ns for each in found.samples) or any(
        each.window == window.number for each in found.held
    )


def _verbs(words: Iterable[str]) -> Iterator[str]:
    """Iterate over the words of a command line up to its first option or path."""
    for word in words:
        if word.startswith("-") or os.sep in word:
            return
        yield word


def _cost(kind: Kind, recordings: Sequence[Recording]) -> float | None:
    """Return what sampling cost the processes: a share of the time of their samples, or bytes."""
    if kind == "memory":
        return sum(each.numbers.get(sampler.TRACING_BYTES, 0) for each in recordings) or None
    spent = sum(each.numbers.get(sampler.SPENT, 0) for each in recordings)
    if kind == "cpu":
        of = sum(sample.weight for each in recordings for sample in each.samples)
    else:
        of = sum(each.samples[-1].at_ns - each.samples[0].at_ns for each in recordings if each.samples)
    return spent / (of + spent) if of else None
