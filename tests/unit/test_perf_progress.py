"""How long a run will still take: told by the scenarios' estimates, and by how well these have held."""

from __future__ import annotations

import pytest

from edgegc.cli.perf_progress import Pace


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def test_it_runs_down_within_a_scenario_and_waits_at_its_end() -> None:
    clock = Clock()
    pace = Pace(100, now=clock)
    pace.begins(100, 60)
    clock.s += 30
    assert (pace.done_s, pace.left_s) == (30, 70)
    clock.s += 300
    assert (pace.done_s, pace.left_s) == (60, 40)


def test_a_slower_machine_is_believed_once_it_has_been_slow_for_a_while() -> None:
    clock = Clock()
    pace = Pace(100, now=clock)
    pace.begins(100, 10)
    clock.s += 40
    pace.begins(90, 40)
    assert pace.left_s == 90
    clock.s += 160
    pace.begins(50, 50)
    assert pace.left_s == pytest.approx(200)
    clock.s += 100
    assert pace.left_s == pytest.approx(100)
