from __future__ import annotations

import pytest

from edgegc.agent.pace import BROKEN_HOLDS, HOLD_AGAIN_S, HOLD_S, Pace

MIDDLE, LOW, HIGH = 0.5, 0.0, 0.999999


def pace(random: float = MIDDLE) -> Pace:
    return Pace(lambda: random)


def answered(
    own: Pace, now: float, *, held_s: float = HOLD_S, took_s: float = HOLD_S, **changes: object
) -> float:
    fields: dict[str, object] = {"news": False, "interval_s": None}
    return own.answered(now, held_s=held_s, took_s=took_s, **(fields | changes))  # type: ignore[arg-type]


def test_questions_are_held_and_asked_again_at_once_but_the_first_is_answered_at_once() -> None:
    own = pace()
    assert own.hold_s(0.0) == 0.0
    assert answered(own, 0.0, held_s=0.0, took_s=0.0) == 0.0
    assert own.hold_s(0.0) == HOLD_S
    assert answered(own, 50.0) == 0.0
    assert own.hold_s(50.0) == HOLD_S


def test_an_interval_of_the_server_is_kept_within_a_tenth_and_without_holding() -> None:
    for random, expected in ((LOW, 27.0), (MIDDLE, 30.0), (HIGH, 33.0)):
        own = pace(random)
        assert answered(own, 0.0, interval_s=30.0) == pytest.approx(expected, abs=0.01)
        assert own.hold_s(1.0) == 0.0
    assert answered(own, 30.0, held_s=0.0) == 0.0, "the server no longer asks for it"
    assert own.hold_s(30.0) == HOLD_S


def test_a_held_question_that_is_answered_at_once_with_nothing_new_does_not_become_a_busy_loop() -> None:
    assert answered(pace(), 0.0, took_s=0.01) == 5.0
    assert answered(pace(), 0.0, took_s=0.01, news=True) == 0.0


def test_errors_back_off_from_one_second_to_a_minute_with_full_jitter() -> None:
    assert [pace(HIGH).failed(held_s=0.0) for _ in range(1)] == [pytest.approx(1.0, abs=0.01)]
    own = pace(HIGH)
    delays = [own.failed(held_s=0.0) for _ in range(10)]
    assert delays == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60, 60], abs=0.01)
    assert pace(LOW).failed(held_s=0.0) == 0.0
    answered(own, 0.0)
    assert own.failed(held_s=0.0) == pytest.approx(1.0, abs=0.01)


def test_a_servers_retry_after_is_kept() -> None:
    assert pace(LOW).failed(held_s=0.0, retry_after_s=20) == 20.0


def test_an_invalid_token_is_tried_again_after_five_minutes() -> None:
    assert pace().unauthorized() == 300.0


def break_holds(own: Pace, times: int) -> None:
    for _ in range(times):
        own.failed(held_s=HOLD_S)
        assert own.hold_s(0.0) == 0.0, "the next question is a plain one, to see what is broken"
        answered(own, 0.0, held_s=0.0, took_s=0.01)


def test_where_only_held_questions_break_polling_takes_over_every_five_seconds_and_holding_is_tried_again() -> (
    None
):
    own = pace()
    break_holds(own, BROKEN_HOLDS - 1)
    assert own.hold_s(0.0) == HOLD_S
    break_holds(own, 1)
    assert own.hold_s(1.0) == 0.0
    assert answered(own, 1.0, held_s=0.0, took_s=0.01) == 5.0
    assert own.hold_s(HOLD_AGAIN_S) == HOLD_S


def test_a_held_question_that_works_forgives_the_broken_ones() -> None:
    own = pace()
    break_holds(own, BROKEN_HOLDS - 1)
    answered(own, 0.0)
    break_holds(own, BROKEN_HOLDS - 1)
    assert own.hold_s(0.0) == HOLD_S


def test_a_server_that_is_down_is_not_taken_for_broken_holds() -> None:
    own = pace()
    for _ in range(10):
        own.failed(held_s=own.hold_s(0.0))
    answered(own, 0.0, held_s=0.0, took_s=0.01)
    assert own.hold_s(0.0) == HOLD_S
