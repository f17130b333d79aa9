from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.api.compression import accepts_gzip
from edgegc.api.limits import (
    HOUR_S,
    MINUTE_S,
    TABLE_ENTRIES,
    Buckets,
    FailedAuthentications,
    RateLimits,
    address_key,
)
from edgegc.errors import TooMany
from edgegc.model.credential import Caller
from edgegc.settings import Limits


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    buckets = Buckets(rate=50, burst=100)
    assert [buckets.take("n", 10.0) for _ in range(100)] == [0.0] * 100
    assert buckets.take("n", 10.0) == pytest.approx(1 / 50)
    assert buckets.take("other", 10.0) == 0
    assert buckets.take("n", 10.0 + 1 / 50) == 0
    assert buckets.take("n", 10.0 + 1 / 50) > 0
    assert [buckets.take("n", 100.0) for _ in range(100)] == [0.0] * 100
    assert buckets.take("n", 100.0) > 0


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_no_bucket_ever_gives_more_than_its_burst_and_rate(
    rate: float, burst: int, steps: list[float]
) -> None:
    buckets = Buckets(rate=rate, burst=burst)
    now, given_ = 0.0, 0
    for step in steps:
        now += step
        given_ += buckets.take("n", now) == 0
        assert given_ <= burst + rate * now + 1e-6
    assert given_ >= 1


def test_the_tables_are_bounded_and_forget_the_oldest() -> None:
    buckets = Buckets(rate=1, burst=1, capacity=3)
    assert [buckets.take(key, 0.0) for key in "abc"] == [0, 0, 0]
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("d", 0.0) == 0
    assert len(buckets) == 3
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0
    failures = FailedAuthentications(in_minute=10, in_ten_minutes=50)
    for number in range(TABLE_ENTRIES + 100):
        failures.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(failures) == TABLE_ENTRIES


def test_ten_failures_in_a_minute_keep_an_address_away_for_a_minute() -> None:
    failures = FailedAuthentications(in_minute=10, in_ten_minutes=50)
    assert [failures.note("192.0.2.1", second) for second in range(10)] == [0.0] * 10
    assert failures.blocked(9.0) == 1
    assert failures.note("192.0.2.1", 10.0) == MINUTE_S - 1
    assert failures.note("192.0.2.2", 10.0) == 0
    assert failures.note("192.0.2.1", 9.0 + MINUTE_S) == 0
    assert failures.blocked(9.0 + MINUTE_S) == 0


def test_ten_failures_over_more_than_a_minute_keep_nobody_away() -> None:
    failures = FailedAuthentications(in_minute=10, in_ten_minutes=50)
    assert [failures.note("192.0.2.1", 7.0 * number) for number in range(40)] == [0.0] * 40


def test_fifty_failures_in_ten_minutes_keep_an_address_away_for_an_hour() -> None:
    failures = FailedAuthentications(in_minute=10, in_ten_minutes=50)
    for _ in range(50):
        failures.note("192.0.2.1", 0.0)
    assert failures.note("192.0.2.1", 600.0) == HOUR_S - 600
    assert failures.blocked(HOUR_S - 1.0) == 1
    assert failures.note("192.0.2.1", HOUR_S + 0.0) == 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_ipv6_address_counts_as_its_network(address: str, key: str) -> None:
    assert address_key(address) == key


def test_the_socket_is_never_limited_and_limits_off_limit_nothing() -> None:
    def caller(source: str) -> Caller:
        return Caller(kind="enrolment_key", id="k", source=source)

    limits = RateLimits(Limits())
    for _ in range(100):
        limits.enrolment(caller("socket"), 0.0)
        limits.failed_authentication("socket", 0.0)
    off = RateLimits(Limits(enabled=False))
    for _ in range(1000):
        off.enrolment(caller("192.0.2.1"), 0.0)
        off.failed_authentication("192.0.2.1", 0.0)
        off.request(Caller(kind="node", id="n", node_id="n"), 0.0)
    for _ in range(10):
        limits.enrolment(caller("192.0.2.1"), 0.0)
    with pytest.raises(TooMany) as refused:
        limits.enrolment(caller("192.0.2.1"), 0.0)
    assert refused.value.retry_after_s == 1
    assert limits.refused == {"node": 0, "enrolment": 1, "authentication": 0}


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("GZIP;q=0.5, br", True),
        ("br, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("", False),
        ("gzip;q=nonsense", False),
        (", ,;;gzip", False),
    ],
)
def test_gzip_is_what_the_client_asks_for(header: str, wanted: bool) -> None:
    assert accepts_gzip([header]) is wanted
