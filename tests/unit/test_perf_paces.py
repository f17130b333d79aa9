"""At which rate an open load asks: what is wanted, or what a server bears, and the same for a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgegc.perf import cpus
from edgegc.perf.bench import Bench, Laboratory
from edgegc.perf.scenarios.paces import SMALLEST_PER_S, bearable, step_below


def laboratory(**rates: float) -> Laboratory:
    return Laboratory(
        suite="quick",
        seed=1,
        directory=Path(),
        cpus=cpus.cpus(),
        rates={f"api.x[{k}]": v for k, v in rates.items()},
    )


def bench(of: Laboratory, repetition: int = 0) -> Bench:
    return Bench(of, scenario="api.x", cases=("open", "other"), repetition=repetition)


@pytest.mark.parametrize(
    ("limit", "found"),
    [(2000.0, 1000.0), (1000.0, 1000.0), (999.0, 700.0), (149.0, 100.0), (0.25, 0.2), (0.0, 0.1)],
)
def test_a_rate_is_what_is_wanted_or_the_next_step_below(limit: float, found: float) -> None:
    assert step_below(1000.0, limit) == found


def test_the_first_repetition_decides_on_the_rate_and_the_others_keep_it() -> None:
    run = laboratory()
    first = bearable(bench(run), "open", 1000.0, 700.0)
    assert first == 400.0
    assert bearable(bench(run, 1), "open", 1000.0, 5000.0) == first
    assert bearable(bench(run, 1), "other", 1000.0, 5000.0) == 1000.0
    assert bearable(bench(laboratory()), "open", 1000.0, 5000.0) == 1000.0


def test_a_repetition_in_which_nothing_was_answered_decides_nothing() -> None:
    run = laboratory()
    assert bearable(bench(run), "open", 1000.0, 0.0) == SMALLEST_PER_S
    assert bearable(bench(run, 1), "open", 1000.0, 5000.0) == 1000.0


def test_a_rate_that_was_given_is_kept_whatever_the_server_bears() -> None:
    assert bearable(bench(laboratory(open=300.0)), "open", 1000.0, 100.0) == 300.0
