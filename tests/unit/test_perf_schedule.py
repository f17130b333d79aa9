"""Who asks what, and when."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from statistics import mean, stdev

import pytest

from edgegc.perf.generator.schedule import NS_PER_S, Arrivals, Deck, UsedUp
from edgegc.perf.plan import Ask


def requests(*names: str) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in names)


def arrivals(count: int, *, rate_per_s: float, seed: int = 1, begin_ns: int = 5 * NS_PER_S) -> list[int]:
    process = Arrivals(rate_per_s=rate_per_s, seed=seed, begin_ns=begin_ns)
    times = []
    for _ in range(count):
        times.append(process.due_ns)
        process.advance()
    return times


def test_arrivals_have_the_rate_and_the_randomness_of_a_poisson_process() -> None:
    times = arrivals(20_000, rate_per_s=1000)
    distances = [b - a for a, b in pairwise(times)]
    assert mean(distances) == pytest.approx(1_000_000, rel=0.03)
    # Of an exponential distribution the deviation is the mean.
    assert stdev(distances) == pytest.approx(mean(distances), rel=0.05)
    assert times == sorted(times)
    assert times[0] > 5 * NS_PER_S


def test_the_same_seed_is_the_same_load() -> None:
    assert arrivals(100, rate_per_s=10, seed=7) == arrivals(100, rate_per_s=10, seed=7)
    assert arrivals(100, rate_per_s=10, seed=7) != arrivals(100, rate_per_s=10, seed=8)


def test_kinds_are_drawn_as_often_as_their_weights_say() -> None:
    reads = Ask(name="read", requests=requests("r"), weight=95)
    writes = Ask(name="write", requests=requests("w"), weight=5)
    deck = Deck((reads, writes), connections=1, seed=3)
    drawn = [deck.draw(0)[0] for _ in range(1000)]
    assert Counter(drawn) == {0: 950, 1: 50}
    # Not all of one kind first: the writes are spread over each hundred.
    assert drawn[:95] != [0] * 95


def test_shared_requests_go_round_whoever_sends_them() -> None:
    deck = Deck((Ask(name="a", requests=requests("1", "2", "3")),), connections=2, seed=0)
    assert [deck.draw(i % 2)[1] for i in range(5)] == [b"1", b"2", b"3", b"1", b"2"]


def test_a_connections_own_request_stays_its_own() -> None:
    ask = Ask(name="a", requests=requests("1", "2", "3"), order="connection")
    deck = Deck((ask,), connections=4, seed=0)
    assert [deck.draw(i)[1] for i in (0, 1, 2, 3, 1, 1)] == [b"1", b"2", b"3", b"1", b"2", b"2"]


def test_what_is_sent_once_is_used_up_for_all() -> None:
    deck = Deck((Ask(name="a", requests=requests("1", "2"), once=True),), connections=2, seed=0)
    assert {deck.draw(0)[1], deck.draw(1)[1]} == {b"1", b"2"}
    with pytest.raises(UsedUp) as used_up:
        deck.draw(0)
    assert used_up.value.shared


def test_what_each_connection_sends_once_is_used_up_for_it_alone() -> None:
    ask = Ask(name="a", requests=requests("1", "2", "3"), order="connection", once=True)
    deck = Deck((ask,), connections=2, seed=0)
    assert [deck.draw(0)[1], deck.draw(0)[1], deck.draw(1)[1]] == [b"1", b"3", b"2"]
    for connection in (0, 1):
        with pytest.raises(UsedUp) as used_up:
            deck.draw(connection)
        assert not used_up.value.shared
