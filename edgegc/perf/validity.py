"""When a measurement can't be trusted: the rules, each with its sentence. Measures nothing itself.

A measurement that breaks a rule is invalid, not slow: whoever reads it must not take the generator's or a neighbour's
trouble for the server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.histogram import Histogram
    from edgegc.perf.result import Model
    from edgegc.perf.surroundings import Surroundings

LAG_SHARE: Final = 0.10
"""Sent so late, against the limit that the latency is held to, a request says more of the generator than of the server."""
LAG_FLOOR_NS: Final = 1_000_000
"""A millisecond: what a sleeping process needs to be woken on a small board. Below it nobody can tell lag from waking up."""
SATURATED: Final = 0.95
"""A generator that used so much of its processor could not have kept a schedule, or asked faster."""
OTHERS_SHARE: Final = 0.10
"""Of all processors' time: what others may use."""
STOLEN_SHARE: Final = 0.02
THROTTLED_SHARE: Final = 0.01
SHORTEST_JUDGED_S: Final = 0.5
"""The kernel counts in ticks of 10 ms, whoever runs when one comes: in less, chance would look like a neighbour."""


def of_load(
    *,
    model: Model,
    latency: Histogram,
    lag: Histogram,
    dropped: int,
    generator_cpu_s: float,
    duration_s: float,
    limit_s: float | None,
) -> Iterator[str]:
    """Say what is wrong with how a load was made.

    ``limit_s``: what the p99 latency is held to; without one the lag is held against the p99 that was measured.
    """
    if dropped:
        yield f"{dropped} arrivals of the schedule were not sent: every connection was waiting"
    if generator_cpu_s > SATURATED * duration_s:
        consequence = (
            "it may not have kept the schedule" if model == "open" else "it may be what limits the throughput"
        )
        yield f"the generator used {generator_cpu_s / duration_s:.0%} of its processor: {consequence}"
    if model != "open" or not (lag.count and latency.count):
        return
    late_ns = lag.value_at(99)
    against_ns = int(limit_s * 1e9) if limit_s is not None else latency.value_at(99)
    if late_ns > max(LAG_SHARE * against_ns, LAG_FLOOR_NS):
        against = "the limit" if limit_s is not None else "the latency"
        yield (
            f"the generator lagged: p99 {late_ns / 1e6:.1f} ms, more than {LAG_SHARE:.0%} of "
            f"{against} ({against_ns / 1e6:.1f} ms)"
        )


def of_host(before: Surroundings, after: Surroundings) -> Iterator[str]:
    """Say what else the machine did between two looks at it."""
    wall_s = after.at_s - before.at_s
    if wall_s < SHORTEST_JUDGED_S:
        return
    capacity_s = wall_s * after.cpus
    others = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)
    if others > OTHERS_SHARE * capacity_s:
        yield f"the host was busy: other processes used {others / capacity_s:.0%} of its processors"
    stolen = after.stolen_s - before.stolen_s
    if stolen > STOLEN_SHARE * capacity_s:
        yield f"the host was not alone: {stolen / capacity_s:.0%} of its processors' time was stolen by the machine below"
    throttled = after.throttled_s - before.throttled_s
    if throttled > THROTTLED_SHARE * wall_s:
        yield f"the suite itself was throttled for {throttled:.1f} s by the control group that it runs in"
    if after.hot > before.hot:
        yield "a processor slowed down because of its temperature"
