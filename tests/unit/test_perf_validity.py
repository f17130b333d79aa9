"""A measurement that can't be trusted says so, and says why."""

from __future__ import annotations

import msgspec

from edgegc.perf import validity
from edgegc.perf.histogram import Histogram
from edgegc.perf.surroundings import Surroundings, look

MS = 1_000_000
QUIET = Surroundings(at_s=0, cpus=2, busy_s=100, stolen_s=0, ours_s=5, throttled_s=0, hot=0)


def load(**changes: object) -> list[str]:
    fields: dict[str, object] = {
        "model": "open",
        "latency": Histogram.of([20 * MS] * 1000),
        "lag": Histogram.of([100_000] * 1000),
        "dropped": 0,
        "generator_cpu_s": 1.0,
        "duration_s": 10.0,
        "limit_s": None,
    }
    return list(validity.of_load(**{**fields, **changes}))  # type: ignore[arg-type]


def after(**changes: float) -> Surroundings:
    return msgspec.structs.replace(QUIET, at_s=10, **changes)


def test_a_load_that_was_on_time_is_trusted() -> None:
    assert load() == []


def test_lag_above_a_tenth_of_what_was_measured_is_not_trusted() -> None:
    (why,) = load(lag=Histogram.of([3 * MS] * 1000))
    assert "the generator lagged: p99 3.0 ms" in why


def test_lag_is_held_against_the_limit_where_there_is_one() -> None:
    lagging = Histogram.of([3 * MS] * 1000)
    assert load(lag=lagging, limit_s=0.1) == []
    assert load(lag=lagging, limit_s=0.02)


def test_lag_means_nothing_where_the_next_request_waits_for_the_last_answer() -> None:
    assert load(model="closed", lag=Histogram.of([3000 * MS] * 1000)) == []


def test_a_lag_that_waking_up_takes_is_no_lag() -> None:
    assert load(latency=Histogram.of([1 * MS] * 1000), lag=Histogram.of([900_000] * 1000)) == []


def test_dropped_arrivals_are_not_trusted() -> None:
    (why,) = load(dropped=7)
    assert why.startswith("7 arrivals")


def test_a_generator_without_time_to_spare_is_not_trusted() -> None:
    (why,) = load(generator_cpu_s=9.8)
    assert why == "the generator used 98% of its processor: it may not have kept the schedule"
    (why,) = load(model="closed", generator_cpu_s=9.8)
    assert "it may be what limits the throughput" in why


def test_a_quiet_host_is_trusted() -> None:
    assert list(validity.of_host(QUIET, after(busy_s=119, ours_s=23))) == []


def test_a_neighbour_is_seen() -> None:
    (why,) = validity.of_host(QUIET, after(busy_s=115, ours_s=10))
    assert why == "the host was busy: other processes used 50% of its processors"


def test_stolen_time_throttling_and_heat_are_seen() -> None:
    found = list(validity.of_host(QUIET, after(stolen_s=1, throttled_s=2, hot=1)))
    assert len(found) == 3


def test_what_took_less_than_the_kernel_counts_is_not_judged() -> None:
    short = msgspec.structs.replace(QUIET, at_s=0.1, busy_s=100.2)
    assert list(validity.of_host(QUIET, short)) == []


def test_what_we_use_ourselves_is_ours() -> None:
    before = look()
    sum(range(3_000_000))
    now = look()
    assert now.ours_s > before.ours_s
    assert now.busy_s >= before.busy_s
    assert now.cpus >= 1
