"""The states of a supervised nebula process, and which may follow which. A leaf: knows nothing else.

The model is Supervisor's: the states are data, and every change is asserted against :data:`TRANSITIONS`.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """What is known of one supervised nebula; the value is what API and logs show."""

    STOPPED = "stopped"
    """Nobody wants it to run, and it does not."""

    STARTING = "starting"
    """Being spawned, or spawned and not past its ready line: must not be sent SIGHUP, which would kill it."""

    RUNNING = "running"
    """Past its ready line."""

    BACKOFF = "backoff"
    """Ended by itself; comes back when the delay is over."""

    STOPPING = "stopping"
    """Was sent SIGTERM; SIGKILL follows when it takes too long."""

    FATAL = "fatal"
    """Ended early too often; tried again rarely, or at once when somebody applies or restarts."""


TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.STOPPED, State.STARTING),  # wanted, or adopted before its ready line
        (State.STOPPED, State.RUNNING),  # adopted
        (State.STARTING, State.RUNNING),  # ready line
        (State.STARTING, State.BACKOFF),  # could not be spawned, or ended before the ready line
        (State.STARTING, State.FATAL),  # the same, once too often
        (State.STARTING, State.STOPPING),  # unwanted, to be restarted, or never got ready
        (State.RUNNING, State.BACKOFF),  # crashed
        (State.RUNNING, State.FATAL),  # crashed early, once too often
        (State.RUNNING, State.STOPPING),  # unwanted, or to be restarted
        (State.BACKOFF, State.STARTING),  # delay over, or somebody applies or restarts
        (State.BACKOFF, State.STOPPED),  # unwanted
        (State.STOPPING, State.STOPPED),  # gone
        (State.STOPPING, State.STARTING),  # gone, and wanted again
        (State.STOPPING, State.BACKOFF),  # gone after it never got ready
        (State.STOPPING, State.FATAL),  # the same, once too often
        (State.FATAL, State.STARTING),  # the rare retry, or somebody applies or restarts
        (State.FATAL, State.STOPPED),  # unwanted
    }
)

ALIVE: frozenset[State] = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
"""States in which there is, or is about to be, a process."""
