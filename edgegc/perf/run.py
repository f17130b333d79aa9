"""``perf run``: which scenarios in which order, how often, the references in between, and the report after each of them.

Knows no scenario's inside and nothing of terminals: who watches is told through an :class:`Observer`.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import psutil
import trio

from edgegc import errors
from edgegc.perf import cages, cpus, filesystem, host, network, result, thresholds, units
from edgegc.perf.bench import Bench, Found, Laboratory
from edgegc.perf.result import Case, Measurement, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from edgegc.perf.bench import Companion, Suite
    from edgegc.perf.device import Device
    from edgegc.perf.ground import Elsewhere
    from edgegc.perf.result import Status
    from edgegc.perf.scenario import Need, Scenario
    from edgegc.perf.thresholds import Threshold

FAILED: Final = 1
INVALID: Final = 5
MISSED: Final = 99
INTERRUPTED: Final = 130
"""Exit codes, as scripts know them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is to be measured, and how."""

    scenarios: tuple[Scenario, ...]
    suite: Suite = "full"
    repeat: int = 1
    retries: int = 0
    """How often at most a scenario is measured once more while a case of it can't be trusted. All that was measured stays."""
    seed: int = 0
    device: Device | None = None
    command: tuple[str, ...] | None = None
    """How another release is started; None: this very program."""
    release: Mapping[str, str] = field(default_factory=dict)
    """What that release says of itself."""
    elsewhere: Elsewhere | None = None
    """A server that runs already, to be asked instead of our own."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """At which to ask open loads, a second, by the case's name. What is not in it each run decides for itself."""
    nebula: Path | None = None
    directory: Path
    """In which the servers keep their data."""
    argv: tuple[str, ...] = ()
    """As the report shows it: without paths, addresses and tokens."""
    thresholds: tuple[Threshold, ...] = ()
    warnings: tuple[str, ...] = ()

    def estimate_s(self, scenario: Scenario) -> float:
        """Return about how long one repetition of a scenario takes."""
        return (scenario.quick_s if self.suite == "quick" else 0.0) or scenario.full_s


class Observer(Protocol):
    """Who watches a run."""

    def begins(self, scenario: Scenario, repetition: int, left_s: float) -> None:
        """Hear that a repetition begins, and about how long it and all that follow will take."""

    def ends(self, cases: Sequence[Case]) -> None:
        """Hear what its scenario's cases have come to so far."""


@dataclass
class _Gathered:
    """What is known of one scenario, or of one reference, over its repetitions."""

    scenario: str
    proves: str
    cases: tuple[str, ...]
    in_process: bool = False
    found: dict[str, Found] = field(default_factory=dict)
    trouble: dict[str, tuple[Status, list[str]]] = field(default_factory=dict)
    """Of a case: why a repetition of it measured nothing."""

    def add(self, found: Mapping[str, Found]) -> None:
        for case, one in found.items():
            if one.unavailable:
                self.trouble_with(case, "unavailable", one.unavailable)
            known = self.found.get(case)
            if known is None:
                self.found[case] = one
            else:
                known.measurements += one.measurements
                known.parameters |= one.parameters

    def trouble_with(self, case: str, status: Status, why: str) -> None:
        _, reasons = self.trouble.setdefault(case, (status, []))
        if why not in reasons:
            reasons.append(why)

    def build(self) -> Iterator[Case]:
        for case in self.cases:
            found = self.found.get(case)
            measurements = tuple(found.measurements) if found else ()
            if not measurements and case not in self.trouble:
                continue
            status, reasons = self._status(case, measurements)
            yield Case(
                scenario=self.scenario,
                case=case,
                proves=self.proves,
                status=status,
                reasons=tuple(reasons),
                in_process=self.in_process,
                parameters=found.parameters if found else {},
                measurements=measurements,
            )

    def _status(self, case: str, measurements: Sequence[Measurement]) -> tuple[Status, list[str]]:
        if case in self.trouble:
            return self.trouble[case]
        untrusted = [each for each in measurements if each.invalid]
        reasons = list(dict.fromkeys(why for each in untrusted for why in each.invalid))
        return ("invalid" if len(untrusted) == len(measurements) else "ok"), reasons


class _Course:
    """All that a run knows, and the report of it as far as it has come. Making it takes some milliseconds."""

    def __init__(self, options: Options, *, emulated: result.Device | None) -> None:
        self._options = options
        self._emulated = emulated
        self._made_at = int(time.time())
        self._began_s = time.monotonic()
        self._versions = {**host.versions(options.nebula), **options.release}
        self.host = host.glance(options.directory, asks=options.elsewhere.host if options.elsewhere else None)
        self.cpus = cpus.cpus()
        self.warnings = [*options.warnings, *filter(None, [self.cpus.warning])]
        self.cases = {
            scenario.name: _Gathered(
                scenario.name, scenario.proves, scenario.cases, in_process=scenario.in_process
            )
            for scenario in options.scenarios
        }
        self.references: dict[str, _Gathered] = {}
        self._beside: dict[str, set[str]] = {}
        """Which references stand beside a scenario's cases."""

    def is_spoiled(self, scenario: Scenario) -> bool:
        """Whether a case of a scenario, or what it is compared with, was measured and can't be trusted."""
        references = (self.references[name] for name in self._beside.get(scenario.name, ()))
        gathered = (self.cases[scenario.name], *references)
        return any(case.status == "invalid" for each in gathered for case in each.build())

    def take(self, scenario: Scenario, companion: Companion) -> None:
        """Take what a reference came to beside a case, where it is shown."""
        standard = companion.standard
        if not standard.case:
            return
        name = f"{standard.reference}[{standard.case}]"
        self._beside.setdefault(scenario.name, set()).add(name)
        known = self.references.setdefault(
            name,
            _Gathered(
                standard.reference,
                f"what {standard.beside} is compared with on this machine",
                (standard.case,),
            ),
        )
        if companion.missing:
            known.trouble_with(standard.case, "unavailable", companion.missing)
        known.add(companion.found)

    def report(self, *, partial: bool) -> Report:
        """Return what there is."""
        options = self._options
        cases = tuple(case for each in self.cases.values() for case in each.build())
        references = tuple(case for each in self.references.values() for case in each.build())
        return Report(
            made_at=self._made_at,
            duration_s=time.monotonic() - self._began_s,
            argv=options.argv,
            suite=options.suite,
            seed=options.seed,
            repeat=options.repeat,
            partial=partial,
            host=self.host,
            device=self._emulated,
            versions=self._versions,
            references=references,
            cases=cases,
            verdicts=thresholds.judge(
                options.thresholds, cases, references, emulated=self._emulated is not None
            ),
            warnings=tuple(self.warnings),
        )


def unmeasured(options: Options) -> Report:
    """Return the report of a run that was ended before it began."""
    emulated = None
    with suppress(errors.Error):  # that it can't be emulated would have been said later
        emulated = _emulated(options.device)
    return _Course(options, emulated=emulated).report(partial=True)


async def run(options: Options, *, observer: Observer, write: Callable[[Report], None]) -> Report:
    """Measure, and return the report; ``write`` gets what there is after each repetition of a scenario.

    SIGINT and SIGTERM end it: what was measured by then is the report, marked ``partial``. What a scenario can't measure is in
    the report as well. Raises Unavailable where nothing can be measured at all, and Invalid for a device that can't be.
    """
    filesystem.workplace(options.directory)
    course = _Course(options, emulated=_emulated(options.device))
    laboratory = Laboratory(
        suite=options.suite,
        seed=options.seed,
        directory=options.directory,
        cpus=course.cpus,
        device=options.device,
        nebula=options.nebula,
        command=options.command,
        elsewhere=options.elsewhere,
        limits=thresholds.latency_limits(options.thresholds),
        rates=dict(options.rates),
    )

    async def measure(turns: Sequence[tuple[Scenario, int]]) -> None:
        left_s = sum(options.estimate_s(scenario) for scenario, _ in turns)
        for scenario, repetition in turns:
            observer.begins(scenario, repetition, left_s)
            await _repetition(laboratory, scenario, repetition, course)
            left_s -= options.estimate_s(scenario)
            write(course.report(partial=True))
            observer.ends(tuple(course.cases[scenario.name].build()))

    complete = False
    async with trio.open_nursery() as nursery:
        await nursery.start(_cancel_on_signal, nursery.cancel_scope)
        course.host = await host.describe(course.host, options.directory)
        every = range(options.repeat)
        await measure([(scenario, repetition) for repetition in every for scenario in options.scenarios])
        for retry in range(options.repeat, options.repeat + options.retries):
            # Last of all: what spoiled it may be over by then.
            await measure([(each, retry) for each in options.scenarios if course.is_spoiled(each)])
        complete = True
        nursery.cancel_scope.cancel()
    final = course.report(partial=not complete)
    write(final)
    return final


def _emulated(wanted: Device | None) -> result.Device | None:
    """Return how a device is emulated here. Raises Unavailable, or Invalid for one that can't be."""
    if wanted is None:
        return None
    with cages.cage(wanted) as cage:
        return cage.described


def exit_code(report: Report) -> int:
    """Return what a run's process ends with, the gravest thing first; goals that are missed are no failure."""
    cases = (*report.references, *report.cases)
    if report.partial:
        return INTERRUPTED
    if any(case.status == "failed" for case in cases):
        return FAILED
    if any(case.status == "invalid" for case in cases):
        return INVALID
    if any(verdict.held is False for verdict in report.verdicts if verdict.kind == "floor"):
        return MISSED
    return 0


async def _cancel_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


async def _repetition(laboratory: Laboratory, scenario: Scenario, repetition: int, course: _Course) -> None:
    """Run one repetition of a scenario; what it measured is kept, also when it is cancelled or fails half-way."""
    known = course.cases[scenario.name]
    bench = Bench(laboratory, scenario=scenario.name, cases=scenario.cases, repetition=repetition)
    status: Status = "ok"
    why = ""
    try:
        lacking = lacks(
            scenario.needs,
            nebula=laboratory.nebula,
            ram_bytes=scenario.ram_bytes,
            free_bytes=psutil.virtual_memory().available,
        )
        if laboratory.elsewhere is not None and scenario.needs_own:
            lacking = f"left out with --url: {scenario.needs_own}"
        elif laboratory.command is not None and scenario.in_process:
            lacking = "it would measure this program's store, not the other's: have that one measure itself"
        if lacking:
            status, why = "unavailable", lacking
        else:
            await scenario.run(bench)
    except Exception as raised:
        # What a scenario dies of that is being cancelled is no finding.
        await trio.lowlevel.checkpoint_if_cancelled()
        status, why = _explain(raised)
    finally:
        known.add(bench.found)
        for companion in bench.companions:
            course.take(scenario, companion)
        course.warnings += [each for each in bench.warnings if each not in course.warnings]
    if why:
        for case in scenario.cases:
            if case not in bench.found:
                known.trouble_with(case, status, why)
    elif laboratory.suite == "full":
        for case in scenario.cases:
            if case not in bench.found:
                known.trouble_with(case, "failed", "the scenario announces it and did not measure it")


def lacks(needs: Iterable[Need], *, nebula: Path | None, ram_bytes: int, free_bytes: int) -> str:
    """Return the sentence about what this machine lacks of what a scenario needs; empty where it has it all."""
    if free_bytes < ram_bytes:
        return f"it takes some {units.size(ram_bytes)} of memory, and {units.size(free_bytes)} are free"
    for need in sorted(needs):
        if need == "root" and os.geteuid() != 0:
            return "it needs root: run it with sudo"
        if need == "namespaces" and (missing := network.missing()):
            return missing
        if need == "nebula" and nebula is None:
            return "it needs nebula, which is not in PATH: apt install nebula, or name it with --nebula PATH"
    return ""


def _explain(raised: Exception) -> tuple[Status, str]:
    """Return what an exception makes of a case, and why: what this machine lacks, or what broke."""
    while isinstance(raised, ExceptionGroup):
        raised = raised.exceptions[0]
    match raised:
        case errors.Unavailable():
            return "unavailable", raised.message
        case errors.Error():
            return "failed", raised.message
        case _:
            if os.environ.get("EDGEGC_DEBUG"):
                traceback.print_exception(raised)
            where = traceback.extract_tb(raised.__traceback__)[-1]
            return "failed", (
                f"internal error: {type(raised).__name__}: {raised} "
                f"({Path(where.filename).name}:{where.lineno}; EDGEGC_DEBUG=1 shows more)"
            )
