"""What a scenario may use: servers of its own, references, load, and measurements that are watched, judged and kept.

Knows no scenario. One bench is one repetition of one scenario; what it measured is in :attr:`Bench.found`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import trio

from edgegc.errors import Error, Unavailable
from edgegc.perf import cages, ground, monitor, process, references, seed, server, surroundings, validity
from edgegc.perf.generator import client as generator
from edgegc.perf.ground import Ground
from edgegc.perf.meter import Meter
from edgegc.perf.monitor import Processes
from edgegc.perf.result import Measurement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from edgegc.perf.beside import Beside
    from edgegc.perf.cages import Cage
    from edgegc.perf.cpus import Cpus
    from edgegc.perf.device import Device
    from edgegc.perf.ground import Elsewhere
    from edgegc.perf.monitor import Watch, Watched
    from edgegc.perf.plan import Load, Plan, Progress
    from edgegc.perf.references import Running
    from edgegc.perf.result import Model, Sample
    from edgegc.perf.seed import Seeded
    from edgegc.perf.server import Server
    from edgegc.perf.surroundings import Surroundings

Suite = Literal["quick", "full"]

SETTLED_SHARE: Final = 0.05
"""Of a processor: a server that uses less has done with what it was seeded with."""
SETTLE_LOOK_S: Final = 0.25
SETTLE_S: Final = 10.0
"""What has not settled by then is measured all the same: housekeeping is part of what a server does."""
CLEAR_TEXT: Final = "left out with --url: it asks over TLS, and the server speaks clear text"
NOT_CLEAR_TEXT: Final = "left out with --url: it asks in clear text, and the server speaks TLS"


Around = Callable[[str, Meter, Sequence[int]], AbstractAsyncContextManager[None]]
"""Given the case, its meter, and the processes that are watched."""


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """What all repetitions of a run have in common."""

    suite: Suite
    seed: int
    directory: Path
    """Where servers keep their data: on the file system that is to be measured."""
    cpus: Cpus
    device: Device | None = None
    nebula: Path | None = None
    command: tuple[str, ...] | None = None
    """How another release is started; None: this very program."""
    elsewhere: Elsewhere | None = None
    """A server that runs already, which is asked instead of our own."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """What the p99 latency of a case is held to, in seconds, by the case's name."""
    rates: dict[str, float] = field(default_factory=dict)
    """Of open loads, a second, by the case's name: what a repetition decided on is kept by those that follow."""
    around: Around | None = None
    """Entered around each measurement, by a profiler."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that was started and seeded for this repetition."""

    server: Server
    seeded: Seeded


@dataclass(kw_only=True)
class Found:
    """What a repetition found out about one case."""

    parameters: dict[str, str | int | float | bool] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    unavailable: str = ""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A reference that stood beside a case. ``missing``: why it could not."""

    standard: Beside
    found: Mapping[str, Found]
    missing: str = ""


class Bench:
    """One repetition of one scenario."""

    def __init__(
        self,
        laboratory: Laboratory,
        *,
        scenario: str,
        cases: Sequence[str],
        repetition: int,
    ) -> None:
        self.laboratory = laboratory
        self.suite = laboratory.suite
        self.seed = laboratory.seed
        self.device = laboratory.device
        self.nebula = laboratory.nebula
        self.cpus = laboratory.cpus
        self.scenario = scenario
        self.cases = tuple(cases)
        self.repetition = repetition
        self.random = random.Random(f"{laboratory.seed} {scenario} {repetition}")
        """The same for the same seed; what comes out of it differs from repetition to repetition."""
        self.found: dict[str, Found] = {}
        self.warnings: list[str] = []
        """What must be said beside all that was measured."""
        self.companions: list[Companion] = []
        """The references that stood beside its cases."""
        self._cages: dict[int, Cage] = {}
        self._measuring: Meter | None = None

    def name_of(self, case: str) -> str:
        """Return a case's full name."""
        return f"{self.scenario}[{case}]" if case else self.scenario

    def seconds(self, full: float, quick: float = 1.0) -> float:
        """Return how long something takes in this suite."""
        return full if self.suite == "full" else quick

    def count(self, full: int, quick: int) -> int:
        """Return how many there are in this suite."""
        return full if self.suite == "full" else quick

    @asynccontextmanager
    async def server(
        self,
        *,
        nodes: int = 1000,
        keys: bool = True,
        tls: bool = False,
        limits: bool = False,
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        inside: Sequence[str] = (),
    ) -> AsyncIterator[Served]:
        """Start a server in an empty data directory, seed it, let it settle; stop and delete it afterwards.

        ``inside``: words that bring it into a namespace, see :class:`edgegc.perf.server.ServerOptions`. It is in the
        device's control groups, and on the server's processor. Raises Error where it does not start, and Unavailable in a
        run that is to ask one that runs already.
        """
        if self.laboratory.elsewhere is not None:
            raise Unavailable("left out with --url: it needs a server of its own")
        async with AsyncExitStack() as stack:
            cage = stack.enter_context(cages.cage(self.device)) if self.device else None
            options = server.ServerOptions(
                command=self.laboratory.command,
                arguments=tuple(arguments),
                inside=tuple(inside),
                tls=tls,
                limits=limits,
                environ=dict(environ or {}),
                nebula=self.nebula,
                directory=self.laboratory.directory,
            )
            try:
                started = await stack.enter_async_context(
                    server.serving(options, cage=cage, cpu=self.cpus.server)
                )
                for each in started.warnings:
                    self._warn(each)
                seeded = await seed.seed(started, nodes=nodes, keys=keys, seed=self.seed)
                await self.settle(started.pid)
            except Unavailable as raised:
                raise Error(raised.message) from raised
            yield Served(server=started, seeded=seeded)

    @asynccontextmanager
    async def ground(
        self,
        *,
        nodes: int = 1000,
        keys: bool = True,
        tls: bool = False,
        limits: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Ground]:
        """Have a server with so many nodes in it: one of our own, as :meth:`server` starts it, or the one at ``--url``.

        That one keeps its settings, and is asked as its URL says. Raises Unavailable where it would have to speak TLS and
        does not, errors.Error as it says it.
        """
        elsewhere = self.laboratory.elsewhere
        if elsewhere is None:
            async with self.server(nodes=nodes, keys=keys, tls=tls, limits=limits, environ=environ) as served:
                yield Ground(
                    target=served.server.target,
                    admin=served.server.admin,
                    seeded=served.seeded,
                    watched=served.server,
                )
            return
        if tls and not elsewhere.target.tls:
            raise Unavailable(CLEAR_TEXT)
        async with ground.borrowed(
            elsewhere, nodes=nodes, keys=keys, seed_number=self.seed, warn=self._warn
        ) as place:
            if isinstance(place.watched, Processes):
                await self.settle(place.watched.roots[0])
            yield place

    def speaks(self, case: str, *, tls: bool) -> bool:
        """Return whether the server can be asked with TLS, or without; where it can't, that is said of the case."""
        elsewhere = self.laboratory.elsewhere
        if elsewhere is None or elsewhere.target.tls == tls:
            return True
        self.unavailable(case, CLEAR_TEXT if tls else NOT_CLEAR_TEXT)
        return False

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    @asynccontextmanager
    async def reference(self, name: references.Name, **options: Any) -> AsyncIterator[Running]:
        """Run a reference where a server would run: the same control groups, the same processor."""
        async with AsyncExitStack() as stack:
            cage = stack.enter_context(cages.cage(self.device)) if self.device else None
            running = await stack.enter_async_context(
                references.running(name, cpu=self.cpus.server, cage=cage, **options)
            )
            if cage is not None:
                self._cages[running.pid] = cage
            yield running

    async def settle(self, pid: int) -> None:
        """Wait until a process does nothing to speak of; at most some seconds."""
        deadline = trio.current_time() + SETTLE_S
        before = process.usage(process.tree(pid)).cpu_s
        while trio.current_time() < deadline:
            await trio.sleep(SETTLE_LOOK_S)
            after = process.usage(process.tree(pid)).cpu_s
            if after - before <= SETTLED_SHARE * SETTLE_LOOK_S:
                return
            before = after

    async def load(
        self,
        plan: Plan,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        stop: trio.Event | None = None,
    ) -> Load:
        """Have the generator make a load, on its own processor, as :func:`edgegc.perf.generator.client.run` says.

        Raises Unavailable where the target can't be reached. Cancellation ends the generator.
        """
        if plan.cpu is None:
            plan = msgspec.structs.replace(plan, cpu=self.cpus.generator)
        if self._measuring is not None:
            self._measuring.plans.append(plan)
        return await generator.run(plan, on_progress=on_progress, stop=stop)

    async def in_turns(self, plans: Sequence[Plan], *, turn_s: float) -> tuple[Load, ...]:
        """Have the generator make closed loads in turns, the measured one first; raises and is cancelled like :meth:`load`."""
        own, *others = [msgspec.structs.replace(plan, cpu=self.cpus.generator) for plan in plans]
        if self._measuring is not None:
            self._measuring.plans.append(own)
        return await generator.in_turns((own, *others), turn_s=turn_s)

    @asynccontextmanager
    async def measure(
        self,
        case: str = "",
        *,
        model: Model,
        of: Served | Watched | Running | Sequence[int] | None = None,
        parameters: Mapping[str, str | int | float | bool] | None = None,
    ) -> AsyncIterator[Meter]:
        """Measure one case: sample ``of`` once a second while inside, judge, and write the measurement down on leaving.

        ``case`` is one that the scenario announces. ``of``: a server, a reference, or processes, each with its children.
        What is raised inside is raised, and nothing is written down then.
        """
        if case not in self.cases:
            raise ValueError(f"{self.scenario} announces no case {case!r}")
        watched = _watched(of)
        # A server and a store's process know theirs.
        cage: Cage | None = getattr(watched, "cage", None) or self._cages.get(getattr(of, "pid", 0))
        throttled_s = cage.throttled_s() if cage else 0.0
        killed = cage.oom_kills() if cage else 0
        samples: list[Sample] = []
        named = watched.roots if isinstance(watched, Processes) else ()
        before = surroundings.look(named)
        meter = Meter(model=model, watched=watched)
        self._measuring = meter
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                watch: Watch | None = None
                if watched is not None:
                    watch = await nursery.start(partial(monitor.sample, watched, into=samples))
                try:
                    async with self._around(case, meter, watched):
                        yield meter
                except Exception as raised:
                    # Raised below, so that it leaves as what it is and not as a member of the nursery's group.
                    failure = raised
                nursery.cancel_scope.cancel()
                if watch is not None and failure is None:
                    try:
                        samples.append(watch.sample())
                    except process.Gone:
                        ended = (
                            watched.ending()
                            if isinstance(watched, server.Server)
                            else "what was measured had ended"
                        )
                        meter.invalid(f"{ended} before the measurement did")
        finally:
            self._measuring = None
        if failure is not None:
            raise failure
        after = surroundings.look(named)
        if cage is not None:
            _tell_memory(meter, cage, kills=cage.oom_kills() - killed)
        self._write_down(
            case,
            meter,
            parameters=parameters or {},
            samples=samples,
            before=before,
            after=after,
            throttled_s=cage.throttled_s() - throttled_s if cage else 0.0,
        )

    def _around(self, case: str, meter: Meter, watched: Watched | None) -> AbstractAsyncContextManager[None]:
        around = self.laboratory.around
        if around is None:
            return nullcontext()
        return around(case, meter, watched.pids() if watched is not None else ())

    def unavailable(self, case: str, why: str) -> None:
        """Say that this machine lacks what a case needs: a sentence."""
        self.found.setdefault(case, Found()).unavailable = why

    def _write_down(
        self,
        case: str,
        meter: Meter,
        *,
        parameters: Mapping[str, str | int | float | bool],
        samples: Sequence[Sample],
        before: Surroundings,
        after: Surroundings,
        throttled_s: float,
    ) -> None:
        # What was sampled while the generator started and warmed up lies before zero.
        offset_s = meter.began_at - meter.entered_at if meter.began_at is not None else 0.0
        duration_s = meter.load_s or after.at_s - before.at_s
        for why in validity.of_load(
            model=meter.model,
            latency=meter.latency,
            lag=meter.lag,
            dropped=meter.dropped,
            generator_cpu_s=meter.generator_cpu_s,
            duration_s=duration_s,
            limit_s=self.laboratory.limits.get(self.name_of(case)),
        ):
            meter.invalid(why)
        for why in validity.of_host(before, after):
            meter.invalid(why)
        found = self.found.setdefault(case, Found())
        found.parameters |= dict(parameters)
        if self.laboratory.elsewhere is not None:
            # Under settings that we don't know: it compares with its own kind.
            found.parameters |= {"server": "at --url", "tls": self.laboratory.elsewhere.target.tls}
        found.measurements.append(
            Measurement(
                repetition=self.repetition,
                model=meter.model,
                duration_s=duration_s,
                requests=meter.requests,
                errors=meter.errors,
                latency=meter.latency.counts(),
                lag=meter.lag.counts(),
                per_second=tuple(meter.per_second),
                figures=meter.figures,
                samples=tuple(msgspec.structs.replace(each, at_s=each.at_s - offset_s) for each in samples),
                marks=tuple(msgspec.structs.replace(each, at_s=each.at_s - offset_s) for each in meter.marks),
                generator_cpu_s=meter.generator_cpu_s,
                server_cpu_s=monitor.cpu_between(samples, offset_s, offset_s + duration_s)
                if meter.server_cpu_s is None
                else meter.server_cpu_s,
                throttled_s=throttled_s,
                paces=meter.paces,
                invalid=tuple(meter.reasons),
            )
        )


def _watched(of: Served | Watched | Running | Sequence[int] | None) -> Watched | None:
    match of:
        case None:
            return None
        case Served():
            return of.server
        case references.Running():
            return Processes((of.pid,))
        case Sequence():
            return Processes(of)
        case _:
            return of


def _tell_memory(meter: Meter, cage: Cage, *, kills: int) -> None:
    peak = cage.peak_bytes()
    if peak is not None:
        meter.figure("cage peak", peak, "bytes", note="since the server was started, page cache included")
    if kills:
        meter.figure("killed for memory", kills, "count")
        meter.invalid(f"the memory limit of {cage.device} killed {kills} of its processes")
