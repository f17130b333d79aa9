"""What the load generator is told, and what it answers: the words between the suite and the generator's process.

Requests come complete, as bytes: the generator knows HTTP's framing and nothing of our API.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgegc.perf.histogram import Counts


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request in a plan."""

    name: str
    requests: tuple[bytes, ...]
    """Complete requests, head and body. Which is sent: see ``order``."""
    weight: int = 1
    """How often, beside the other kinds."""
    order: Literal["connection", "shared"] = "shared"
    """``connection``: connection i always sends request i modulo their number (a node's identity stays on its connection);
    ``shared``: each sending takes the next one, whoever sends it."""
    once: bool = False
    """Each request is sent at most once (creates, deletes); the plan ends when they are used up."""
    expected: tuple[int, ...] = (200,)
    """Statuses that are no error."""
    times: bool = False
    """Tell when each answer was complete (:attr:`Answered.at_ns`): for a few thousand answers, not for millions."""
    conditional: bool = False
    """Each connection sends, in ``If-None-Match``, the ``ETag`` that it was last given for such a request; the generator
    adds that header. What is known to have changed is then asked for as a client does that remembers."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect; ``tls`` without any check of the certificate: the suite knows its own server."""

    host: str
    port: int
    tls: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A load: how many connections, what they ask, and when."""

    target: Target
    asks: tuple[Ask, ...]
    connections: int
    duration_s: float
    warmup_s: float = 0.0
    """Load before the measured time, of which nothing is counted."""
    rate_per_s: float | None = None
    """None: closed model. Else open: so many arrivals a second over all connections, at exponential distances (Poisson)."""
    seed: int = 0
    timeout_s: float = 30.0
    connect_within_s: float | None = None
    """The connections are opened evenly over this time before the load begins; 0: all at once; None: 1,000 a second."""
    eager: bool = False
    """The load begins with the first connection: each asks as soon as it is open, and opening counts as measured time."""
    cpu: int | None = None
    """The core that the generator stays on."""
    pids: tuple[int, ...] = ()
    """Processes whose processor time is told with the load: the target's."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one kind of request."""

    name: str
    requests: int
    """Answered with an expected status; all else is in ``errors``, and not in ``latency``."""
    errors: dict[str, int]
    """``timeout``, ``reset``, ``closed`` (before the answer was complete), ``malformed``, ``status 503`` …"""
    latency: Counts
    """From the intended time (open), or from the sending (closed), to the answer's last byte."""
    bytes_read: int
    """Heads included, TLS not."""
    at_ns: tuple[int, ...] = ()
    """When each answer was complete, where its ask wants to know: ``time.monotonic_ns()``, which all processes share."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a plan."""

    began_at: float
    """Unix time at which the measured time began."""
    began_ns: int = 0
    """The same moment as ``time.monotonic_ns()``, for :attr:`Answered.at_ns`."""
    duration_s: float
    """The plan's; shorter where it was stopped, or everything to be sent once was sent. In turns its own time alone."""
    asks: tuple[Answered, ...]
    errors: dict[str, int]
    """Of connections that no request was on: ``refused``, ``connect timeout``, ``tls`` … from the first one on."""
    lag: Counts
    """Open model: how late the generator was with what was due, whether or not a connection was free."""
    per_second: tuple[int, ...]
    """Answers as expected in each whole second of the measured time; what is left over is in none."""
    connect: Counts
    """How long connections took to be open, TLS included."""
    cpu_s: float
    """Of the generator in the measured time."""
    server_cpu_s: float | None = None
    """Of the plan's processes from the beginning of the measured time to its end, other plans' turns included; None without
    any, or where one has ended."""
    dropped: int
    """Open model: arrivals for which no connection was free within the timeout."""
    reconnects: int = 0
    """Connections opened again: the server closed them, or they failed with a request on them."""
    connected: int = 0
    """Open at the end."""
    unanswered: dict[str, int] = {}
    """By kind of request: out when the time was up, and not counted (closed model, or stopped)."""
    fewest_answers: int = 0
    most_answers: int = 0
    """Of one connection, warmup included: whether some were served at the cost of others."""
    partial: bool = False
    """It was stopped before its time."""


Phase = Literal["connecting", "waiting", "warmup", "measuring", "draining", "over"]
"""``waiting``: for its turn."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a plan is; told some times a second."""

    phase: Phase
    measured_s: float
    """Of the measured time, so far."""
    connected: int
    """Connections that are open."""
    waiting: int
    """Requests that are out. Held ones, too: when all are, whatever they are held for may happen."""
    backlog: int
    """Open model: arrivals that wait for a connection."""
    requests: int
    """Counted so far."""
    errors: int
