"""Every transition of the state machine, and its promises under any order of events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgegc.nebula.machine import (
    BACKOFF_LIMIT_S,
    EARLY_S,
    FATAL_AFTER,
    FATAL_RETRY_S,
    KILL_RETRY_S,
    START_LIMIT_S,
    TERM_LIMIT_S,
    Action,
    ImpossibleInput,
    Input,
    Machine,
)
from edgegc.nebula.states import ALIVE, TRANSITIONS, State


def machine(random: float = 0.999) -> Machine:
    return Machine(random=lambda: random)


def running(now: float = 0.0) -> Machine:
    m = machine()
    m.step(Input.START, now)
    m.step(Input.READY, now)
    return m


def fatal(now: float = 0.0) -> Machine:
    m = machine()
    m.step(Input.START, now)
    for _ in range(FATAL_AFTER - 1):
        m.step(Input.EXITED, now, reason="it broke")
        m.step(Input.TICK, m.deadline or 0)
    m.step(Input.EXITED, now, reason="it broke")
    assert m.state is State.FATAL
    return m


def test_start_spawns_and_the_ready_line_makes_it_running() -> None:
    m = machine()
    assert m.step(Input.START, 0) == (Action.SPAWN,)
    assert m.state is State.STARTING
    assert m.step(Input.READY, 0.1) == ()
    assert (m.state, m.deadline) == (State.RUNNING, None)


@pytest.mark.parametrize("random", [0.0, 0.999999])
def test_the_first_crash_comes_back_in_less_than_two_seconds(random: float) -> None:
    m = machine(random)
    m.step(Input.START, 0)
    m.step(Input.READY, 0.1)
    assert m.step(Input.EXITED, 100, reason="killed") == ()
    assert m.state is State.BACKOFF
    assert m.deadline is not None
    assert 100 < m.deadline < 102
    assert m.step(Input.TICK, m.deadline) == (Action.SPAWN,)


@pytest.mark.parametrize("random", [0.0, 0.999999])
def test_even_a_first_early_death_comes_back_in_less_than_two_seconds(random: float) -> None:
    m = machine(random)
    m.step(Input.START, 0)
    m.step(Input.EXITED, 0.01, reason="bad")
    assert m.deadline is not None
    assert m.deadline < 2


def test_backoff_grows_with_each_early_death_and_ends_in_fatal() -> None:
    m = machine()
    m.step(Input.START, 0)
    now, delays = 0.0, []
    while m.state is not State.FATAL:
        m.step(Input.EXITED, now, reason="it broke")
        if m.state is State.BACKOFF:
            assert m.deadline is not None
            delays.append(m.deadline - now)
            now = m.deadline
            m.step(Input.TICK, now)
    assert len(delays) == FATAL_AFTER - 1
    assert delays == sorted(delays)
    assert m.deadline == now + FATAL_RETRY_S


def test_a_process_that_lived_long_is_no_early_death() -> None:
    m = running()
    now = 0.0
    for _ in range(3 * FATAL_AFTER):
        now += EARLY_S
        m.step(Input.EXITED, now, reason="killed")
        assert m.state is State.BACKOFF
        assert m.deadline is not None
        now = m.deadline
        m.step(Input.TICK, now)
        m.step(Input.READY, now)


def test_a_tick_before_the_deadline_does_nothing() -> None:
    m = running()
    m.step(Input.EXITED, 100)
    assert m.deadline is not None
    assert m.step(Input.TICK, m.deadline - 0.01) == ()
    assert m.state is State.BACKOFF


def test_fatal_is_tried_again_rarely_and_one_more_early_death_is_fatal_again() -> None:
    m = fatal()
    assert m.step(Input.TICK, m.deadline or 0) == (Action.SPAWN,)
    m.step(Input.EXITED, m.deadline or 0, reason="still")
    assert m.state is State.FATAL


@pytest.mark.parametrize("what", [Input.START, Input.RESTART])
def test_fatal_ends_at_once_when_somebody_acts_with_all_attempts_again(what: Input) -> None:
    m = fatal()
    assert m.step(what, 50) == (Action.SPAWN,)
    m.step(Input.EXITED, 50.1, reason="still")
    assert m.state is State.BACKOFF


def test_stop_terminates_first_and_kills_only_after_the_limit() -> None:
    m = running()
    assert m.step(Input.STOP, 100) == (Action.TERMINATE,)
    assert m.step(Input.TICK, 100 + TERM_LIMIT_S - 0.1) == ()
    assert m.step(Input.TICK, 100 + TERM_LIMIT_S) == (Action.KILL,)
    assert m.step(Input.TICK, 100 + TERM_LIMIT_S + KILL_RETRY_S) == (Action.KILL,)
    assert m.step(Input.EXITED, 120) == ()
    assert (m.state, m.deadline) == (State.STOPPED, None)


def test_a_restart_spawns_only_after_the_old_process_is_gone() -> None:
    m = running()
    assert m.step(Input.RESTART, 100) == (Action.TERMINATE,)
    assert m.step(Input.RESTART, 100) == ()
    assert m.step(Input.EXITED, 100.2) == (Action.SPAWN,)
    assert m.restarts == 1


def test_stop_wins_over_a_restart_under_way_and_start_over_a_stop() -> None:
    m = running()
    m.step(Input.RESTART, 100)
    m.step(Input.STOP, 100.1)
    assert m.step(Input.EXITED, 100.2) == ()
    assert m.state is State.STOPPED
    m = running()
    m.step(Input.STOP, 100)
    m.step(Input.START, 100.1)
    assert m.step(Input.EXITED, 100.2) == (Action.SPAWN,)


def test_a_start_that_never_gets_ready_is_terminated_and_backs_off() -> None:
    m = machine()
    m.step(Input.START, 0)
    assert m.step(Input.TICK, START_LIMIT_S) == (Action.TERMINATE,)
    m.step(Input.EXITED, START_LIMIT_S + 1, reason="exit code 0")
    assert m.state is State.BACKOFF
    assert m.failure is not None
    assert "not ready" in m.failure.reason


def test_an_adopted_process_is_not_young() -> None:
    m = machine()
    assert m.step(Input.ADOPT_READY, 1000, age_s=3600) == ()
    assert m.state is State.RUNNING
    m.step(Input.EXITED, 1000.5, reason="unknown")
    assert m.early_deaths == 0


def test_an_adopted_process_that_is_not_ready_is_waited_for() -> None:
    m = machine()
    m.step(Input.ADOPT_STARTING, 1000, age_s=1)
    assert (m.state, m.deadline) == (State.STARTING, 1000 + START_LIMIT_S)


def test_a_failure_remembers_its_attempt_and_a_stop_forgets_it() -> None:
    m = running()
    m.step(Input.EXITED, 100, reason="killed by SIGKILL")
    assert m.failure is not None
    assert (m.failure.attempt, m.failure.reason) == (1, "killed by SIGKILL")
    m.step(Input.STOP, 101)
    assert m.failure is None
    assert m.state is State.STOPPED


IMPOSSIBLE = {
    *itertools.product(
        [State.STARTING, State.RUNNING, State.BACKOFF, State.STOPPING, State.FATAL],
        [Input.ADOPT_READY, Input.ADOPT_STARTING],
    ),
    *itertools.product(
        [State.STOPPED, State.BACKOFF, State.FATAL], [Input.READY, Input.EXITED, Input.SPAWN_FAILED]
    ),
    (State.RUNNING, Input.READY),
    (State.RUNNING, Input.SPAWN_FAILED),
}


@pytest.mark.parametrize(("state", "what"), list(itertools.product(State, Input)))
def test_every_pair_of_state_and_input_is_either_legal_or_impossible(state: State, what: Input) -> None:
    m = machine()
    m.state = state
    if (state, what) in IMPOSSIBLE:
        with pytest.raises(ImpossibleInput):
            m.step(what, 0)
        assert m.state is state
    else:
        m.step(what, 0)
        assert m.state is state or (state, m.state) in TRANSITIONS


class Life(RuleBasedStateMachine):
    """Drives a machine as process.py does, with a world in which there is a process or not."""

    def __init__(self) -> None:
        super().__init__()
        self.m = machine(0.5)
        self.now = 0.0
        self.alive = False
        self.is_ready = False
        self.terminated_at: float | None = None
        self.wanted = False
        self.seen: set[tuple[State, State]] = set()

    def feed(self, what: Input, **more: object) -> None:
        before = self.m.state
        for action in self.m.step(what, self.now, reason="because", **more):  # type: ignore[arg-type]
            match action:
                case Action.SPAWN:
                    assert not self.alive, "two processes at once"
                    self.alive, self.is_ready, self.terminated_at = True, False, None
                case Action.TERMINATE:
                    assert self.alive
                    self.terminated_at = self.now
                case Action.KILL:
                    assert self.terminated_at is not None, "killed without SIGTERM"
                    assert self.now >= self.terminated_at + TERM_LIMIT_S
        if before is not self.m.state:
            assert (before, self.m.state) in TRANSITIONS

    @rule()
    def start(self) -> None:
        self.wanted = True
        self.feed(Input.START)

    @rule()
    def restart(self) -> None:
        self.wanted = True
        self.feed(Input.RESTART)

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.feed(Input.STOP)

    @precondition(lambda self: self.m.attempt == 0 and self.m.state is State.STOPPED)
    @rule(ready=st.booleans(), age=st.floats(0, 1e6))
    def adopt(self, ready: bool, age: float) -> None:
        self.wanted = self.alive = True
        self.is_ready = ready
        self.feed(Input.ADOPT_READY if ready else Input.ADOPT_STARTING, age_s=age)

    @precondition(lambda self: self.alive and not self.is_ready)
    @rule()
    def become_ready(self) -> None:
        self.is_ready = True
        self.feed(Input.READY)

    @precondition(lambda self: self.alive)
    @rule(spawn=st.booleans())
    def die(self, spawn: bool) -> None:
        self.alive = False
        self.feed(Input.SPAWN_FAILED if spawn and not self.is_ready else Input.EXITED)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1, 9, 11, 40, 400]))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.m.deadline is not None and self.m.deadline <= end:
            self.now = max(self.now, self.m.deadline)
            self.feed(Input.TICK)
        self.now = end

    @invariant()
    def there_is_a_process_exactly_in_the_living_states(self) -> None:
        assert self.alive == (self.m.state in ALIVE)

    @invariant()
    def what_is_wanted_is_running_or_coming(self) -> None:
        if self.wanted:
            assert self.m.state is not State.STOPPED
        if not self.wanted:
            assert self.m.state in (State.STOPPED, State.STOPPING)

    @invariant()
    def every_state_that_waits_has_a_deadline(self) -> None:
        waits = self.m.state in (State.STARTING, State.BACKOFF, State.STOPPING, State.FATAL)
        assert waits == (self.m.deadline is not None)
        if self.m.state is State.BACKOFF and self.m.deadline is not None:
            assert self.m.deadline - self.now <= BACKOFF_LIMIT_S

    @invariant()
    def fatal_means_repeated_early_deaths(self) -> None:
        if self.m.state is State.FATAL:
            assert self.m.early_deaths >= FATAL_AFTER


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
