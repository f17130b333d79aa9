"""What a case comes to over its repetitions: the one place where measurements become single numbers.

Reads results, changes nothing. Percentiles are never averaged: histograms are merged. Throughput and figures are medians over
repetitions, peaks are peaks. Invalid repetitions count for nothing.
"""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING, Final

from edgegc.errors import Invalid
from edgegc.perf.histogram import Histogram

if TYPE_CHECKING:
    from edgegc.perf.result import Case, Measurement, Sample

NS_PER_S: Final = 1e9
FIGURE: Final = "figure:"
PERCENTILE: Final = re.compile(r"p(\d+(?:\.\d+)?)")
UNITS: Final = {
    "throughput": "per_s",
    "requests": "count",
    "errors": "count",
    "error_share": "ratio",
    "rss": "bytes",
    "pss": "bytes",
    "private": "bytes",
    "fds": "count",
    "cpu_percent": "percent",
    "written_per_s": "bytes",
    "mean": "s",
    "max": "s",
}
"""What can be asked for by name, and its unit; ``p50`` … ``p99.9`` and ``figure:NAME`` besides."""


def valid(case: Case) -> tuple[Measurement, ...]:
    """Return the repetitions that can be trusted."""
    return tuple(each for each in case.measurements if not each.invalid)


def latency(case: Case) -> Histogram:
    """Return the latencies of all trusted repetitions together."""
    merged = Histogram()
    for each in valid(case):
        merged.merge(each.latency)
    return merged


def check(metric: str) -> None:
    """Raise Invalid for a metric that is not known."""
    if not (metric in UNITS or metric.startswith(FIGURE) or PERCENTILE.fullmatch(metric)):
        raise Invalid(f"'{metric}' is not a metric; there are {', '.join(UNITS)}, p99, {FIGURE}NAME")


def unit_of(case: Case, metric: str) -> str:
    """Return a metric's unit; of a figure that was never found none. Raises Invalid for one that is not known."""
    check(metric)
    if metric.startswith(FIGURE):
        name = metric.removeprefix(FIGURE)
        units = (each.figures[name].unit for each in case.measurements if name in each.figures)
        return next(units, "")
    return UNITS.get(metric, "s")


def value(case: Case, metric: str) -> float | None:
    """Return a metric of a case in its unit; None where nothing trusted tells it. Raises Invalid for an unknown one."""
    check(metric)
    trusted = valid(case)
    if not trusted:
        return None
    if metric.startswith(FIGURE):
        name = metric.removeprefix(FIGURE)
        return _median([each.figures[name].value for each in trusted if name in each.figures])
    found = PERCENTILE.fullmatch(metric)
    if found or metric in ("mean", "max"):
        merged = latency(case)
        ns = (
            merged.percentile_ns(float(found[1]))
            if found
            else merged.mean_ns
            if metric == "mean"
            else merged.max_ns
            if merged.count
            else None
        )
        return None if ns is None else ns / NS_PER_S
    match metric:
        case "throughput":
            return _median([each.throughput for each in trusted if each.requests])
        case "requests":
            return sum(each.requests for each in trusted)
        case "errors":
            return sum(sum(each.errors.values()) for each in trusted)
        case "error_share":
            asked = sum(each.requests + sum(each.errors.values()) for each in trusted)
            return sum(sum(each.errors.values()) for each in trusted) / asked if asked else None
        case "cpu_percent":
            return _median(
                [
                    100 * each.server_cpu_s / each.duration_s
                    for each in trusted
                    if each.server_cpu_s is not None and each.duration_s
                ]
            )
        case "written_per_s":
            return _median([written for each in trusted if (written := _written_per_s(each)) is not None])
        case _:
            return max(
                (_of_sample(sample, metric) for each in trusted for sample in each.samples), default=None
            )


def _of_sample(sample: Sample, metric: str) -> float:
    match metric:
        case "rss":
            return sample.rss_bytes
        case "pss":
            return sample.pss_bytes
        case "private":
            return sample.private_bytes
        case _:
            return sample.fds


def _written_per_s(measurement: Measurement) -> float | None:
    if len(measurement.samples) < 2:
        return None
    first, last = measurement.samples[0], measurement.samples[-1]
    spent_s = last.at_s - first.at_s
    return (last.written_bytes - first.written_bytes) / spent_s if spent_s > 0 else None


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
