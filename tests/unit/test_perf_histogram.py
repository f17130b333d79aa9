"""The histogram: how wrong a value may be, what merging keeps, and which percentiles are not told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.perf.histogram import HIGHEST_NS, Histogram, highest_of, slot_of

durations = st.integers(min_value=0, max_value=HIGHEST_NS)


@given(durations)
def test_a_value_is_read_back_at_most_a_thousandth_too_high(value: int) -> None:
    found = highest_of(slot_of(value))
    assert value <= found <= value + value // 1000 + 1


@given(durations, durations)
def test_slots_keep_the_order_of_values(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert slot_of(low) <= slot_of(high)


@given(st.lists(durations), st.lists(durations))
def test_merging_is_the_same_as_recording_all(some: list[int], others: list[int]) -> None:
    merged = Histogram.of(some)
    merged.merge(Histogram.of(others))
    assert merged.counts() == Histogram.of(some + others).counts()
    assert Histogram.from_counts(merged.counts()).counts() == merged.counts()


@given(st.lists(durations, min_size=1), st.sampled_from([50, 90, 95, 99, 99.9, 100]))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[int], percent: float
) -> None:
    found = Histogram.of(values).value_at(percent)
    wanted = sorted(values)[max(1, -(-len(values) * percent // 100)).__int__() - 1]
    assert wanted <= found <= wanted + wanted // 1000 + 1


@pytest.mark.parametrize(
    ("count", "percent", "told"),
    [
        (9_999, 99.9, False),
        (10_000, 99.9, True),
        (999, 99, False),
        (1_000, 99, True),
        (20, 50, True),
        (19, 50, False),
    ],
)
def test_a_percentile_with_too_few_samples_above_it_is_not_told(
    count: int, percent: float, told: bool
) -> None:
    assert (Histogram.of([5] * count).percentile_ns(percent) is not None) is told


def test_the_mean_is_exact_and_an_empty_histogram_has_none() -> None:
    assert Histogram.of([1_000_001, 3_000_000]).mean_ns == 2_000_000.5
    assert Histogram().mean_ns is None
    with pytest.raises(ValueError, match="empty"):
        Histogram().value_at(50)
    with pytest.raises(ValueError, match="empty"):
        Histogram().share_within(1)


def test_the_share_within_a_limit_counts_what_is_surely_below_it() -> None:
    assert Histogram.of([1_000, 2_000, 3_000, 4_000]).share_within(2_500) == 0.5


def test_what_lasts_longer_than_an_hour_counts_as_an_hour() -> None:
    histogram = Histogram.of([HIGHEST_NS * 5, -3])
    assert (histogram.max_ns, histogram.count, histogram.sum_ns) == (HIGHEST_NS, 2, HIGHEST_NS)
