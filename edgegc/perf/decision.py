"""When a release is called slower than another: the rule of decision, as arithmetic on numbers. Knows no report.

A machine is noisy, and a suite compares hundreds of quantities: whoever cries at each one that is 10 % worse by chance is
soon not heard. A quantity (say, the CPU time per request of one case) is called a regression where all of this holds:

1. It is worse by at least ``factor``, all repetitions of a side taken together (percentiles of merged histograms, never
   averages of percentiles).
2. The 95 % bootstrap interval of that ratio excludes 1. What is drawn, with replacement, are **whole repetitions**: the
   seconds of one repetition are correlated (one start, one heap, one database, one neighbour on the machine), and drawing
   those would make a thousand independent witnesses out of one.
3. The shift exceeds so many standard errors that among **all** the quantities judged a false alarm has a probability of at
   most :data:`FAMILY` (Bonferroni, one-sided, Student's t on logarithms of the repetitions' values with Welch's degrees of
   freedom).
4. If references were measured in the same runs, 1 to 3 are asked of the quantity *beside the references of the same
   repetition*, and absolutely it must be worse by half the factor (its root) at least. A machine that was slower while the
   new release was measured slows the references too, one that was faster hides nothing; and a reference that had a good moment
   accuses nobody. Where both took turns within seconds they had the same moments: then it is enough that the absolute
   interval leaves room for that much.

The standard error is no less than is credible. Five values may lie close together by luck, or far apart by one accident: a
side's variance is its own and the usual one of that kind of quantity together, each weighed by its degrees of freedom, which
add up (an empirical Bayes estimate; Smyth 2004, for genes of which there are few samples each, too). What is usual is the median
over all sides and cases compared in the same way. Of few of them it hardly counts; beside references that took turns it is then
at least what was seen before (:data:`IN_TURNS`), and counts. Two runs of the same release differ by more than their
repetitions explain: :data:`DRIFT` is added, so that no number of repetitions proves a difference of a per cent or two. One
repetition alone has no spread: then :data:`ALONE` stands for it, and only what is gross can be called. The bootstrap interval is
widened by a normal jitter to the same variance.

What is short of it is never called fine for that: **ok** is where the interval excludes a slowdown by ``factor``, and
everything between is **unsure**, with the number of repetitions that about would decide it.

``tests/unit/test_perf_decision.py`` simulates this (``--long``, which prints the numbers): heavy tails, a spread of its own for each
quantity, a machine up to a tenth slower in one of the runs and 13 % from case to case, references that take turns with the
closed cases, four repetitions a side, or five of which a tenth is invalid. Of 6,000 suites of one to three cases compared with
themselves 23 raised an alarm, and of 500 of 60 cases with 240 quantities none; an endpoint that is 15 % slower was found in 1,170 of
1,200 and in 99 of 100.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, get_args

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["throughput", "cpu", "p50", "p99", "mean", "memory", "figure"]
"""What spreads alike. Spreads are standard deviations of the logarithm: 0.05 is about 5 %."""
Decision = Literal["regression", "unsure", "ok", "better"]

FAMILY: Final = 0.01
"""Probability of any false alarm in one comparison, however many quantities it has: in five of the full suite 5 % at most,
and in practice far less, for condition 1 has to be passed as well."""
INTERVAL: Final = 0.95
RESAMPLES: Final = 2_000
"""The ends of a 95 % interval then vary by about a twentieth of its width."""
DRIFT: Final[Mapping[Kind, float]] = {
    "throughput": 0.015,
    "cpu": 0.01,
    "p50": 0.02,
    "p99": 0.06,
    "mean": 0.03,
    "memory": 0.01,
    "figure": 0.03,
}
"""By how much two runs of one release differ beyond the spread of their repetitions."""
UNANCHORED: Final = 0.04
"""By how much a machine's speed differs from run to run, where no reference tells: added to the drift of what is time."""
ALONE: Final[Mapping[Kind, float]] = {
    "throughput": 0.12,
    "cpu": 0.12,
    "p50": 0.20,
    "p99": 0.40,
    "mean": 0.25,
    "memory": 0.05,
    "figure": 0.30,
}
"""The spread that is assumed where nothing was repeated: what a shared virtual machine shows on its worst day. One release
against itself, once each on a machine that others used too, had 1.29 times the CPU time per request."""
ALONE_FREEDOM: Final = 30
"""As so many degrees of freedom it counts: it was chosen for being seldom exceeded."""
ENOUGH_FREEDOM: Final = 8
"""From so many in all on (two sides of five) a kind needs no spread that is assumed."""
FEW_FREEDOM: Final = 1
"""What their median then counts as: it is hardly more than the spread that it is weighed against."""
IN_TURNS: Final = 0.4
"""What is left of :data:`ALONE` beside references that took turns. Seven sides of one case, four and five repetitions each on a
virtual machine, had throughputs with a spread (root mean square) of 14 % as they stand, of 4 % beside plain Quart."""
IN_TURNS_FREEDOM: Final = 4
"""As so many degrees of freedom that counts: those seven spreads differed by no more than chance explains."""
MANY_FREEDOM: Final = 24
"""From so many in all on (three cases) the median of the spreads is what is usual."""
USUAL_FREEDOM: Final = 2
"""As so many that median counts: the cases of a kind differ in spread by a factor of two as a rule, and with more of them a
suite of hundreds of quantities would believe too well of the few that spread most."""
MOST_RUNS: Final = 100
"""More repetitions than this are no advice."""


How = Literal["absolute", "beside", "in turns"]
"""How a quantity is looked at: as it stands, beside references of the same repetition, beside those that it took turns with."""


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """The spread of a repetition that is usual, and what it weighs beside a side's own."""

    spread: float
    freedom: int
    """Degrees of freedom."""


Usual = Mapping[tuple[Kind, How], Prior]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity on one side: a value for each repetition, and what it is for several of them together."""

    values: tuple[float, ...]
    """All greater than 0."""
    together: Callable[[tuple[int, ...]], float]
    """Takes the numbers of repetitions, any of them repeatedly, in rising order."""

    @property
    def all_together(self) -> float:
        """The quantity over all repetitions."""
        return self.together(tuple(range(len(self.values))))

    @property
    def freedom(self) -> int:
        """Degrees of freedom of its spread."""
        return len(self.values) - 1

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithms; 0 for one value."""
        if not self.freedom:
            return 0.0
        # statistics.stdev reckons in fractions, which a simulation of thousands of suites feels.
        logs = [math.log(value) for value in self.values]
        return math.dist(logs, [statistics.fmean(logs)] * len(logs)) / math.sqrt(self.freedom)


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity on both sides."""

    kind: Kind
    higher_is_better: bool
    timed: bool = True
    """A slower machine makes it worse: it is time, or a rate."""
    base: Series
    new: Series
    base_beside: Series | None = None
    """The same divided by the references of the same repetition, so that a slower machine cancels out; both or none."""
    new_beside: Series | None = None
    in_turns: bool = False
    """Those references took turns with the case."""
    only_beside: bool = False
    """The sides were measured on different machines: nothing absolute can be compared."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """How much worse, and how sure. All ratios are so turned that more than 1 is worse."""

    ratio: float
    low: float
    high: float
    shift: float
    """Difference of the means of the logarithms."""
    error: float
    """Its standard error, at least what is credible."""
    critical: float
    """So many standard errors are needed."""
    spread: float
    """Of one repetition, both sides together; without the drift."""

    @property
    def strength(self) -> float:
        """How many standard errors the shift is, more than 0 for worse."""
        return self.shift / self.error

    def is_worse(self, factor: float) -> bool:
        """Whether conditions 1 to 3 hold."""
        return self.ratio >= factor and self.low > 1 and self.strength >= self.critical

    def is_better(self, factor: float) -> bool:
        """Whether the same holds the other way round."""
        return self.ratio <= 1 / factor and self.high < 1 and -self.strength >= self.critical


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one quantity."""

    decision: Decision
    absolute: Evidence
    beside: Evidence | None
    suspicious: bool = False
    """Unsure, and worse by more than the factor: unsure whether it is so, not only whether it can be excluded."""
    why: str = ""
    """Where the numbers alone don't tell it."""
    needs: int | None = None
    """Unsure: so many more repetitions on each side would about decide it; None where more of them would not help."""


def usual_spreads(pairs: Iterable[Pair]) -> Usual:
    """Return the spread of a repetition that is usual for each kind of quantity in these runs, as it is looked at."""
    seen: dict[tuple[Kind, How], list[Series]] = {}
    for pair in pairs:
        beside: How = "in turns" if pair.in_turns else "beside"
        looked_at: tuple[tuple[How, Series | None], ...] = (
            (beside, pair.base_beside),
            (beside, pair.new_beside),
            *(() if pair.only_beside else (("absolute", pair.base), ("absolute", pair.new))),
        )
        for how, side in looked_at:
            if side is not None and side.freedom:
                seen.setdefault((pair.kind, how), []).append(side)

    def usual(kind: Kind, how: How) -> Prior:
        sides = seen.get((kind, how), ())
        freedom = sum(side.freedom for side in sides)
        median = statistics.median(side.spread for side in sides) if sides else 0.0
        if freedom >= MANY_FREEDOM:
            return Prior(spread=median, freedom=USUAL_FREEDOM)
        if how == "in turns" and freedom:
            return Prior(spread=max(IN_TURNS * ALONE[kind], median), freedom=IN_TURNS_FREEDOM)
        if freedom >= ENOUGH_FREEDOM:
            return Prior(spread=median, freedom=FEW_FREEDOM)
        return Prior(spread=ALONE[kind], freedom=ALONE_FREEDOM)

    return {(kind, how): usual(kind, how) for kind in ALONE for how in get_args(How)}


def judge(
    pair: Pair,
    *,
    factor: float,
    among: int,
    usual: Usual,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Judgement:
    """Say whether a quantity got worse. ``among``: how many are judged in all; ``usual``: see :func:`usual_spreads`."""

    drift = DRIFT[pair.kind]
    if pair.timed and pair.base_beside is None:
        drift = math.hypot(drift, UNANCHORED)

    def evidence(base: Series, new: Series, how: How) -> Evidence:
        return _evidence(
            base,
            new,
            sign=-1.0 if pair.higher_is_better else 1.0,
            drift=drift,
            among=among,
            usual=usual[pair.kind, how],
            seed=seed,
            resamples=resamples,
        )

    absolute = evidence(pair.base, pair.new, "absolute")
    beside = (
        evidence(pair.base_beside, pair.new_beside, "in turns" if pair.in_turns else "beside")
        if pair.base_beside is not None and pair.new_beside is not None
        else None
    )
    judged = absolute if beside is None else beside
    runs = min(len(pair.base.values), len(pair.new.values))
    # Whether the absolute ratio goes far enough in the same direction.
    half = math.log(factor) / 2
    alone = judged is absolute or pair.only_beside
    worse_too = alone or math.log(absolute.high if pair.in_turns else absolute.ratio) >= half
    better_too = alone or -math.log(absolute.low if pair.in_turns else absolute.ratio) >= half

    def said(
        decision: Decision, why: str = "", needs: int | None = None, *, suspicious: bool = False
    ) -> Judgement:
        return Judgement(
            decision=decision, absolute=absolute, beside=beside, suspicious=suspicious, why=why, needs=needs
        )

    if judged.is_worse(factor):
        if not worse_too:
            return said("unsure", "only beside the references, which got faster", suspicious=True)
        return said("regression")
    if judged.is_better(factor):
        # A machine that was slower while the references ran is no merit of the release.
        return said("better" if better_too else "ok")
    if judged.ratio >= factor:
        return said("unsure", "", _to_prove(judged, drift, among, runs), suspicious=True)
    if judged.high < factor:
        return said("ok")
    return said("unsure", "", _to_exclude(judged, drift, factor, runs))


def critical_value(probability: float, freedom: float) -> float:
    """Return what Student's t exceeds with this probability.

    Wallace's transformation of the normal quantile (1959): within 1.5 % of the exact one from 4 degrees of freedom on.
    """
    normal = -statistics.NormalDist().inv_cdf(probability)
    if math.isinf(freedom):
        return normal
    scaled = normal * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(min(scaled * scaled / freedom, 500.0)))


def _evidence(
    base: Series,
    new: Series,
    *,
    sign: float,
    drift: float,
    among: int,
    usual: Prior,
    seed: int,
    resamples: int,
) -> Evidence:
    error_squared = drift * drift
    jitter_squared = drift * drift
    slack = 0.0
    believed = []
    for side in (base, new):
        count, own = len(side.values), side.spread
        freedom = side.freedom + usual.freedom
        spread = math.sqrt((side.freedom * own * own + usual.freedom * usual.spread * usual.spread) / freedom)
        believed.append(spread)
        part = spread * spread / count
        error_squared += part
        slack += part * part / freedom
        # Drawing repetitions shows (n - 1)/n of their own variance; the rest of what is believed is added.
        jitter_squared += max(0.0, part - own * own * (count - 1) / (count * count))
    low, high = _interval(base, new, sign, math.sqrt(jitter_squared), seed, resamples)
    return Evidence(
        ratio=math.exp(sign * (math.log(new.all_together) - math.log(base.all_together))),
        low=low,
        high=high,
        shift=sign * (_mean_log(new) - _mean_log(base)),
        error=math.sqrt(error_squared),
        critical=critical_value(
            FAMILY / max(1, among), error_squared * error_squared / slack if slack else math.inf
        ),
        spread=math.sqrt(statistics.fmean(each * each for each in believed)),
    )


def _interval(
    base: Series, new: Series, sign: float, jitter: float, seed: int, resamples: int
) -> tuple[float, float]:
    draws_base = _draws(len(base.values), resamples, seed)
    draws_new = _draws(len(new.values), resamples, seed + 1)
    noise = _noise(resamples, seed)
    # There are few different draws of few repetitions: 126 of five.
    logs_base = {draw: math.log(base.together(draw)) for draw in set(draws_base)}
    logs_new = {draw: math.log(new.together(draw)) for draw in set(draws_new)}
    found = sorted(
        sign * (logs_new[there] - logs_base[here]) + jitter * moved
        for here, there, moved in zip(draws_base, draws_new, noise, strict=True)
    )
    tail = (1 - INTERVAL) / 2
    return math.exp(found[int(tail * resamples)]), math.exp(found[math.ceil((1 - tail) * resamples) - 1])


@cache
def _draws(count: int, resamples: int, seed: int) -> tuple[tuple[int, ...], ...]:
    drawn = random.Random(f"draws {seed} {count}")
    numbers = range(count)
    return tuple(tuple(sorted(drawn.choices(numbers, k=count))) for _ in range(resamples))


@cache
def _noise(resamples: int, seed: int) -> tuple[float, ...]:
    drawn = random.Random(f"noise {seed}")
    return tuple(drawn.gauss(0.0, 1.0) for _ in range(resamples))


def _mean_log(series: Series) -> float:
    return statistics.fmean(map(math.log, series.values))


def _to_prove(evidence: Evidence, drift: float, among: int, runs: int) -> int | None:
    """Return how many more repetitions would make this shift, if it is real, significant; None: too many."""
    shift = min(evidence.shift, math.log(evidence.ratio))
    return _more(
        runs,
        lambda count, error: shift >= error * critical_value(FAMILY / max(1, among), max(2 * (count - 1), 1)),
        evidence.spread,
        drift,
    )


def _to_exclude(evidence: Evidence, drift: float, factor: float, runs: int) -> int | None:
    """Return how many more repetitions would make the interval end below ``factor``, if this ratio is the true one."""
    room = math.log(factor / evidence.ratio)
    normal = critical_value((1 - INTERVAL) / 2, math.inf)
    return _more(runs, lambda _, error: room >= error * normal, evidence.spread, drift)


def _more(runs: int, enough: Callable[[int, float], bool], spread: float, drift: float) -> int | None:
    for count in range(runs + 1, runs + MOST_RUNS + 1):
        if enough(count, math.sqrt(2 * spread * spread / count + drift * drift)):
            return count - runs
    return None
