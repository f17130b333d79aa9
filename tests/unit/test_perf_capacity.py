"""The search for the most nodes that are carried, on boxes that are made up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from edgegc.perf.capacity import ATTEMPTS, Costs, Limits, Search, bearable_polls

Box = Callable[[int], tuple[dict[str, float], str]]


def searched(first: int, box: Box) -> Search:
    search = Search(next=first)
    while search.next is not None:
        search.ran(*box(search.next))
    return search


def proportional(carries: int, chance: random.Random, noise: float) -> Box:
    def box(nodes: int) -> tuple[dict[str, float], str]:
        share = nodes / carries * (1 + chance.gauss(0, noise))
        return {"memory": share, "processor": share / 3}, ""

    return box


def test_an_estimate_that_proves_right_is_the_answer() -> None:
    search = searched(965, proportional(1000, random.Random(1), 0.0))
    assert (search.carried, search.limit, search.attempts) == (965, "memory", 1)


def test_two_searches_on_a_noisy_box_are_within_ten_percent() -> None:
    chance = random.Random(1)
    answers = [
        searched(int(965 * (1 + chance.gauss(0, 0.05))), proportional(1000, chance, 0.015)).carried
        for _ in range(200)
    ]
    near = sum(
        abs(one - other) <= 0.1 * max(one, other)
        for one, other in zip(answers[::2], answers[1::2], strict=True)
    )
    assert near >= 97
    assert all(0 < answer <= 1060 for answer in answers)


@pytest.mark.parametrize("first", [250, 3000])
def test_an_estimate_that_is_far_off_is_corrected(first: int) -> None:
    search = searched(first, proportional(1000, random.Random(2), 0.01))
    assert 900 <= search.carried <= 1040
    assert search.limit == "memory"
    assert search.attempts <= ATTEMPTS


def test_slow_answers_limit_what_is_carried_and_are_named() -> None:
    def box(nodes: int) -> tuple[dict[str, float], str]:
        return {"processor": nodes / 2000}, "latency: p99 300 ms" if nodes > 1000 else ""

    search = searched(1300, box)
    assert 850 <= search.carried <= 1000
    assert search.limit.startswith("latency")


def test_a_box_that_carries_nothing_ends_the_search() -> None:
    search = searched(1000, lambda nodes: ({"processor": 0.1}, "errors: 1 refused"))
    assert search.carried == 0
    assert search.attempts == ATTEMPTS


def test_the_scarcest_resource_says_how_many_there_may_be() -> None:
    costs = Costs(polls_per_s=800, base_bytes=60e6, node_bytes=12_000, files=20_000)
    most = costs.most(Limits(interval_s=30, p99_s=0.1, memory_bytes=120_000_000))
    assert most == {"processor": 24_000, "memory": 5000, "open files": 19_744}


def test_a_poll_costs_what_one_more_costs() -> None:
    assert bearable_polls((100, 0.15), (200, 0.25)) == pytest.approx(750)


def test_noise_does_not_make_polls_free() -> None:
    assert bearable_polls((100, 0.25), (200, 0.25)) <= 1200
