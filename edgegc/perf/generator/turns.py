"""Closed loads that take turns: only one of them is under way at any time.

A shared machine's speed changes by a tenth within seconds. What is measured in turns that are shorter, over and over, meets the
same moods, so that the ratio of two loads tells more than either.

A turn is over when what was sent in it has been answered; then the next one begins. So no load has another's requests in
its way, nor a wait in its latencies. That last part, in which it asks no more, counts as its own time as well: the server works
until the last answer, and answers a second are right. The processor time of a server is that of the whole time: what it does
outside its turns is the consequence of what it was asked.
"""

from __future__ import annotations

import time
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

import msgspec

from edgegc.perf.generator.course import Course
from edgegc.perf.generator.schedule import NEVER_NS, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgegc.perf.generator.connections import Connection, Place
    from edgegc.perf.generator.loop import Loop
    from edgegc.perf.plan import Load, Plan, Progress

PATIENCE_NS: Final = 10 * NS_PER_S
"""For so long a turn waits for its last answers. What is lost comes to its timeout in somebody else's turn, and is counted."""


class Rounds:
    """Several plans. In each round each has one turn, the first plan the last one; all end when the first one does.

    How far they are is not told.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        places: Sequence[Place],
        turn_s: float,
        loop: Loop,
    ) -> None:
        self._loop = loop
        self._courses = [
            _Turns(plan, place=place, loop=loop, on_pause=self._paused)
            for plan, place in zip(plans, places, strict=True)
        ]
        self._turn_ns = int(turn_s * NS_PER_S)
        self._turns = self._order(max(1, round(plans[0].duration_s / turn_s)))

    async def run(self) -> tuple[Load, ...]:
        """Go through all of them and return what became of each. Cancelling closes all connections."""
        try:
            for course in self._courses:
                course.start()
            await self._loop.run()
            return tuple(course.load() for course in self._courses)
        finally:
            for course in self._courses:
                course.close()

    def stop(self) -> None:
        """End now: what is out is not waited for, and the loads say that they are partial."""
        for course in self._courses:
            course.stop()

    def _order(self, rounds: int) -> Iterator[tuple[_Turns, int, bool]]:
        """Iterate over whose turn it is, for how long, and whether it counts. A warmup is a turn of its own."""
        first, *others = self._courses
        for course in (*others, first):
            if course.warmup_ns:
                yield course, course.warmup_ns, False
        for _ in range(rounds):
            for course in (*others, first):
                yield course, self._turn_ns, True
            if first.used_up:
                return

    def _paused(self) -> None:
        """Hear that one is ready, or that its turn is over."""
        if all(course.ready for course in self._courses):
            self._loop.call_at(monotonic_ns(), self._go_on)

    def _go_on(self) -> None:
        turn = next(self._turns, None)
        if turn is None:
            for course in self._courses:
                course.end()
        else:
            course, for_ns, counts = turn
            course.take(for_ns, counts=counts)


class _Turns(Course):
    """A closed plan whose time is its turns. ``on_pause`` is told when it is ready, and when a turn is over."""

    def __init__(
        self,
        plan: Plan,
        *,
        place: Place,
        loop: Loop,
        on_pause: Callable[[], None],
    ) -> None:
        super().__init__(plan, place=place, loop=loop, on_progress=_ignore)
        self.warmup_ns: Final = int(plan.warmup_s * NS_PER_S)
        self.ready = False
        self.used_up = False
        """It has nothing left to ask."""
        self._on_pause = on_pause
        self._counted_from_ns = NEVER_NS
        self._counting = False
        self._last_ns = 0
        self._patient_until_ns = 0

    def take(self, for_ns: int, *, counts: bool) -> None:
        """Ask for so long, from now on."""
        if self._over:
            return
        now_ns = monotonic_ns()
        self._counting = counts
        self._phase = "warmup"
        if counts and not self._began_at:
            self._counted_from_ns = self._begin_ns = self._end_ns = now_ns
            self._measure()
        elif counts:
            # The measured time goes on as if it had never paused.
            self._phase = "measuring"
            self._begin_ns += now_ns - self._end_ns
            self._cpu_begin_s = time.process_time() - self._cpu_s
        if counts:
            self._end_ns = NEVER_NS
        self._sending = True
        self._loop.call_at(now_ns + for_ns, self._drain)
        for connection in self._connections:
            if connection.idle:
                self._next(connection)

    def end(self) -> None:
        """It is over: there are no more turns."""
        self._finish()

    def answered(self, connection: Connection) -> None:
        """Count the answer, as any course does."""
        if not self._sending:
            self._last_ns = monotonic_ns()
        super().answered(connection)

    def load(self) -> Load:
        """Return what became of it, once it is over."""
        return msgspec.structs.replace(super().load(), began_ns=self._counted_from_ns)

    # What is different where a course has pauses.

    def _begin(self) -> None:
        self._phase = "waiting"
        self.ready = True
        self._on_pause()

    def _counts(self, due_ns: int, now_ns: int) -> bool:
        """What was sent in a turn counts, whenever it is answered."""
        return due_ns >= self._counted_from_ns

    def _rest(self, connection: Connection, *, everybody: bool) -> None:
        super()._rest(connection, everybody=everybody)
        self.used_up = everybody or self._resting == len(self._connections)

    def _drain(self) -> None:
        """The turn is over but for what is out."""
        if self._phase not in ("warmup", "measuring"):
            return
        self._phase = "draining"
        self._sending = False
        self._last_ns = monotonic_ns()
        self._patient_until_ns = self._last_ns + PATIENCE_NS
        self._drained()

    def _drained(self) -> None:
        if self._waiting and monotonic_ns() < self._patient_until_ns:
            return
        self._phase = "waiting"
        if self._counting:
            self._end_ns = self._last_ns
            self._cpu_s = time.process_time() - self._cpu_begin_s
        self._on_pause()


def _ignore(_progress: Progress) -> None:
    pass
