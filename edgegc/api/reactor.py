"""The reactor: one epoll and one task for the clients that poll, whose own tasks sleep meanwhile.

To resume a client's own task, and to have it wait again, costs more than a version check does, and most of all among a
thousand clients: then nothing of any of them is in the processor's cache. So a connection whose last request was the lane's
comes here; what is ready is answered in one pass, by plain calls; and the task goes on with whatever is not for the lane.
Knows no HTTP.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

import outcome
import trio

from edgegc.api import bounds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgegc.api.lane_protocol import Held, Lane
    from edgegc.api.link import Link

EVENTS: Final = 64
"""Taken from the kernel at once. It hands them out in turns, so nobody is forgotten."""
TURN_S: Final = 0.002
"""While there is always something to do, all else that the daemon does has its turn so often."""
SLACK_S: Final = 5.0
"""How much sooner a rest may end than it should, so that a busy client's deadline is not moved at each request."""


class _Seat:
    """A connection that is here: its link, where it comes from, and its sleeping task."""

    __slots__ = ("link", "renewed_at", "resting", "source", "task")

    def __init__(self, link: Link, *, source: str, resting: trio.CancelScope) -> None:
        self.link = link
        self.source = source
        self.resting = resting
        self.task = trio.lowlevel.current_task()
        self.renewed_at = 0.0

    def renew(self, now: float) -> None:
        """Let the client have its time anew until its next request."""
        self.renewed_at = now
        self.resting.deadline = now + bounds.KEEP_ALIVE_S


class Reactor:
    """Answers the version checks of all connections that wait in :meth:`serve`. ``run`` is the one task."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._epoll = select.epoll()
        self._seats: dict[int, _Seat] = {}

    def __len__(self) -> int:
        """Return how many connections are here."""
        return len(self._seats)

    async def serve(self, link: Link, *, source: str, resting: trio.CancelScope) -> bytes | Held | None:
        """Answer the link's version checks until something else is to be done, and return what is to be given first.

        That is the rest of an answer, or a poll to be held; None: see ``received``, ``ended`` and ``lost`` of the link, of
        which nothing was received yet when this was called. Cancelling loses nothing.

        :param resting: ends the connection's rest; its deadline is moved on with each request.
        """
        fd = link.fileno()
        seat = self._seats[fd] = _Seat(link, source=source, resting=resting)
        seat.renew(trio.current_time())
        self._epoll.register(fd, select.EPOLLIN)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._leave(fd)
            return trio.lowlevel.Abort.SUCCEEDED

        left: bytes | Held | None = await trio.lowlevel.wait_task_rescheduled(abort)
        return left

    def dismiss(self, link: Link) -> None:
        """End the rest of a connection, as if there were something else to be done; nothing where it is not here."""
        fd = link.fileno()
        if fd in self._seats:
            self._wake(fd, trio.current_time(), outcome.Value(None))

    async def run(self) -> None:
        """Answer, for ever. Cancelling it ends that between two answers."""
        epoll = self._epoll
        fd = epoll.fileno()
        while True:
            await trio.lowlevel.wait_readable(fd)
            now = began = trio.current_time()
            while events := epoll.poll(0, EVENTS):
                self._answer(events, now)
                now = trio.current_time()
                if now - began >= TURN_S:
                    await trio.lowlevel.checkpoint()
                    now = began = trio.current_time()

    def _answer(self, events: Iterable[tuple[int, int]], now: float) -> None:
        """Take what all of them ask, and then send all answers.

        One by one, a process at the other end of many connections would sleep again before the next answer to each, and to
        wake it up is our work, too.
        """
        answers: list[tuple[int, bytes]] = []
        for fd, _ in events:
            seat = self._seats[fd]
            try:
                answer = self._taken(seat.link, seat.source)
            except Exception as error:
                # A crash is that connection's own: its task raises it.
                self._wake(fd, now, outcome.Error(error))
                continue
            if not isinstance(answer, bytes):
                self._wake(fd, now, outcome.Value(answer))
            elif answer:
                answers.append((fd, answer))
        for fd, answer in answers:
            seat = self._seats[fd]
            link = seat.link
            sent = link.offer(answer)
            if sent < len(answer):
                self._wake(fd, now, outcome.Value(answer[sent:]))
            elif link.received or link.lost or self._lane.stopping:
                self._wake(fd, now, outcome.Value(None))
            elif now - seat.renewed_at >= SLACK_S:
                seat.renew(now)

    def _taken(self, link: Link, source: str) -> bytes | Held | None:
        """Return the answer to what has come, empty where nothing has; None: it is not the lane's."""
        received = link.read()
        if not received:
            return b"" if received is None and not link.renews else None
        taken = self._lane.take(received, source=source)
        if taken is None:
            link.received += received
            return None
        if taken.consumed < len(received):
            link.received += received[taken.consumed :]
        return taken.answer

    def _wake(self, fd: int, now: float, result: outcome.Outcome[bytes | Held | None]) -> None:
        seat = self._seats[fd]
        self._leave(fd)
        seat.renew(now)
        trio.lowlevel.reschedule(seat.task, result)

    def _leave(self, fd: int) -> None:
        del self._seats[fd]
        self._epoll.unregister(fd)
