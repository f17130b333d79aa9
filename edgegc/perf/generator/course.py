"""The course of a plan: connections are opened, then load, then the measured time, then what is still out.

Decides who asks when; connections tell it what happened, and it tells the tally. Nothing here waits: see the loop.

Closed model: whoever is answered asks again; counted is what is answered in the measured time. Open model: who is due is
sent on the connection that has been idle longest, or waits for one; counted is what was due in the measured time, from the
moment it was due, whenever it is answered. Otherwise a server that stops for a second would hold up the generator, which
would then ask nothing in that second and see no wait (coordinated omission, G. Tene).
"""

from __future__ import annotations

import time
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from edgegc.perf import process
from edgegc.perf.generator.connections import Connection
from edgegc.perf.generator.schedule import NEVER_NS, NS_PER_S, Arrivals, Deck, UsedUp
from edgegc.perf.generator.tally import Tally
from edgegc.perf.plan import Load, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.perf.generator.connections import Place
    from edgegc.perf.generator.loop import Loop
    from edgegc.perf.plan import Phase, Plan

SWEEP_NS: Final = 50_000_000
"""How often it is looked for what took too long: a timeout is that much late at most."""
SWEEPS_PER_PROGRESS: Final = 5
OPENED_PER_S: Final = 1000
"""Connections, where a plan does not say: servers accept this many while they answer."""
RETRY_FIRST_NS: Final = 100_000_000
RETRY_LONGEST_NS: Final = 1_000_000_000
"""A connection that breaks with a request on it is opened again at once; one that breaks without, or again before it was
answered, after the first, which doubles each time, to the longest: a server that is full turns clients away, and those that
came back at once would be all that it sees."""


class Course:
    """One plan, from its first connection to its last answer. :mod:`edgegc.perf.generator.turns` has one with pauses."""

    def __init__(
        self, plan: Plan, *, place: Place, loop: Loop, on_progress: Callable[[Progress], None]
    ) -> None:
        self._plan = plan
        self._loop = loop
        self._on_progress = on_progress
        self._tally = Tally(plan)
        self._deck = Deck(plan.asks, connections=plan.connections, seed=plan.seed)
        self._connections = [
            Connection(index, place=place, loop=loop, owner=self) for index in range(plan.connections)
        ]
        self._phase: Phase = "connecting"
        self._sending = False
        self._timeout_ns = int(plan.timeout_s * NS_PER_S)
        # Kept in the order in which they were begun, so that what is overdue is found at the front.
        self._waiting: dict[Connection, int] = {}
        self._opening: dict[Connection, int] = {}
        self._open = 0
        self._tried = 0
        self._settled: set[int] = set()
        self._resting = 0
        self._sweeps = 0
        # Open model only.
        self._arrivals: Arrivals | None = None
        self._idle: deque[Connection] = deque()
        self._fresh: deque[Connection] = deque()
        """Not asked yet since they were opened: they come first, for servers close who connects and is silent."""
        self._backlog: deque[int] = deque()
        # Of the measured time.
        self._begin_ns = NEVER_NS
        self._end_ns = NEVER_NS
        self._began_at = 0.0
        self._cpu_begin_s = 0.0
        self._cpu_s = 0.0
        self._server_cpu_begin_s: float | None = None
        self._server_cpu_s: float | None = None
        self._partial = False
        self._unanswered: dict[str, int] = {}

    async def run(self) -> tuple[Load]:
        """Go through it and return what became of it. Cancelling closes all connections."""
        self.start()
        try:
            await self._loop.run()
            return (self.load(),)
        finally:
            self.close()

    def start(self) -> None:
        """Begin to open connections; all else follows, once the loop runs."""
        begin_ns = monotonic_ns()
        if self._plan.eager:
            self._begin()
        self._loop.call_at(begin_ns, lambda: self._open_more(begin_ns))
        self._loop.call_at(begin_ns + SWEEP_NS, self._sweep)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def stop(self) -> None:
        """End now: what is out is not waited for, and the load says that it is partial."""
        if self._phase != "over":
            self._partial = True
            self._finish()

    # Told by connections.

    def opened(self, connection: Connection) -> None:
        """It can be asked."""
        self._open += 1
        connection.fresh = True
        self._opening.pop(connection, None)
        self._tally.connect.record(connection.opened_in_ns)
        self._settle(connection)
        # The last one to settle is asked there already.
        if connection.idle and (self._sending or self._backlog):
            self._next(connection)

    def answered(self, connection: Connection) -> None:
        """Count the answer, and have the connection ask again where it is its turn."""
        now_ns = monotonic_ns()
        del self._waiting[connection]
        connection.answers += 1
        connection.failures = 0
        reader = connection.reader
        due_ns = connection.due_ns
        if self._counts(due_ns, now_ns):
            self._tally.answer(
                connection.kind,
                reader.status,
                read=reader.read,
                latency_ns=now_ns - due_ns,
                now_ns=now_ns,
                since_ns=now_ns - self._begin_ns,
            )
        if self._plan.asks[connection.kind].conditional:
            etag = reader.value(b"etag")
            if etag is not None:
                connection.etags[connection.kind] = etag
        if not reader.keeps:
            connection.close()
            self._reopen(connection, now_ns)
        elif self._sending or self._backlog:
            self._next(connection)
        if self._phase == "draining":
            self._drained()

    def failed(self, connection: Connection, kind: str) -> None:
        """Count the error, and open the connection again."""
        now_ns = monotonic_ns()
        if connection.asked:
            del self._waiting[connection]
            if self._counts(connection.due_ns, now_ns):
                self._tally.kinds[connection.kind].errors[kind] += 1
            self._reopen(connection, now_ns)
        elif self._opening.pop(connection, None) is not None:
            self._tally.errors["connect timeout" if kind == "timeout" else kind] += 1
            self._settle(connection)
            connection.failures = max(1, connection.failures)
            self._open_again(connection, now_ns)
        else:
            self._tally.errors[kind] += 1
            connection.failures = max(1, connection.failures)
            self._reopen(connection, now_ns)
        if self._phase == "draining":
            self._drained()

    def left(self, connection: Connection) -> None:
        """The server closed an idle connection: no error, but another one is needed."""
        connection.failures = max(1, connection.failures)
        self._reopen(connection, monotonic_ns())

    # Connections.

    def _open_more(self, begin_ns: int) -> None:
        """Open those whose turn has come, evenly over the time that the plan gives."""
        plan = self._plan
        within_s = plan.connections / OPENED_PER_S if plan.connect_within_s is None else plan.connect_within_s
        gap_ns = within_s * NS_PER_S / plan.connections
        while self._tried < plan.connections and not self._over:
            due_ns = begin_ns + int(self._tried * gap_ns)
            if due_ns > monotonic_ns():
                self._loop.call_at(due_ns, lambda: self._open_more(begin_ns))
                return
            self._tried += 1
            self._open_one(self._connections[self._tried - 1])

    def _open_one(self, connection: Connection) -> None:
        if not self._over:
            self._opening[connection] = monotonic_ns()
            connection.open()

    def _reopen(self, connection: Connection, now_ns: int) -> None:
        self._open -= 1
        self._tally.reconnects += 1
        self._open_again(connection, now_ns)

    def _open_again(self, connection: Connection, now_ns: int) -> None:
        failures = connection.failures
        wait_ns = min(RETRY_FIRST_NS << min(failures - 1, 10), RETRY_LONGEST_NS) if failures else 0
        connection.failures = failures + 1
        self._loop.call_at(now_ns + wait_ns, lambda: self._open_one(connection))

    def _settle(self, connection: Connection) -> None:
        """The load begins once every connection is open, or has failed to."""
        if self._phase == "connecting":
            self._settled.add(connection.index)
            if len(self._settled) == len(self._connections):
                self._begin()

    # Load.

    def _begin(self) -> None:
        plan = self._plan
        now_ns = monotonic_ns()
        self._phase = "warmup"
        self._sending = True
        self._begin_ns = now_ns + int(plan.warmup_s * NS_PER_S)
        self._end_ns = self._begin_ns + int(plan.duration_s * NS_PER_S)
        self._loop.call_at(self._begin_ns, self._measure)
        self._loop.call_at(self._end_ns, self._time_is_up)
        if plan.rate_per_s is not None:
            self._arrivals = Arrivals(rate_per_s=plan.rate_per_s, seed=plan.seed, begin_ns=now_ns)
            self._loop.on_due = self._arrive
            self._loop.due_ns = self._arrivals.due_ns
        # Asking is told back at once where it fails, and never answered before the loop goes on.
        for connection in self._connections:
            if connection.idle:
                self._next(connection)
        if plan.warmup_s == 0:
            self._measure()

    def _measure(self) -> None:
        if self._phase == "warmup":
            self._phase = "measuring"
            self._began_at = time.time()
            self._cpu_begin_s = time.process_time()
            self._server_cpu_begin_s = self._used_by_server()

    def _used_by_server(self) -> float | None:
        try:
            return sum(process.stat(pid).cpu_s for pid in self._plan.pids) if self._plan.pids else None
        except process.Gone:
            return None

    def _counts(self, due_ns: int, now_ns: int) -> bool:
        moment_ns = now_ns if self._arrivals is None else due_ns
        return self._begin_ns <= moment_ns < self._end_ns

    def _next(self, connection: Connection) -> None:
        """Have an idle connection ask, where it is its turn; else it waits for it."""
        if self._arrivals is None:
            self._ask(connection, monotonic_ns())
        elif self._backlog:
            if not self._ask(connection, self._backlog[0]):
                return
            self._backlog.popleft()
        elif not connection.queued:
            connection.queued = True
            (self._fresh if connection.fresh else self._idle).append(connection)

    def _ask(self, connection: Connection, due_ns: int) -> bool:
        """Send what comes next; return False where this connection has nothing left to ask."""
        try:
            connection.kind, request = self._deck.draw(connection.index)
        except UsedUp as used_up:
            self._rest(connection, everybody=used_up.shared)
            return False
        if connection.kind in connection.etags:
            request = _unless(request, connection.etags[connection.kind])
        connection.due_ns = due_ns
        connection.fresh = False
        self._waiting[connection] = monotonic_ns()
        connection.send(request)
        return True

    def _arrive(self) -> None:
        """Send what is due, on whoever has been idle longest."""
        arrivals = self._arrivals
        assert arrivals is not None
        while (due_ns := arrivals.due_ns) < self._end_ns and self._sending:
            now_ns = monotonic_ns()
            if due_ns > now_ns:
                self._loop.due_ns = due_ns
                return
            if due_ns >= self._begin_ns:
                # How late we are, whether or not a connection is free: that part is the server's.
                self._tally.lag.record(now_ns - due_ns)
            arrivals.advance()
            if not self._send_on_idle(due_ns):
                self._backlog.append(due_ns)
        self._loop.due_ns = NEVER_NS

    def _send_on_idle(self, due_ns: int) -> bool:
        while queue := self._fresh or self._idle:
            connection = queue.popleft()
            connection.queued = False
            # It may have been closed since, and is put here again when it is open.
            if connection.idle and self._ask(connection, due_ns):
                return True
        return False

    def _rest(self, connection: Connection, *, everybody: bool) -> None:
        if not connection.resting:
            connection.resting = True
            self._resting += 1
        if everybody or self._resting == len(self._connections):
            self._backlog.clear()
            self._drain()

    # The end.

    def _time_is_up(self) -> None:
        self._measure()
        if self._sending:
            self._drain()
        elif self._phase == "draining":
            self._drained()

    def _drain(self) -> None:
        """Nothing more is due. Of the open model, and of what is sent once, every answer is waited for."""
        if self._phase not in ("warmup", "measuring"):
            return
        self._measure()
        self._phase = "draining"
        self._sending = False
        self._loop.due_ns = NEVER_NS
        self._cpu_s = time.process_time() - self._cpu_begin_s
        self._drained()

    def _drained(self) -> None:
        closed = self._arrivals is None and monotonic_ns() >= self._end_ns
        if closed or not (self._waiting or self._backlog):
            self._finish()

    def _finish(self) -> None:
        if self._phase in ("warmup", "measuring"):
            self._cpu_s = time.process_time() - self._cpu_begin_s if self._began_at else 0.0
        self._end_ns = min(self._end_ns, monotonic_ns())
        if self._server_cpu_begin_s is not None and (used_s := self._used_by_server()) is not None:
            self._server_cpu_s = used_s - self._server_cpu_begin_s
        self._sending = False
        self._phase = "over"
        for connection in self._waiting:
            name = self._plan.asks[connection.kind].name
            self._unanswered[name] = self._unanswered.get(name, 0) + 1
        self._loop.stop()

    @property
    def _over(self) -> bool:
        return self._phase == "over"

    def _sweep(self) -> None:
        """Give up what took too long, and say how far it is."""
        now_ns = monotonic_ns()
        limit_ns = now_ns - self._timeout_ns
        for begun in (self._waiting, self._opening):
            overdue = []
            for connection, begun_ns in begun.items():
                if begun_ns > limit_ns:
                    break
                overdue.append(connection)
            for connection in overdue:
                connection.give_up()
        while self._backlog and self._backlog[0] <= limit_ns:
            if self._counts(self._backlog.popleft(), now_ns):
                self._tally.dropped += 1
        if self._phase == "draining":
            self._drained()
        self._sweeps += 1
        if self._sweeps % SWEEPS_PER_PROGRESS == 0:
            self._on_progress(self._progress(now_ns))
        self._loop.call_at(now_ns + SWEEP_NS, self._sweep)

    def _progress(self, now_ns: int) -> Progress:
        measured_ns = max(0, now_ns - self._begin_ns) if self._phase != "connecting" else 0
        return Progress(
            phase=self._phase,
            measured_s=measured_ns / NS_PER_S,
            connected=self._open,
            waiting=len(self._waiting),
            backlog=len(self._backlog),
            requests=self._tally.answers,
            errors=self._tally.failures,
        )

    def load(self) -> Load:
        """Return what became of it, once it is over."""
        tally = self._tally
        duration_s = max(0, self._end_ns - self._begin_ns) / NS_PER_S if self._began_at else 0.0
        answers = [connection.answers for connection in self._connections]
        return Load(
            began_at=self._began_at,
            began_ns=self._begin_ns,
            duration_s=duration_s,
            asks=tuple(kind.answered() for kind in tally.kinds),
            errors=dict(tally.errors),
            lag=tally.lag.counts(),
            per_second=tuple(tally.per_second[: int(duration_s)]),
            connect=tally.connect.counts(),
            cpu_s=self._cpu_s,
            server_cpu_s=self._server_cpu_s,
            dropped=tally.dropped,
            reconnects=tally.reconnects,
            connected=self._open,
            unanswered=dict(self._unanswered),
            fewest_answers=min(answers),
            most_answers=max(answers),
            partial=self._partial,
        )


def _unless(request: bytes, etag: bytes) -> bytes:
    """Return the request for what is not known yet."""
    at = request.index(b"\r\n") + 2
    return request[:at] + b"If-None-Match: " + etag + b"\r\n" + request[at:]
