"""Brings the newest version into force, proves it, and goes back where it does not prove itself.

Decides nothing by itself: ``decision.py`` does. Knows no control plane. Level-triggered: whatever wakes it, it
compares what was tried with what is in force; and every step is written down before it is taken, so that whoever
starts after a crash or a power cut finishes what was begun.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import trio

from edgegc.agent import decision, render
from edgegc.agent.decision import Decision, Former, Seen, Verdict
from edgegc.agent.reach import AFTER_S
from edgegc.agent.state import Failure, Outcome, State, Trial
from edgegc.errors import Error
from edgegc.nebula import reload
from edgegc.nebula.process import Applied, NebulaUnusable, ProcessStatus, Wanted, in_thread
from edgegc.nebula.states import State as ProcessState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from edgegc.agent.reach import Reach
    from edgegc.agent.settings import Cluster
    from edgegc.agent.state import Memory
    from edgegc.agent.versions import Version, Versions
    from edgegc.clock import Clock
    from edgegc.nebula.process import Disk

BLOCKED_RETRY_S: Final = 60.0
"""After something that is not the version's fault: no nebula, a full disk."""
JITTER_S: Final = 0.5
"""Two hosts that SIGHUP at the same instant can break their tunnel (slackhq/nebula#1066). Where many nodes wake at
once the control plane spreads their downloads over seconds; this is for the few."""
RENEWAL_SLOTS: Final = 8
RENEWAL_SLOT_S: Final = 1.0
"""Where a renewed certificate alone forces a restart, nodes whose addresses follow one another take turns: a pair that
restarts together finds each other only by its lighthouse's next answer, half a second later, and loses pings."""
LIGHTHOUSE_SETTLE_S: Final = 12.0
"""Where the authority is another one, the lighthouses restart, too: every node is known to them again within their
interval of 10 s, and until then a node that restarts may look for its peers in vain."""
START_PATIENCE_S: Final = 60.0
"""A version that lost the lighthouses is tried again at start only when one answers, or after this: just after
boot nothing answers, and a trial without that question would prove nothing."""
GOOD_VERSIONS_KEPT: Final = 3
"""On disk, beside what is in force: for the operator; a bundle takes 10 to 20 KB."""

_log = logging.getLogger(__name__)


class Nebula(Protocol):
    """The nebula process, as far as it concerns us; :class:`edgegc.nebula.process.Process` is one."""

    @property
    def status(self) -> ProcessStatus:
        """What is known now."""

    async def apply(self, wanted: Wanted) -> Applied:
        """Run what is on disk, and prove it. Raises ApplyFailed."""


class Applier:
    """The applier of one cluster. Constructing it does nothing.

    ``test`` lets ``nebula -test`` read a file. ``adopt`` takes over a proven version's servers and signers.
    ``random`` returns floats in [0, 1). ``on_change`` is called whenever what is reported may differ.
    ``disk`` runs blocking work on files.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        versions: Versions,
        memory: Memory,
        nebula: Nebula,
        reach: Reach,
        clock: Clock,
        random: Callable[[], float],
        test: Callable[[Path], Awaitable[None]],
        adopt: Callable[[Version], Awaitable[None]],
        on_change: Callable[[], None],
        disk: Disk = in_thread,
    ) -> None:
        self.trouble: str | None = None
        """What keeps us from going on that is not a version's fault; a sentence for people."""
        self._cluster = cluster
        self._versions = versions
        self._memory = memory
        self._nebula = nebula
        self._reach = reach
        self._clock = clock
        self._random = random
        self._test = test
        self._adopt = adopt
        self._on_change = on_change
        self._disk = disk
        self._woken = trio.Event()
        self._retry_at = math.inf
        self._tried_since_start = False
        self._answered = False
        self._holds = False
        self._hold_at = -math.inf
        self._replaced = False

    def wake(self) -> None:
        """Say that something may be to do: a new version, most likely."""
        self._woken.set()
        self._woken = trio.Event()

    def lighthouse_answers(self) -> None:
        """Say that a lighthouse answers again: what is in force, and lost them, may be proven now."""
        self._answered = True
        self.wake()

    def replaced(self) -> None:
        """Say that nebula, or a certificate or key of the machine's own, is another one than it was.

        What failed may work now, and what is in force may be out of date.
        """
        self._replaced = True
        self.wake()

    async def run(self) -> None:
        """Bring into force what was in force, then whatever is newer, for ever. Cancelling it is like a crash: safe."""
        failure = self._memory.state.failure
        patience_s = START_PATIENCE_S if failure is not None and failure.lost else 0.0
        self._retry_at = trio.current_time() + patience_s
        while True:
            woken = self._woken
            delay_s = await self._turn()
            with trio.move_on_after(delay_s):
                await woken.wait()

    async def _turn(self) -> float:
        """Do what is to be done, and return after how many seconds there may be something again."""
        if self._replaced:
            self._replaced = self._holds = False
            self._hold_at = self._retry_at = -math.inf
        try:
            state = self._memory.state
            if state.trial is not None:
                await self._finish(state.trial)
                return 0.0
            if not self._holds and trio.current_time() >= self._hold_at:
                # The network first; whether something newer deserves a try comes after.
                await self._hold()
            if self._is_due(state):
                await self._try(state.tried)
                return 0.0
        except (NebulaUnusable, OSError) as error:
            self._say_trouble(str(error))
            return BLOCKED_RETRY_S
        retry_s = self._retry_at - trio.current_time() if self._is_failed(state) else math.inf
        return max(0.0, min(retry_s, math.inf if self._holds else self._hold_at - trio.current_time()))

    def _is_failed(self, state: State) -> bool:
        return state.failure is not None and state.failure.version == state.tried

    def _is_due(self, state: State) -> bool:
        if state.tried in (0, state.applied) or not self._versions.has(state.tried):
            return False
        if not self._is_failed(state):
            return True
        if trio.current_time() >= self._retry_at:
            return True
        # Or sooner, where all that was missing is a lighthouse, and one answers now: to the version itself, or, just
        # after our own start, to the one that is in force instead.
        answered, self._answered = self._answered, False
        in_force = self._versions.current() == state.tried
        lost = state.failure is not None and state.failure.lost
        return answered and lost and (in_force or not self._tried_since_start)

    async def _hold(self) -> None:
        """Start or adopt the nebula of the version in force. Where that fails its process goes on trying, and so do we."""
        number = self._versions.current()
        if number is None:
            self._holds = True  # there is nothing to hold yet
            return
        seen = await self._enforce(number, must_reach=False)
        if seen.refused is not None:
            self._say_trouble(f"version {number}: {seen.refused}")

    async def _try(self, number: int) -> None:
        """Test a version, wait its turn, and begin its trial."""
        self._tried_since_start = True
        failure = self._memory.state.failure
        try:
            version = await self._disk(partial(self._versions.load, number))
            await self._pass_test(version)
        except NebulaUnusable:
            raise
        except Error as error:
            # Nothing was touched: what is in force stays in force.
            await self._fail(number, error.message, lost=False)
            return
        await self._wait_for_turn(version)
        if self._memory.state.tried != number:
            return  # a newer one came meanwhile
        has_lost_before = failure is not None and failure.version == number and failure.lost
        trial = Trial(
            version=number,
            back_to=self._memory.state.applied,
            must_reach=has_lost_before or await self._reach.before(),
        )
        await self._memory.change(trial=trial)
        self._on_change()
        await self._finish(trial)

    async def _finish(self, trial: Trial) -> None:
        """Carry a trial to its end, from wherever it was left."""
        if trial.reason is None:
            seen = await self._enforce(trial.version, must_reach=trial.must_reach)
            decided = decision.after_new(seen, no_way_back=await self._no_way_back(trial))
            ran = seen.refused is None
            match decided.verdict:
                case Verdict.ACCEPT:
                    await self._accept(trial.version)
                    return
                case Verdict.STAY:
                    await self._fail(trial.version, _reason(decided), lost=ran)
                    return
            trial = msgspec.structs.replace(trial, reason=decided.reason, lost=ran)
            await self._remember_way_back(trial)
        assert trial.reason is not None
        assert trial.back_to is not None
        _log.warning(
            "version %d goes back to %d: %s",
            trial.version,
            trial.back_to,
            trial.reason,
            extra=self._fields(trial.version),
        )
        seen = await self._enforce(trial.back_to, must_reach=trial.must_reach)
        decided = decision.after_old(seen, new_ran=trial.lost, reason=trial.reason)
        await self._fail(trial.version, _reason(decided), lost=trial.lost)
        if decided.verdict is Verdict.PUT_BACK:
            await self._enforce(trial.version, must_reach=False)

    async def _enforce(self, number: int, *, must_reach: bool) -> Seen:
        """Put a version in force, and look. Raises NebulaUnusable and OSError: neither is a version's fault."""
        self._holds = False
        self._hold_at = trio.current_time() + BLOCKED_RETRY_S
        try:
            version = await self._disk(partial(self._versions.load, number))
            prepared = await self._disk(partial(self._versions.prepare, version, self._cluster))
            await self._disk(partial(self._versions.switch, number))
            others = render.lighthouses(version.config)
            self._reach.aim(others, self._cluster.tun_device)
            applied = await self._nebula.apply(
                Wanted(
                    config=prepared.config,
                    config_digest=prepared.digest,
                    port=render.listen_port(prepared.config),
                    fingerprint=version.fingerprint,
                )
            )
        except NebulaUnusable:
            raise
        except Error as error:
            return Seen(refused=error.message)
        self._holds = True
        self._say_trouble(None)
        if not must_reach or (not others and render.is_lighthouse(version.config)):
            return Seen()  # the only lighthouse there is has nobody to ask
        # Answers that the version before got prove nothing for this one.
        self._reach.forget()
        reached = await self._reach.within(AFTER_S)
        status = self._nebula.status
        if status.state is not ProcessState.RUNNING or status.pid != applied.pid:
            return Seen(refused=status.last_error or "nebula ended while it was being proven")
        return Seen(reached=reached)

    async def _accept(self, number: int) -> None:
        version = await self._disk(partial(self._versions.load, number))
        # Before it is remembered as applied: a crash in between repeats the adoption, never leaves it out.
        await self._adopt(version)
        outcome = Outcome(at=self._clock.now(), version=number, what="applied")
        before = self._memory.state.applied
        await self._memory.conclude(outcome, applied=number, trial=None, failure=None)
        _log.info("version %d is applied", number, extra=self._fields(number))
        self._on_change()
        await self._disk(partial(self._versions.prune, self._good_versions(before)))

    def _good_versions(self, before: int | None) -> set[int]:
        state = self._memory.state
        applied = [outcome.version for outcome in state.history if outcome.what == "applied"]
        keep = {state.tried, *applied[-GOOD_VERSIONS_KEPT:]}
        return keep | ({before} if before is not None else set())

    async def _fail(self, number: int, reason: str, *, lost: bool) -> None:
        earlier = self._memory.state.failure
        attempts = earlier.attempts + 1 if earlier is not None and earlier.version == number else 1
        at = self._clock.now()
        await self._memory.conclude(
            Outcome(at=at, version=number, what="failed", reason=reason),
            trial=None,
            failure=Failure(version=number, reason=reason, lost=lost, attempts=attempts, at=at),
        )
        self._answered = False  # that was before
        delay_s = decision.retry_delay_s(attempts)
        self._retry_at = trio.current_time() + delay_s
        _log.error(
            "version %d failed, next try in %d min: %s",
            number,
            delay_s // 60,
            reason,
            extra=self._fields(number, reason=reason),
        )
        self._on_change()

    async def _remember_way_back(self, trial: Trial) -> None:
        try:
            await self._memory.change(trial=trial)
        except OSError as error:
            # Going back matters more than remembering it: after a crash now, the trial would start anew.
            _log.warning("can't write down that version %d goes back: %s", trial.version, error)

    async def _no_way_back(self, trial: Trial) -> str | None:
        former: Former | None = None
        refused: frozenset[str] = frozenset()
        if trial.back_to is not None and trial.back_to != trial.version:
            try:
                old = await self._disk(partial(self._versions.load, trial.back_to))
                former = Former(version=old.number, fingerprint=old.fingerprint, not_after=old.not_after)
            except (Error, OSError) as error:
                return f"version {trial.back_to} cannot be gone back to: {error}"
        try:
            new = await self._disk(partial(self._versions.load, trial.version))
            refused = render.blocklist(new.config)
        except (Error, OSError):
            pass  # what cannot be read blocklists nobody
        return decision.way_back(former, blocklist=refused, now=self._clock.now())

    async def _pass_test(self, version: Version) -> None:
        """Let nebula test a twin of the version. Nothing is in force yet."""
        await self._disk(partial(self._versions.prepare, version, self._cluster))
        twin = await self._disk(partial(self._versions.write_twin, version, self._cluster))
        try:
            await self._test(twin)
        finally:
            await self._disk(partial(twin.unlink, missing_ok=True))

    async def _wait_for_turn(self, version: Version) -> None:
        """Lighthouses and relays restart one after the other; all others at slightly different times."""
        current = self._versions.current()
        if self._nebula.status.state is not ProcessState.RUNNING or current is None:
            return
        delay_s = JITTER_S * self._random()
        try:
            old = await self._disk(partial(self._versions.load, current))
        except (Error, OSError):
            await trio.sleep(delay_s + version.manifest.restart_delay_s)
            return
        if self._restarts(old, version):
            delay_s += self._turn_s(old, version)
            if delay_s > JITTER_S:
                _log.info(
                    "version %d restarts nebula in %d s",
                    version.number,
                    delay_s,
                    extra=self._fields(version.number),
                )
        await trio.sleep(delay_s)

    def _turn_s(self, old: Version, new: Version) -> float:
        """Return for how long others may restart first."""
        delay_s = float(new.manifest.restart_delay_s)
        if not delay_s and old.config == new.config and new.renews(old):
            address = int(new.details.ips[0].ip) if new.details.ips else 0
            delay_s = address % RENEWAL_SLOTS * RENEWAL_SLOT_S
            if old.details.issuer != new.details.issuer:
                delay_s += LIGHTHOUSE_SETTLE_S
        # Whoever waits until its own certificate has ended is cut off, as with certificates of a minute.
        return min(delay_s, max(0.0, (old.not_after - self._clock.now()) / 2))

    def _restarts(self, old: Version, version: Version) -> bool:
        return (
            reload.plan(
                old.config,
                version.config,
                nebula_version=self._nebula.status.nebula_version or (0, 0, 0),
                certificate_changed=old.fingerprint != version.fingerprint,
                authorities_added=not version.authorities <= old.authorities,
                authorities_removed=not old.authorities <= version.authorities,
            ).action
            == "restart"
        )

    def _say_trouble(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble is not None:
                _log.error("%s", trouble, extra=self._fields(None))
            self._on_change()

    def _fields(self, version: int | None, **more: object) -> dict[str, object]:
        return {"cluster_id": self._cluster.id, "node_id": self._cluster.node_id, "version": version, **more}


def _reason(decided: Decision) -> str:
    assert decided.reason is not None, f"{decided.verdict} without a reason"
    return decided.reason
