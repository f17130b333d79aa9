"""The life of one supervised nebula as a pure state machine: inputs and the time in, actions out.

Knows no processes, no files and no clock. Whoever drives it (``process.py``) calls :meth:`Machine.step` for
everything that happens and once when :attr:`Machine.deadline` has passed, and does what it answers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgegc.nebula.states import TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START_LIMIT_S = 120.0
"""From spawn to ready line. Takes 7 ms on a PC and seconds from a cold SD card; but names in ``static_host_map`` are
looked up first, one after the other, and whoever is ended during that never comes up."""

TERM_LIMIT_S = 10.0
"""From SIGTERM to SIGKILL. A nebula that is killed leaves its peers waiting for up to two minutes, so be patient."""

KILL_RETRY_S = 2.0
"""Between SIGKILLs: a process in uninterruptible sleep does not die of the first one."""

EARLY_S = 10.0
"""A life shorter than this counts towards FATAL: it ended because of what it was started with."""

FATAL_AFTER = 5
"""Early deaths in a row before giving up for :data:`FATAL_RETRY_S`."""

FATAL_RETRY_S = 300.0
"""FATAL is never for ever: the cause (a port, a full disk, an upgrade under way) may have gone."""

BACKOFF_S = 0.5
"""Upper bound of the delay after the first death; doubles with each early one. First time back in < 2 s."""

BACKOFF_LIMIT_S = 30.0
"""No delay is longer; reached only if FATAL_AFTER is raised."""


class Input(enum.Enum):
    """Everything that can happen."""

    START = "start"
    """Somebody wants it to run; where it waits for a retry: at once."""
    STOP = "stop"
    """Nobody wants it to run any more."""
    RESTART = "restart"
    """Somebody wants a new process with what is on disk now."""
    ADOPT_READY = "adopt ready"
    """A living process of ours was found that is past its ready line."""
    ADOPT_STARTING = "adopt starting"
    """A living process of ours was found that may not be ready."""
    SPAWN_FAILED = "spawn failed"
    """There is no process: it could not be started."""
    READY = "ready"
    """The ready line was seen."""
    EXITED = "exited"
    """The process is gone."""
    TICK = "tick"
    """Time has passed; does nothing before the deadline."""


class Action(enum.Enum):
    """What the driver must do."""

    SPAWN = "spawn"
    TERMINATE = "terminate"
    KILL = "kill"


class ImpossibleInput(Exception):
    """The driver reported something that cannot happen in this state: a bug in the driver."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt to run ended although it was wanted. ``attempt`` is :attr:`Machine.attempt` of that time."""

    attempt: int
    reason: str


@dataclass
class Machine:
    """One supervised nebula. ``random`` returns a float in [0, 1).

    ``attempt`` counts SPAWNs and adoptions; ``restarts`` those that replaced an earlier process or attempt;
    ``failure`` is the newest unwanted end, kept until a later attempt has lived for EARLY_S or it is stopped.
    """

    random: Callable[[], float]
    state: State = State.STOPPED
    deadline: float | None = None
    attempt: int = 0
    restarts: int = 0
    early_deaths: int = 0
    failure: Failure | None = None
    _born: float = 0.0
    _after_stopping: State = State.STOPPED

    def step(self, what: Input, now: float, *, reason: str = "", age_s: float = 0.0) -> tuple[Action, ...]:
        """Take one input at monotonic time ``now`` (seconds) and return what to do.

        ``reason`` is a sentence for SPAWN_FAILED and EXITED; ``age_s`` the age of an adopted process.
        Raises :class:`ImpossibleInput` for what cannot happen in this state.
        """
        try:
            rule = _TABLE[self.state, what]
        except KeyError:
            raise ImpossibleInput(f"{what.value} while {self.state.value}") from None
        return rule(self, now, reason, age_s)

    def settled(self, now: float) -> bool:
        """Return whether the present process has lived long enough for its failures to be history."""
        return self.state is State.RUNNING and now - self._born >= EARLY_S

    # The rules. Each is a row of the table below.

    def _go(self, state: State, *, deadline: float | None) -> None:
        assert (self.state, state) in TRANSITIONS, f"{self.state} -> {state}"
        self.state = state
        self.deadline = deadline

    def _nothing(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        return ()

    def _spawn(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self._go(State.STARTING, deadline=now + START_LIMIT_S)
        if self.attempt > 0:
            self.restarts += 1
        self.attempt += 1
        self._born = now
        return (Action.SPAWN,)

    def _spawn_forgiven(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        # Somebody acts: whatever failed before may have been mended, so it gets all its attempts again.
        self.early_deaths = 0
        return self._spawn(now, reason, age_s)

    def _adopt_ready(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self._go(State.RUNNING, deadline=None)
        self.attempt += 1
        self._born = now - age_s
        return ()

    def _adopt_starting(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self._go(State.STARTING, deadline=now + START_LIMIT_S)
        self.attempt += 1
        self._born = now - age_s
        return ()

    def _ready(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self._go(State.RUNNING, deadline=None)
        return ()

    def _died(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self.failure = Failure(self.attempt, reason)
        if now - self._born < EARLY_S or self.state is not State.RUNNING:
            self.early_deaths += 1
        else:
            self.early_deaths = 0
        if self.early_deaths >= FATAL_AFTER:
            self._go(State.FATAL, deadline=now + FATAL_RETRY_S)
        else:
            # Half the delay is jitter: eight lighthouses killed by one cause don't come back in step.
            delay = min(BACKOFF_S * 2**self.early_deaths, BACKOFF_LIMIT_S) * (0.5 + 0.5 * self.random())
            self._go(State.BACKOFF, deadline=now + delay)
        return ()

    def _terminate(self, now: float, then: State) -> tuple[Action, ...]:
        self._after_stopping = then
        self._go(State.STOPPING, deadline=now + TERM_LIMIT_S)
        return (Action.TERMINATE,)

    def _stop_alive(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self.failure = None
        return self._terminate(now, State.STOPPED)

    def _stop_waiting(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self.failure = None
        self._go(State.STOPPED, deadline=None)
        return ()

    def _restart_alive(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self.early_deaths = 0
        return self._terminate(now, State.STARTING)

    def _never_ready(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        if not self._due(now):
            return ()
        self.failure = Failure(self.attempt, f"nebula was not ready {START_LIMIT_S:.0f} s after its start")
        return self._terminate(now, State.BACKOFF)

    def _kill(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        if not self._due(now):
            return ()
        self.deadline = now + KILL_RETRY_S
        return (Action.KILL,)

    def _stopping_wanted(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self.early_deaths = 0
        self._after_stopping = State.STARTING
        return ()

    def _stopping_unwanted(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        self.failure = None
        self._after_stopping = State.STOPPED
        return ()

    def _gone(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        if self._after_stopping is State.STARTING:
            return self._spawn(now, reason, age_s)
        if self._after_stopping is State.BACKOFF:
            # Stopped by us because it never got ready; that sentence says more than its exit code.
            return self._died(now, self.failure.reason if self.failure else reason, age_s)
        self._go(State.STOPPED, deadline=None)
        self.early_deaths = 0
        return ()

    def _retry(self, now: float, reason: str, age_s: float) -> tuple[Action, ...]:
        return self._spawn(now, reason, age_s) if self._due(now) else ()

    def _due(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline


_M = Machine

# Absent: impossible. A READY may cross with a STOP or RESTART, since the driver sees the line a moment later.
_TABLE: Mapping[tuple[State, Input], Callable[[Machine, float, str, float], tuple[Action, ...]]] = {
    (State.STOPPED, Input.START): _M._spawn_forgiven,
    (State.STOPPED, Input.STOP): _M._nothing,
    (State.STOPPED, Input.RESTART): _M._spawn_forgiven,
    (State.STOPPED, Input.ADOPT_READY): _M._adopt_ready,
    (State.STOPPED, Input.ADOPT_STARTING): _M._adopt_starting,
    (State.STOPPED, Input.TICK): _M._nothing,
    (State.STARTING, Input.START): _M._nothing,
    (State.STARTING, Input.STOP): _M._stop_alive,
    (State.STARTING, Input.RESTART): _M._restart_alive,
    (State.STARTING, Input.SPAWN_FAILED): _M._died,
    (State.STARTING, Input.READY): _M._ready,
    (State.STARTING, Input.EXITED): _M._died,
    (State.STARTING, Input.TICK): _M._never_ready,
    (State.RUNNING, Input.START): _M._nothing,
    (State.RUNNING, Input.STOP): _M._stop_alive,
    (State.RUNNING, Input.RESTART): _M._restart_alive,
    (State.RUNNING, Input.EXITED): _M._died,
    (State.RUNNING, Input.TICK): _M._nothing,
    (State.BACKOFF, Input.START): _M._spawn_forgiven,
    (State.BACKOFF, Input.STOP): _M._stop_waiting,
    (State.BACKOFF, Input.RESTART): _M._spawn_forgiven,
    (State.BACKOFF, Input.TICK): _M._retry,
    (State.STOPPING, Input.START): _M._stopping_wanted,
    (State.STOPPING, Input.STOP): _M._stopping_unwanted,
    (State.STOPPING, Input.RESTART): _M._stopping_wanted,
    (State.STOPPING, Input.SPAWN_FAILED): _M._gone,
    (State.STOPPING, Input.READY): _M._nothing,
    (State.STOPPING, Input.EXITED): _M._gone,
    (State.STOPPING, Input.TICK): _M._kill,
    (State.FATAL, Input.START): _M._spawn_forgiven,
    (State.FATAL, Input.STOP): _M._stop_waiting,
    (State.FATAL, Input.RESTART): _M._spawn_forgiven,
    (State.FATAL, Input.TICK): _M._retry,
}
