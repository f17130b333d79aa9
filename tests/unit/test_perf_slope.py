"""The slope of a memory curve, and how sure it is."""

from __future__ import annotations

import random

import pytest

from edgegc.perf.slope import slope


def test_a_straight_line_has_its_slope_and_no_doubt() -> None:
    found = slope([(i / 10, 5.0 + 3.0 * i / 10) for i in range(600)])
    assert found is not None
    assert found.per_s == pytest.approx(3.0)
    assert found.low_per_s == pytest.approx(found.high_per_s)


def test_the_interval_holds_the_true_slope_nearly_always() -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(200):
        found = slope([(float(i), 2.0 * i + chance.gauss(0, 50)) for i in range(240)])
        assert found is not None
        held += found.low_per_s <= 2.0 <= found.high_per_s
    assert 180 <= held <= 199


def test_what_does_not_grow_is_not_told_to_grow() -> None:
    chance = random.Random(2)
    found = slope([(float(i), chance.gauss(100, 5)) for i in range(240)])
    assert found is not None
    assert found.low_per_s < 0 < found.high_per_s


def test_a_few_readings_say_nothing() -> None:
    assert slope([(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]) is None
    assert slope([(1.0, 1.0)] * 20) is None
