"""What a run found, as it is written to a file: the ``edgegc.perf/1`` document, all of it.

Knows no scenario and no way to show or to measure anything. ``schema.json`` beside this file is its JSON Schema. Times are
Unix seconds, durations seconds unless a name says otherwise, sizes bytes. No token, address, path or host name is in it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from edgegc.perf.histogram import Counts

SCHEMA: Final = "edgegc.perf/1"

Status = Literal["ok", "invalid", "failed", "unavailable"]
"""``invalid``: measured, but the measurement can't be trusted. ``failed``: the scenario broke. ``unavailable``: this
machine lacks what it needs (a reason names it)."""

Model = Literal["open", "closed", "none"]
"""``open``: arrivals on a schedule, latency from the intended time. ``closed``: each connection asks again when it is
answered: how much can it do. ``none``: no load; each sample is one operation."""

Better = Literal["lower", "higher", "neither"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number with its unit: ``s``, ``bytes``, ``percent``, ``count``, ``per_s``, ``ratio`` …"""

    value: float
    unit: str
    better: Better = "lower"
    note: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the watched processes (the server and its children) used, once a second."""

    at_s: float
    """Since the measurement began."""
    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    cpu_s: float
    """User and system time since the measurement began."""
    fds: int
    context_switches: int
    written_bytes: int
    database_bytes: int
    wal_bytes: int


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened while it was measured: a checkpoint, a restart, a change."""

    at_s: float
    what: str


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference came to that was asked in turns with a case: how fast the machine was at that very time."""

    reference: str
    requests: int
    duration_s: float
    """Of its own turns."""
    server_cpu_s: float | None
    """Of the reference."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition of one case of a scenario."""

    repetition: int
    model: Model
    duration_s: float
    requests: int = 0
    errors: dict[str, int] = {}
    """By kind: ``status 503``, ``timeout``, ``reset``, ``refused``, ``malformed``, ``dropped`` …"""
    latency: Counts = Counts()
    lag: Counts = Counts()
    """How late the generator sent what was due: of open load only."""
    per_second: tuple[int, ...] = ()
    """Requests answered in each whole second."""
    figures: dict[str, Figure] = {}
    samples: tuple[Sample, ...] = ()
    marks: tuple[Mark, ...] = ()
    generator_cpu_s: float = 0.0
    server_cpu_s: float | None = None
    """Of the server and its children in the measured time; None where no server is watched."""
    throttled_s: float = 0.0
    """For how long the control group held the server back."""
    paces: tuple[Pace, ...] = ()
    """Of closed load. With any, durations are those of the case's own turns, and samples were taken through all turns."""
    invalid: tuple[str, ...] = ()
    """Why this can't be trusted; empty where it can."""

    @property
    def throughput(self) -> float:
        """Requests answered per second."""
        return self.requests / self.duration_s if self.duration_s else 0.0


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a scenario measures: ``api.version[hot]`` is scenario ``api.version``, case ``hot``.

    Without variants the case is empty.
    """

    scenario: str
    case: str
    proves: str
    status: Status
    reasons: tuple[str, ...] = ()
    in_process: bool = False
    """Measured in one process with the store, where its functions are called, not over HTTP."""
    parameters: dict[str, str | int | float | bool] = {}
    measurements: tuple[Measurement, ...] = ()

    @property
    def name(self) -> str:
        """The name that thresholds, comparisons and people use."""
        return f"{self.scenario}[{self.case}]" if self.case else self.scenario


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The machine it was measured on; ``fingerprint`` is a hash of what makes two machines comparable."""

    fingerprint: str
    name_hash: str
    system: str
    kernel: str
    machine: str
    cpu_model: str
    cores: int
    memory_bytes: int
    swap_bytes: int
    governor: str
    temperature_c: float | None
    cgroup: str
    filesystem: str
    fsync_p50_s: float | None
    fsync_p99_s: float | None
    """None where the run was ended before that was known."""
    load_1m: float


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """The emulated device: a memory limit, and a quota of one core with its period."""

    memory_bytes: int
    cpu_percent: float
    period_us: int
    cgroup: Literal["v1", "v2"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold and what was found. ``held`` is None where nothing valid was measured."""

    name: str
    """``api.version[hot] p99 < 10ms``."""
    kind: Literal["floor", "goal"]
    held: bool | None
    found: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    schema: Literal["edgegc.perf/1"] = SCHEMA
    made_at: int
    duration_s: float
    argv: tuple[str, ...]
    suite: str
    seed: int
    repeat: int
    partial: bool
    """It was interrupted: what is missing was not measured."""
    host: Host
    device: Device | None
    versions: dict[str, str]
    """Of edgegc (version and commit), Python, SQLite, nebula, trio …"""
    references: tuple[Case, ...] = ()
    """``raw_echo``, ``plain_quart``: measured in the same run, so that goals are ratios that travel."""
    cases: tuple[Case, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    warnings: tuple[str, ...] = ()
