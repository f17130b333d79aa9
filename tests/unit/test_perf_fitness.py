"""What the doctor of the laboratory makes of what it reads."""

from __future__ import annotations

import resource
from pathlib import Path

import msgspec
import pytest

from edgegc.perf import fitness
from edgegc.perf.cpus import Cpus
from edgegc.perf.histogram import Counts, Histogram
from edgegc.perf.plan import Answered, Load
from edgegc.perf.surroundings import Surroundings

QUIET = Surroundings(at_s=0.0, cpus=2, busy_s=0.0, stolen_s=0.0, ours_s=0.0, throttled_s=0.0, hot=0)
MIB = 1 << 20


def later(**changes: float) -> Surroundings:
    """Ten seconds of two processors later."""
    return msgspec.structs.replace(QUIET, at_s=10.0, **changes)


def load(*, per_s: float, cpu_share: float, errors: int = 0) -> Load:
    answered = Answered(
        name="raw_echo",
        requests=int(per_s * 2),
        errors={"timeout": errors} if errors else {},
        latency=Counts(),
        bytes_read=0,
    )
    return Load(
        began_at=0.0,
        duration_s=2.0,
        asks=(answered,),
        errors={},
        lag=Counts(),
        per_second=(),
        connect=Counts(),
        cpu_s=2.0 * cpu_share,
        dropped=0,
    )


@pytest.mark.parametrize(
    ("busy_s", "ours_s", "state"),
    [(0.5, 0.0, "ok"), (1.5, 0.0, "warn"), (2.5, 0.0, "fail"), (2.5, 2.4, "ok")],
)
def test_what_others_use_counts_and_what_we_use_does_not(busy_s: float, ours_s: float, state: str) -> None:
    assert fitness.other_load(QUIET, later(busy_s=busy_s, ours_s=ours_s)).state == state


@pytest.mark.parametrize(("stolen_s", "state"), [(0.0, "ok"), (0.3, "warn"), (0.5, "fail")])
def test_time_that_a_host_takes_spoils_measurements(stolen_s: float, state: str) -> None:
    assert fitness.stolen(QUIET, later(stolen_s=stolen_s)).state == state


def test_one_processor_for_both_is_worth_a_warning() -> None:
    assert fitness.processors(Cpus(server=1, generator=0)).state == "ok"
    shared = fitness.processors(Cpus(server=0, generator=0, warning="there is one processor"))
    assert (shared.state, shared.sentence) == ("warn", "there is one processor")


@pytest.mark.parametrize(
    ("governs", "state"),
    [("performance", "ok"), ("none", "ok"), ("ondemand, performance", "warn"), ("powersave", "warn")],
)
def test_a_speed_that_follows_the_load_is_worth_a_warning(governs: str, state: str) -> None:
    assert fitness.governor(governs).state == state


def test_slowing_down_from_heat_fails_now_and_warns_afterwards() -> None:
    assert fitness.heat(QUIET, later(), 40.0).state == "ok"
    assert fitness.heat(QUIET, later(), None).state == "ok"
    assert fitness.heat(QUIET, later(), 80.0).state == "warn"
    assert fitness.heat(QUIET, later(hot=1), 60.0).state == "fail"
    earlier = msgspec.structs.replace(QUIET, hot=3)
    assert fitness.heat(earlier, later(hot=3), 50.0).state == "warn"


@pytest.mark.parametrize(("bits", "state"), [(None, "ok"), (0, "ok"), (0x50000, "warn"), (0x50005, "fail")])
def test_a_weak_power_supply_fails_now_and_warns_afterwards(bits: int | None, state: str) -> None:
    assert fitness.supply(bits).state == state


@pytest.mark.parametrize(("free", "state"), [(2048 * MIB, "ok"), (512 * MIB, "warn"), (100 * MIB, "fail")])
def test_memory_must_do_for_server_and_generator(free: int, state: str) -> None:
    assert fitness.memory(free).state == state


@pytest.mark.parametrize(("used", "moved", "state"), [(0, 0, "ok"), (MIB, 0, "warn"), (MIB, 7, "fail")])
def test_swapping_spoils_measurements_and_what_lies_swapped_is_worth_a_warning(
    used: int, moved: int, state: str
) -> None:
    assert fitness.swap(used, moved).state == state


def test_limits_around_the_suite_itself_are_told() -> None:
    assert fitness.own_limits(QUIET, later(), "v2, no limits").state == "ok"
    assert fitness.own_limits(QUIET, later(), "v2, held to 512 MiB").state == "warn"
    assert fitness.own_limits(QUIET, later(throttled_s=1.0), "v2, held to 50 % of a core").state == "fail"


@pytest.mark.parametrize(("limit", "state"), [(1024, "warn"), (20_000, "ok"), (resource.RLIM_INFINITY, "ok")])
def test_ten_thousand_connections_need_as_many_descriptors(limit: int, state: str) -> None:
    assert fitness.file_descriptors(limit).state == state


@pytest.mark.parametrize(
    ("source", "ns", "state"),
    [("tsc", 50, "ok"), ("unknown", 50, "ok"), ("hpet", 900, "warn"), ("tsc", 5000, "warn")],
)
def test_a_clock_that_is_slow_to_read_is_worth_a_warning(source: str, ns: float, state: str) -> None:
    assert fitness.clock(source, ns).state == state


def test_a_database_in_memory_is_never_silent() -> None:
    check = fitness.disk(Path("/dev/shm"), 10**12)
    assert check.state == "warn"
    assert "lies in memory" in check.sentence
    assert "--dir" in (check.remedy or "")


@pytest.mark.parametrize(("free", "state"), [(4096 * MIB, "ok"), (1024 * MIB, "warn"), (100 * MIB, "fail")])
def test_there_must_be_room_on_the_disk(free: int, state: str) -> None:
    assert fitness.disk(Path("/usr"), free).state == state


@pytest.mark.parametrize(("ms", "state"), [(1, "ok"), (80, "warn")])
def test_a_slow_fsync_is_worth_a_warning(ms: int, state: str) -> None:
    assert fitness.fsync(Histogram.of([ms * 1_000_000] * 50)).state == state


def test_a_generator_that_waits_for_the_echo_is_fast_enough() -> None:
    assert fitness.generator_rate(load(per_s=30_000, cpu_share=0.5)).state == "ok"
    assert fitness.generator_rate(load(per_s=45_000, cpu_share=1.0)).state == "ok"


def test_a_generator_that_is_itself_the_limit_is_worth_a_warning() -> None:
    check = fitness.generator_rate(load(per_s=9_000, cpu_share=0.99))
    assert check.state == "warn"
    assert "9,000 answers a second" in check.sentence


def test_an_echo_that_loses_requests_fails() -> None:
    assert fitness.generator_rate(load(per_s=45_000, cpu_share=0.9, errors=3)).state == "fail"


def test_what_is_missing_for_some_scenarios_is_worth_a_warning_only() -> None:
    assert fitness.nebula_there(None).state == "warn"
    assert fitness.nebula_there("1.6.1").state == "ok"
    assert fitness.rights(1000).state == "warn"
    assert fitness.rights(0).state == "ok"


def test_whatever_is_not_well_comes_with_a_remedy() -> None:
    checks = [
        fitness.other_load(QUIET, later(busy_s=9.0)),
        fitness.stolen(QUIET, later(stolen_s=9.0)),
        fitness.governor("ondemand"),
        fitness.heat(QUIET, later(hot=1), None),
        fitness.supply(0x5),
        fitness.memory(1),
        fitness.swap(1, 1),
        fitness.own_limits(QUIET, later(throttled_s=9.0), "v1"),
        fitness.file_descriptors(1),
        fitness.clock("jiffies", 1.0),
        fitness.disk(Path("/usr"), 1),
        fitness.fsync(Histogram.of([10**9])),
        fitness.nebula_there(None),
        fitness.rights(1),
        fitness.generator_rate(load(per_s=1, cpu_share=1.0)),
    ]
    assert [check.name for check in checks if check.state == "ok" or not check.remedy] == []
