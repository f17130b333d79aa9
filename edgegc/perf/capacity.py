"""How many nodes this box carries, and which resource it is that would carry no more.

Knows no command line. A blind bisection at the edge would follow the noise: one slow second decides. So what a node costs is
measured where the server is calm (processor time of a poll, memory of a node), the resource that is used up first says how
many nodes there may be, and a real fleet of so many is run to see whether that is true. It is corrected by what that run
used, and the answer is a number that has been run.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.errors import Unavailable
from edgegc.perf import fleet, metrics
from edgegc.perf.fleet import HOLD_S, Fleet
from edgegc.perf.result import Case
from edgegc.perf.scenario import Scenario

if TYPE_CHECKING:
    from edgegc.perf.bench import Bench
    from edgegc.perf.ground import Ground
    from edgegc.perf.result import Measurement

MIB: Final = 1024 * 1024
BUDGET_BYTES: Final = 128 * MIB
"""What the product may use on a small box, before it calls itself degraded."""
PROCESSOR_SHARE: Final = 0.8
"""Of what the server may have: beyond it queues grow, and no change has room."""
CALM_SHARES: Final = (0.25, 0.5)
"""Of what it can do at most: where a poll's processor time is measured."""
CALM_S: Final = 8.0
LEAST_SLOPE: Final = 0.5
"""Of the cost of a poll with all that is idle in it: the cost of one more is not less than this."""
RUSH_S: Final = 4.0
RUSH_CONNECTIONS: Final = 64
FEW: Final = 300
MANY: Final = 3000
"""Nodes between which the memory of one is measured."""
SPARE_FILES: Final = 256
ENDLESS_FILES: Final = 1 << 20
"""What the kernel allows where no limit is set (``fs.nr_open``)."""
ATTEMPTS: Final = 6
GOOD_SHARE: Final = 0.93
"""A run that used this much of its scarcest resource is at the edge: what is left is less than two runs differ by."""
AIM_SHARE: Final = 0.965
"""What is aimed at: as far from the edge as from what is not near enough to it."""
BACK_SHARE: Final = 0.85
"""Of a number that was too many for a reason that is no quantity, errors or slow answers; each time that much more."""
SHORTEST_S: Final = 20.0
ROUNDS: Final = 1.2
"""Intervals that a fleet is run for at least, so that every node has asked."""
LONGEST_S: Final = 90.0
HELD_RUN_S: Final = 60.0
CHANGE_EVERY_S: Final = 20.0
"""While polls are held, without a change there would be nothing to time."""
CASES: Final = ("calm-1", "calm-2", "few", "many", "carried")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold: p99 in seconds, private memory in bytes. ``interval_s`` None: polls are held."""

    interval_s: float | None
    p99_s: float
    memory_bytes: int
    tls: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The most nodes, and what limits them: a word, and a sentence with the quantities."""

    nodes: int
    limit: str
    why: str
    estimates: dict[str, int]
    """How many nodes each resource alone would carry."""


@dataclass
class Costs:
    """What was measured of a calm server."""

    polls_per_s: float
    """That use up the processor time it may have."""
    base_bytes: float
    node_bytes: float
    files: int

    def most(self, limits: Limits) -> dict[str, int]:
        """Return how many nodes each resource carries."""
        interval_s = HOLD_S if limits.interval_s is None else limits.interval_s
        return {
            "processor": int(self.polls_per_s * interval_s),
            "memory": int((limits.memory_bytes - self.base_bytes) / self.node_bytes),
            "open files": self.files - SPARE_FILES,
        }


@dataclass
class Search:
    """Looks for the most nodes that can be run, among numbers that have been run. Pure.

    Say :meth:`ran` of each run; :attr:`next` is the number to be run next, None when the answer is known.
    """

    next: int | None
    carried: int = 0
    refused: int | None = None
    limit: str = ""
    attempts: int = 0
    tried: list[tuple[int, str, float]] = field(default_factory=list)

    def ran(self, shares: dict[str, float], broken: str) -> None:
        """Take a run of :attr:`next`: the share of each resource that it used, and what was broken in it, if anything."""
        nodes = self.next
        assert nodes is not None
        self.attempts += 1
        scarcest = max(shares, key=lambda name: shares[name])
        share = shares[scarcest]
        self.tried.append((nodes, scarcest, share))
        good = share <= 1 and not broken
        if good and nodes > self.carried:
            self.carried = nodes
            if self.refused is None or not self.limit:
                self.limit = scarcest
        elif not good and (self.refused is None or nodes < self.refused):
            self.refused, self.limit = nodes, broken or scarcest
        self.next = self._propose(nodes, good=good, share=share, broken=broken)

    def _propose(self, nodes: int, *, good: bool, share: float, broken: str) -> int | None:
        if self.attempts >= ATTEMPTS or (good and share >= GOOD_SHARE):
            return None
        proposed = int(nodes * BACK_SHARE**self.attempts) if broken else int(nodes / share * AIM_SHARE)
        if self.refused is not None and self.carried:
            if self.carried >= GOOD_SHARE * self.refused:
                return None
            if not self.carried < proposed < self.refused:
                proposed = (self.carried + self.refused) // 2
        return max(1, proposed) if proposed != nodes else None


def scenario(limits: Limits, answers: list[Answer]) -> Scenario:
    """Return the search as a scenario; what it finds is appended to ``answers``."""

    async def run(bench: Bench) -> None:
        answers.append(await find(bench, limits))

    return Scenario(
        name="capacity",
        proves="the most nodes that this box carries",
        run=run,
        cases=CASES,
        quick_s=0,
        full_s=240,
        ram_bytes=4 * limits.memory_bytes,
    )


async def find(bench: Bench, limits: Limits) -> Answer:
    """Measure, and return how many nodes this box carries. Raises Unavailable where it carries none."""
    costs = await _costs(bench, limits)
    estimates = costs.most(limits)
    first = int(AIM_SHARE * min(estimates.values()))
    if first < 1:
        raise Unavailable(
            f"this box carries no node: without any the server has {costs.base_bytes / MIB:.0f} MiB of memory, and"
            f" {limits.memory_bytes / MIB:.0f} MiB are allowed; say --memory"
        )
    search = Search(next=first)
    best: Measurement | None = None
    while search.next is not None:
        nodes = search.next
        shares, broken, measured = await _attempt(bench, limits, nodes, costs)
        search.ran(shares, broken)
        if search.carried == nodes:
            best = measured
    if best is None:
        # Else the report would have the last one that was not carried, and not the reason.
        bench.found.pop("carried", None)
        raise Unavailable(
            f"no fleet was carried, the smallest had {min(nodes for nodes, _, _ in search.tried)} nodes: {search.limit}"
        )
    found = bench.found["carried"]
    found.measurements[:] = [best]
    found.parameters["nodes"] = search.carried
    return Answer(
        nodes=search.carried,
        limit=search.limit,
        why="; ".join(f"{nodes:,} nodes: {share:.0%} of {name}" for nodes, name, share in search.tried),
        estimates=estimates,
    )


async def _costs(bench: Bench, limits: Limits) -> Costs:
    """Measure what a poll and a node cost. Each weight is that of a fresh server: they keep what they once had."""
    async with fleet.place(bench, nodes=FEW, tls=limits.tls) as ground:
        can = await fleet.most_polls(bench, ground, connections=RUSH_CONNECTIONS, seconds=RUSH_S)
        spent = []
        for number, share in enumerate(CALM_SHARES, 1):
            calm = Fleet(nodes=FEW, interval_s=FEW / (share * can), duration_s=CALM_S)
            measured = await _measured(bench, ground, calm, f"calm-{number}")
            spent.append((measured.requests / measured.duration_s, _cpu_share(bench, measured)))
    weights = []
    for case, nodes in (("few", FEW), ("many", MANY)):
        interval_s = None if limits.interval_s is None else max(CALM_S, nodes / (CALM_SHARES[0] * can))
        weighed = Fleet(nodes=nodes, interval_s=interval_s, duration_s=interval_s or CALM_S)
        async with fleet.place(bench, nodes=nodes, tls=limits.tls) as ground:
            weights.append(_private(await _measured(bench, ground, weighed, case)))
    node_bytes = max(1.0, (weights[1] - weights[0]) / (MANY - FEW))
    return Costs(
        polls_per_s=bearable_polls(*spent),
        base_bytes=weights[0] - FEW * node_bytes,
        node_bytes=node_bytes,
        files=_files(),
    )


def bearable_polls(slow: tuple[float, float], fast: tuple[float, float]) -> float:
    """Return how many polls a second leave enough of the processor, by what two loads (polls, share) used of it."""
    polls = fast[0] - slow[0]
    # A straight line through both; noise must not make polls free, nor the idle server cost less than nothing.
    per_poll = max((fast[1] - slow[1]) / polls if polls > 0 else 0.0, LEAST_SLOPE * fast[1] / fast[0])
    idle = max(0.0, fast[1] - per_poll * fast[0])
    return max(0.0, PROCESSOR_SHARE - idle) / per_poll


async def _attempt(
    bench: Bench, limits: Limits, nodes: int, costs: Costs
) -> tuple[dict[str, float], str, Measurement]:
    """Run a fleet of so many; return the share that it used of each resource, and what was broken, if anything."""
    interval_s = limits.interval_s
    duration_s = HELD_RUN_S if interval_s is None else min(LONGEST_S, max(SHORTEST_S, ROUNDS * interval_s))
    wanted = Fleet(
        nodes=nodes,
        interval_s=interval_s,
        duration_s=duration_s,
        change_every_s=CHANGE_EVERY_S if interval_s is None else None,
    )
    async with fleet.place(bench, nodes=nodes, tls=limits.tls) as ground:
        measured = await _measured(bench, ground, wanted, "carried", timed=True)
    shares = {
        "processor": _cpu_share(bench, measured) / PROCESSOR_SHARE,
        # Of what is left for nodes: that much is in proportion to them.
        "memory": (_private(measured) - costs.base_bytes) / (limits.memory_bytes - costs.base_bytes),
        "open files": nodes / (costs.files - SPARE_FILES),
    }
    broken = ""
    if measured.errors:
        broken = "errors: " + ", ".join(f"{count} {kind}" for kind, count in measured.errors.items())
    else:
        case = Case(scenario="", case="", proves="", status="ok", measurements=(measured,))
        p99_s = metrics.latency(case).value_at(99) / metrics.NS_PER_S if measured.requests else 0.0
        if p99_s > limits.p99_s:
            broken = f"latency: p99 {p99_s * 1000:.0f} ms"
    return shares, broken, measured


async def _measured(
    bench: Bench, ground: Ground, wanted: Fleet, case: str, *, timed: bool = False
) -> Measurement:
    """Run a fleet; return what was measured. Where times count, it is run once more if they can't be trusted.

    Raises Unavailable where they can't then either.
    """
    for last in (False, True):
        bench.found.pop(case, None)
        await fleet.measure(bench, ground, wanted, case=case)
        measured = bench.found[case].measurements[-1]
        if not (timed and measured.invalid):
            return measured
        if last:
            raise Unavailable(f"nothing can be said of this box: {'; '.join(measured.invalid)}")
    raise AssertionError


def _files() -> int:
    """Return how many files a process may have open here: the server takes all that it can get."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return ENDLESS_FILES if allowed == resource.RLIM_INFINITY else allowed


def _private(measured: Measurement) -> float:
    return max(sample.private_bytes for sample in measured.samples)


def _cpu_share(bench: Bench, measured: Measurement) -> float:
    """Return which part of the processor time that it may have a server used."""
    allowed = bench.device.cpu_percent / 100 if bench.device else 1.0
    return (measured.server_cpu_s or 0.0) / measured.duration_s / allowed
