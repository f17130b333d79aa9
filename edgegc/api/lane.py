"""The lane: version checks answered from bytes to bytes, out of the roll. Knows no sockets, no Quart and no Hypercorn.

A request that is not plain, or that it would have to refuse, it leaves alone, with nothing counted and nothing changed: the
same bytes then go to the route for them. What it answers it answers, counts and logs as that route does; a test asks both.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.api import dates, problem, version_check, version_head
from edgegc.api.access import CLIENT_LEFT, request_id_of
from edgegc.control import credentials, fleet, polls
from edgegc.control.failures import AUTHENTICATION_FAILED
from edgegc.errors import Unauthorized
from edgegc.model.message import EffectiveVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgegc.api.access import AccessLog
    from edgegc.api.limits import RateLimits
    from edgegc.control.control import Control
    from edgegc.control.held_polls import Answer, Waiter

logger = logging.getLogger(__name__)

HEAD_BYTES: Final = 2048
"""What is longer goes to the route; an agent's head has 300 bytes."""
UNDERSTOOD: Final = 4096
"""Heads whose meaning is kept: one for each connection there may be by default, in 3 MiB."""
RENDERED: Final = 256
"""Answers that are kept rendered. All whom one change concerns are told the same."""
LONG_S: Final = 10.0
TOGETHER_S: Final = 1.0
"""Long waits that are over within the same second end together, at its begin: to a box that has nothing else to do, waking up
for each costs several times what the answer does."""


class _Check(msgspec.Struct, frozen=True):
    """Who sends a head, if the roll has the digest still, and what it asks."""

    node_id: str
    token_digest: bytes
    asked: version_head.Asked


class _Call(msgspec.Struct, frozen=True):
    """One request. ``began`` on Trio's clock."""

    check: _Check
    request_id: str
    source: str
    began: float


class Taken(msgspec.Struct, frozen=True):
    """A request that was the lane's: how many bytes it had, and its answer."""

    consumed: int
    answer: bytes | Held


class Held:
    """A version check that waits for news, and needs no task for it.

    The connection parks it and waits for its wake-up, its deadline or the client's end; then it calls either
    :meth:`answer` or :meth:`leave`.
    """

    __slots__ = ("_call", "_lane", "_over", "_waiter", "deadline")

    def __init__(self, lane: Lane, call: _Call) -> None:
        self._lane = lane
        self._call = call
        self._waiter: Waiter | None = None
        self._over = False
        self.deadline = _until(call.began, call.check.asked.wait_s)
        """When to answer without news, on Trio's clock."""

    def park(self, wake: Callable[[], None]) -> None:
        """Wait from now on. ``wake`` is called at most once, and perhaps at once; it must only schedule."""
        check = self._call.check
        self._waiter = polls.park(self._lane.control, check.node_id, current=check.asked.awaited, wake=wake)
        if self._waiter is None:
            wake()

    def answer(self) -> bytes:
        """End the wait and return the answer as of now. Of a node that is gone, or has another token by now, it is a 401."""
        lane, call = self._lane, self._call
        news = self._end()
        try:
            credentials.node_entry(lane.control.roll, call.check.node_id, call.check.token_digest)
        except Unauthorized as error:
            return lane.refuse(call, error)
        # Without news it was never held: when it was to be parked the version had moved, or the room was gone.
        return lane.answer(call, news or lane.control.polls.now(call.check.node_id))

    def leave(self) -> None:
        """End the wait with nobody left to answer. After an answer: do nothing."""
        if not self._over:
            self._end()
            self._lane.count(self._call, CLIENT_LEFT)

    def _end(self) -> Answer | None:
        self._over = True
        waiter, self._waiter = self._waiter, None
        return polls.leave(self._lane.control, waiter) if waiter is not None else None


class Lane:
    """Takes version checks off the connections of one server."""

    def __init__(self, control: Control, *, limits: RateLimits, log: AccessLog, head_bytes: int) -> None:
        self.control = control
        self.stopping = False
        """Set by the server when it stops: each answer is the last of its connection then, and nothing is held."""
        self._limits = limits
        self._log = log
        self._head_bytes = min(head_bytes, HEAD_BYTES)
        self._behind_proxies = bool(control.settings.api.trusted_proxies)
        # By a digest of the head, for there is a token in it that need not stay in memory; one hash finds what it asks and
        # whose it is, and stands for the token's HMAC. Only of those whose token was good: others can fill nothing.
        self._understood: dict[bytes, _Check] = {}

    def take(self, received: bytes | bytearray, *, source: str) -> Taken | None:
        """Answer the version check that ``received`` begins with, if it is one for the lane; else do nothing. Never waits.

        :param received: what has come of the next request, and perhaps of those behind it.
        :param source: the client's address, or ``socket``.
        """
        if not received.startswith(version_head.BEGINNING):
            return None
        consumed = received.find(version_head.END, 0, self._head_bytes) + len(version_head.END)
        if consumed < len(version_head.END):
            return None
        head = bytes(received[:consumed])
        key = sha256(head).digest()
        known = self._understood.get(key)
        check = known or self._understand(head)
        if check is None:
            return None
        control, asked = self.control, check.asked
        try:
            entry = credentials.node_entry(control.roll, check.node_id, check.token_digest)
        except Unauthorized:
            return None
        began = trio.current_time()
        # The first use of a token is written before it is answered.
        if not entry.token_used or not self._limits.admits(check.node_id, began):
            return None
        if known is None:
            self._keep(key, check)
        control.fleet.seen(check.node_id)
        if (report := asked.report) is not None:
            fleet.ride_along(
                control, check.node_id, applied=report.applied, state=report.state, nebula=report.nebula
            )
        call = _Call(check, asked.request_id or request_id_of(None), source, began)
        if asked.wait_s > 0 and not self.stopping and control.polls.would_hold(check.node_id, asked.awaited):
            return Taken(consumed, Held(self, call))
        return Taken(consumed, self.answer(call, control.polls.now(check.node_id)))

    def answer(self, call: _Call, news: Answer) -> bytes:
        """Count a request, and return its answer: 200 or 304."""
        asked = call.check.asked
        unchanged = version_check.unchanged(news.version, asked.current, asked.if_none_match)
        beginning, body = _rendered(news, unchanged)
        self.count(call, 304 if unchanged else 200)
        return b"".join((beginning, call.request_id.encode(), self._rest(asked), body))

    def refuse(self, call: _Call, error: Unauthorized) -> bytes:
        """Count a request whose token has gone bad while it waited, and return its answer: 401."""
        logger.warning(
            "authentication failed: %s",
            error.message,
            extra={"request_id": call.request_id, "source": call.source},
        )
        self.control.failures.note(
            actor=f"node:{call.check.node_id}",
            action=AUTHENTICATION_FAILED,
            what=error.message,
            source=call.source,
            request_id=call.request_id,
        )
        made = problem.of_error(error, request_id=call.request_id)
        self.count(call, made.status)
        beginning = _beginning(made.status, made.headers, made.body)
        return b"".join((beginning, call.request_id.encode(), self._rest(call.check.asked), made.body))

    def count(self, call: _Call, status: int) -> None:
        """Count a request that is over, and log it if it is its turn."""
        self._log.record(
            method="GET",
            path=version_check.PATH,
            route=version_check.PATH,
            status=status,
            seconds=trio.current_time() - call.began,
            request_id=call.request_id,
            source=call.source,
            quiet=call.check.asked.wait_s > 0,
        )

    def _understand(self, head: bytes) -> _Check | None:
        found = version_head.read(head, behind_proxies=self._behind_proxies)
        if found is None:
            return None
        token, asked = found
        return _Check(credentials.parse(token).id, self.control.vault.token_digest(token), asked)

    def _keep(self, key: bytes, check: _Check) -> None:
        if check.asked.request_id is not None:
            return  # Its like will not come again.
        if len(self._understood) >= UNDERSTOOD:
            del self._understood[next(iter(self._understood))]
        self._understood[key] = check

    def _rest(self, asked: version_head.Asked) -> bytes:
        """Return the rest of a head, from its request id on."""
        if self.stopping:
            kept = b"\r\nconnection: close"
        else:
            kept = b"\r\nconnection: keep-alive" if asked.says_kept else b""
        return b"\r\n%b%b\r\n\r\n" % (dates.line(int(time.time())), kept)


def _until(began: float, wait_s: float) -> float:
    """Return when a wait is over, on the clock of ``began``: a long one up to :data:`TOGETHER_S` early."""
    due = began + wait_s
    return due - due % TOGETHER_S if wait_s >= LONG_S else due


@lru_cache(maxsize=RENDERED)
def _rendered(news: Answer, unchanged: bool) -> tuple[bytes, bytes]:
    """Return the beginning of an answer's head, and its body."""
    headers = version_check.headers(news).items()
    if unchanged:
        return _beginning(304, headers), b""
    body = msgspec.json.encode(EffectiveVersion(version=news.version))
    return _beginning(200, (*headers, ("content-type", "application/json")), body), body


def _beginning(status: int, headers: Iterable[tuple[str, str]], body: bytes | None = None) -> bytes:
    """Return the beginning of an answer's head, up to its request id. Without a reason, as h11 writes it."""
    lines = [f"HTTP/1.1 {status} ", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join((*lines, "x-request-id: ")).encode()
