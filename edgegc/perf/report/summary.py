"""What all forms of a report say of a case: its repetitions put together. Knows no form.

Percentiles come from the merged histograms, never from an average of percentiles; what needs more samples than there are
is absent. Where no repetition is valid, the invalid ones are summarised: the numbers are shown, beside the reason why they
prove nothing.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.perf import metrics
from edgegc.perf.histogram import Histogram
from edgegc.perf.result import Case, Figure, Measurement, Model, Status
from edgegc.perf.yardstick import ENOUGH_CPU_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PERCENTS: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
MOST_REASONS: Final = 2


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A case in one row. Times in nanoseconds where the name says so; None is what can't be told."""

    name: str
    scenario: str
    proves: str
    status: Status
    reasons: tuple[str, ...]
    in_process: bool
    parameters: dict[str, str | int | float | bool]
    model: Model
    repetitions: int
    duration_s: float
    requests: int
    errors: dict[str, int]
    throughput: float | None
    """Answers a second; None where there was no load."""
    samples: int
    mean_ns: float | None
    percentiles_ns: dict[float, int | None]
    max_ns: int | None
    lag_p99_ns: int | None
    cpu_s: float | None
    cpu_per_request_s: float | None
    cpu_share: float | None
    """Of one core, while it was measured."""
    rss_bytes: int | None
    """This and what follows: the highest seen."""
    pss_bytes: int | None
    private_bytes: int | None
    fds: int | None
    context_switches: int | None
    """This and the next: in all repetitions together."""
    written_bytes: int | None
    database_bytes: int | None
    wal_bytes: int | None
    throttled_s: float
    figures: dict[str, Figure]
    """Of several repetitions the median."""
    per_second: tuple[int, ...]
    """Of the last repetition."""

    @property
    def failed(self) -> int:
        """How many requests were not answered as they should."""
        return sum(self.errors.values())


def few(reasons: Iterable[str]) -> tuple[str, ...]:
    """Return the first reasons: repetitions mostly suffer from the same, with other numbers."""
    distinct = tuple(dict.fromkeys(reasons))
    more = len(distinct) - MOST_REASONS
    return distinct if more <= 1 else (*distinct[:MOST_REASONS], f"and {more} more of this kind")


def measured(case: Case) -> tuple[Measurement, ...]:
    """Return the repetitions to look at: the valid ones, or all where none is."""
    return tuple(m for m in case.measurements if not m.invalid) or case.measurements


def merged(measurements: Iterable[Measurement]) -> Histogram:
    """Return the latencies of all of them as one histogram."""
    histogram = Histogram()
    for each in measurements:
        histogram.merge(each.latency)
    return histogram


def figures(measurements: Iterable[Measurement]) -> dict[str, Figure]:
    """Return each figure's median over the repetitions that have it, in the order in which they were taken."""
    found: dict[str, list[Figure]] = {}
    for each in measurements:
        for name, value in each.figures.items():
            found.setdefault(name, []).append(value)
    return {
        name: msgspec.structs.replace(values[-1], value=statistics.median(v.value for v in values))
        for name, values in found.items()
    }


def paces(measurements: Iterable[Measurement]) -> dict[str, Figure]:
    """Return how many times as much as each reference that it took turns with a case could do: medians."""
    found: dict[str, list[float]] = {}
    for each in measurements:
        for pace in each.paces:
            found.setdefault(pace.reference, []).append(each.throughput * pace.duration_s / pace.requests)
    return {
        f"beside {name}": Figure(
            value=statistics.median(values),
            unit="ratio",
            better="higher",
            note="throughput, in turns with it",
        )
        for name, values in found.items()
    }


def of(case: Case) -> Summary:
    """Return the summary of a case."""
    used = measured(case)
    latency = merged(used)
    lag = Histogram()
    for each in used:
        lag.merge(each.lag)
    duration = sum(m.duration_s for m in used)
    requests = sum(m.requests for m in used)
    cpu = [m.server_cpu_s for m in used if m.server_cpu_s is not None]
    cpu_s = sum(cpu) if cpu and len(cpu) == len(used) else None
    errors: Counter[str] = Counter()
    for each in used:
        errors.update(each.errors)
    samples = [sample for m in used for sample in m.samples]

    def highest(which: Callable[..., int]) -> int | None:
        return max(map(which, samples)) if samples else None

    model = used[-1].model if used else "none"
    # What is wrong with a repetition is said where the case as a whole does not say it.
    reasons = case.reasons or tuple(why for m in case.measurements for why in m.invalid)
    return Summary(
        name=case.name,
        scenario=case.scenario,
        proves=case.proves,
        status=case.status,
        reasons=few(reasons),
        in_process=case.in_process,
        parameters=case.parameters,
        model=model,
        repetitions=len(used),
        duration_s=duration,
        requests=requests,
        errors=dict(errors),
        throughput=_throughput(case, used) if model != "none" else None,
        samples=latency.count,
        mean_ns=latency.mean_ns,
        percentiles_ns={p: latency.percentile_ns(p) for p in PERCENTS},
        max_ns=latency.max_ns if latency.count else None,
        lag_p99_ns=lag.percentile_ns(99.0),
        cpu_s=cpu_s,
        cpu_per_request_s=cpu_s / requests if cpu_s and requests and cpu_s >= ENOUGH_CPU_S else None,
        cpu_share=cpu_s / duration if cpu_s is not None and duration else None,
        rss_bytes=highest(lambda s: s.rss_bytes),
        pss_bytes=highest(lambda s: s.pss_bytes),
        private_bytes=highest(lambda s: s.private_bytes),
        fds=highest(lambda s: s.fds),
        context_switches=sum(m.samples[-1].context_switches for m in used if m.samples) if samples else None,
        written_bytes=sum(m.samples[-1].written_bytes for m in used if m.samples) if samples else None,
        database_bytes=highest(lambda s: s.database_bytes),
        wal_bytes=highest(lambda s: s.wal_bytes),
        throttled_s=sum(m.throttled_s for m in used),
        figures=figures(used) | paces(used),
        per_second=used[-1].per_second if used else (),
    )


def _throughput(case: Case, used: tuple[Measurement, ...]) -> float | None:
    """Return what thresholds are judged by, or, of invalid repetitions, the same of those."""
    found = metrics.value(case, "throughput")
    return statistics.median(m.throughput for m in used) if found is None and used else found
