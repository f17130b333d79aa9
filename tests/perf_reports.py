"""Reports as a run makes them, without a run: seeded noise around known truths, so that a test knows what is to be found."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edgegc.perf.histogram import Counts, Histogram
from edgegc.perf.result import (
    Case,
    Device,
    Figure,
    Host,
    Mark,
    Measurement,
    Pace,
    Report,
    Sample,
    Verdict,
)

MIB: Final = 1 << 20
HOST: Final = Host(
    fingerprint="5f3c9a70b1e2d4c8",
    name_hash="c0ffee",
    system="Debian GNU/Linux 12",
    kernel="6.1.0-18-arm64",
    machine="aarch64",
    cpu_model="Cortex-A72",
    cores=4,
    memory_bytes=3_900 * MIB,
    swap_bytes=0,
    governor="performance",
    temperature_c=52.0,
    cgroup="v2",
    filesystem="ext4",
    fsync_p50_s=0.004,
    fsync_p99_s=0.021,
    load_1m=0.2,
)


@dataclass(kw_only=True)
class Truth:
    """What a machine and a release really are. Spreads are standard deviations of logarithms, repetition to repetition."""

    seed: int = 0
    repeat: int = 5
    slower: dict[str, float] = field(default_factory=dict)
    """By scenario: how many times as much CPU time a request takes."""
    machine: float = 1.0
    """How many times as long everything takes."""
    wobble: float = 0.02
    """How much the machine's speed differs between repetitions, for references and cases alike."""
    spread: float = 0.02
    moods: float = 0.0
    """How much it differs besides from case to case, within a repetition."""
    in_turns: bool = False
    """Whether plain Quart takes turns with closed cases, and so meets the same moods."""
    errors: dict[str, float] = field(default_factory=dict)
    """By scenario: the share of requests that go wrong."""


def report(truth: Truth | None = None, *, version: str = "1.0.0 (1234567)", device: bool = False) -> Report:
    """Return the report of a small suite: an endpoint under closed and open load, a database, a start, what can't be measured."""
    truth = truth or Truth()
    drawn = random.Random(f"report {truth.seed}")
    speeds = [truth.machine * math.exp(drawn.gauss(0, truth.wobble)) for _ in range(truth.repeat)]

    def loads(scenario: str, case: str, proves: str, cost_us: float, *, per_s: float | None = None) -> Case:
        cost = cost_us * truth.slower.get(scenario, 1.0)
        return Case(
            scenario=scenario,
            case=case,
            proves=proves,
            status="ok",
            parameters={"connections": 64, **({"rate_per_s": per_s} if per_s else {})},
            measurements=tuple(
                load(
                    drawn,
                    repetition=number,
                    cost_s=cost * speed * 1e-6,
                    per_s=per_s,
                    spread=truth.spread,
                    wrong=truth.errors.get(scenario, 0.0),
                    paces=(pace(drawn, 520e-6 * speed),) if truth.in_turns and not per_s else (),
                )
                for number, speed in enumerate(_moody(drawn, speeds, truth.moods))
            ),
        )

    return Report(
        made_at=1_795_430_000,
        duration_s=912.0,
        argv=("edgegc", "perf", "run", "--suite", "full"),
        suite="full",
        seed=7,
        repeat=truth.repeat,
        partial=False,
        host=HOST,
        device=Device(memory_bytes=512 * MIB, cpu_percent=25.0, period_us=10_000, cgroup="v2")
        if device
        else None,
        versions={"edgegc": version, "Python": "3.11.2", "SQLite": "3.40.1", "trio": "0.35.0"},
        references=(
            loads("raw_echo", "64", "what api.version[hot-closed] is compared with", 24.0),
            loads("plain_quart", "64", "what api.version[hot-closed] is compared with", 520.0),
        ),
        cases=(
            loads("api.version", "hot-closed", "how many version checks it can answer", 40.0),
            loads("api.version", "hot-open", "how long a version check waits", 40.0, per_s=1000.0),
            loads("api.node_create", "closed", "how many nodes it can create", 240.0),
            _inserts(drawn, truth, speeds),
            _start(drawn, truth, speeds),
            Case(
                scenario="lighthouse.gap",
                case="",
                proves="that a change costs no ping",
                status="unavailable",
                reasons=("it needs nebula, which is not in PATH; name it with --nebula PATH",),
            ),
        ),
        verdicts=(
            Verdict(name="api.version[hot-open] p99 < 10ms", kind="floor", held=True, found="3.1ms"),
            Verdict(
                name="api.node_create[closed] throughput > 500/s", kind="floor", held=False, found="417/s"
            ),
            Verdict(name="lighthouse.gap pings lost <= 0", kind="goal", held=None, found="unavailable"),
        ),
        warnings=(
            "the processor's governor is 'powersave': 'cpupower frequency-set -g performance' before measuring",
        ),
    )


def load(
    drawn: random.Random,
    *,
    repetition: int,
    cost_s: float,
    per_s: float | None,
    spread: float,
    seconds: int = 10,
    wrong: float = 0.0,
    samples: int = 3_000,
    paces: tuple[Pace, ...] = (),
) -> Measurement:
    """Return a repetition under load whose requests cost so much CPU time; few latencies stand for the many."""
    cost_s *= math.exp(drawn.gauss(0, spread))
    rate = per_s or 0.97 / cost_s
    wait_s = cost_s * 64 if per_s is None else cost_s * 4
    requests = int(rate * seconds)
    latency = Histogram.of(int(wait_s * math.exp(drawn.gauss(0, 0.35)) * 1e9) for _ in range(samples))
    counts = latency.counts()
    scale = max(1, requests // samples)
    cpu_s = cost_s * requests
    return Measurement(
        repetition=repetition,
        model="closed" if per_s is None else "open",
        duration_s=float(seconds),
        requests=requests,
        errors={"status 503": int(requests * wrong)} if wrong else {},
        latency=Counts(
            slots=counts.slots,
            counts=tuple(count * scale for count in counts.counts),
            sum_ns=counts.sum_ns * scale,
            max_ns=counts.max_ns,
        ),
        lag=Histogram.of([40_000] * 2_000).counts() if per_s else Counts(),
        per_second=tuple(int(rate * math.exp(drawn.gauss(0, 0.03))) for _ in range(seconds)),
        samples=tuple(
            Sample(
                at_s=float(second),
                rss_bytes=int((52 + 0.4 * second) * MIB),
                pss_bytes=int((47 + 0.4 * second) * MIB),
                private_bytes=int((44 + 0.4 * second) * MIB * math.exp(drawn.gauss(0, 0.003))),
                cpu_s=cpu_s * second / seconds,
                fds=80,
                context_switches=900 * second,
                written_bytes=12_000 * second,
                database_bytes=2 * MIB,
                wal_bytes=(400_000 * second) % (2 * MIB),
            )
            for second in range(seconds + 1)
        ),
        marks=(Mark(at_s=6.0, what="checkpoint"),),
        generator_cpu_s=4.2,
        server_cpu_s=cpu_s,
        paces=paces,
    )


def pace(drawn: random.Random, cost_s: float) -> Pace:
    """Return what plain Quart came to in five seconds of its turns."""
    cost_s *= math.exp(drawn.gauss(0, 0.01))
    requests = int(5.0 / cost_s)
    return Pace(
        reference="plain_quart", requests=requests, duration_s=5.0, server_cpu_s=0.97 * cost_s * requests
    )


def _moody(drawn: random.Random, speeds: list[float], moods: float) -> list[float]:
    return [speed * math.exp(drawn.gauss(0, moods)) for speed in speeds] if moods else speeds


def _inserts(drawn: random.Random, truth: Truth, speeds: list[float]) -> Case:
    return Case(
        scenario="db.node_insert",
        case="1",
        proves="how long a node takes to be stored",
        status="ok",
        in_process=True,
        parameters={"nodes": 1},
        measurements=tuple(
            Measurement(
                repetition=number,
                model="none",
                duration_s=4.0,
                requests=2_000,
                latency=Histogram.of(
                    int(1e6 * speed * truth.slower.get("db.node_insert", 1.0) * math.exp(drawn.gauss(0, 0.4)))
                    for _ in range(2_000)
                ).counts(),
                figures={
                    "bytes_per_node": Figure(value=1_412.0, unit="bytes"),
                    "writes": Figure(
                        value=800.0 / speed * math.exp(drawn.gauss(0, truth.spread)),
                        unit="per_s",
                        better="higher",
                        note="each durable",
                    ),
                },
            )
            for number, speed in enumerate(speeds)
        ),
    )


def _start(drawn: random.Random, truth: Truth, speeds: list[float]) -> Case:
    return Case(
        scenario="start.warm",
        case="",
        proves="how long a start takes until the first answer",
        status="ok",
        measurements=tuple(
            Measurement(
                repetition=number,
                model="none",
                duration_s=3.0,
                requests=5,
                latency=Histogram.of(
                    int(0.52e9 * speed * math.exp(drawn.gauss(0, truth.spread))) for _ in range(5)
                ).counts(),
            )
            for number, speed in enumerate(speeds)
        ),
    )


def invalid(case: Case, why: str) -> Case:
    """Return a case of which no repetition can be trusted."""
    return msgspec.structs.replace(
        case,
        status="invalid",
        measurements=tuple(msgspec.structs.replace(m, invalid=(why,)) for m in case.measurements),
    )
