"""What the server counts and logs of requests: one sampled line each, counters for ``/metrics``.

Takes the place of Hypercorn's access log, which copies ``os.environ`` for every request. Knows no routes: the
application writes the rule it matched into the request's state, so that the number of series stays bounded.
"""

from __future__ import annotations

import bisect
import logging
import math
import re
import secrets
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercorn.typing import ResponseSummary, WWWScope

logger = logging.getLogger(__name__)
_server_logger = logging.getLogger("edgegc.api.hypercorn")

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the duration histogram, in seconds."""
SAMPLE_S: Final = 1.0
"""Of requests alike in method, route and status at most one line per this many seconds is written; it counts the others."""
STEADY_S: Final = 60.0
"""While such requests go on and are well answered, the pause doubles with each line, up to this; a silence as long ends it.
A line a second for all polls of a fleet is a megabyte an hour on somebody's flash."""
CLIENT_LEFT: Final = 499
"""What is counted where the client left before it had its answer; the number is nginx's."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(header: bytes | None) -> str:
    """Return the client's request id where it is a sane token (it goes into logs and headers), else a new one."""
    if header is not None:
        given = header.decode("latin-1").strip()
        if _REQUEST_ID.fullmatch(given):
            return given
    return secrets.token_hex(8)


class Tally:
    """Requests alike in method, route and status: how many, how long in all, and the histogram of durations."""

    __slots__ = ("asked_at", "buckets", "count", "logged_at", "pause_s", "seconds", "unlogged")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.asked_at = self.logged_at = -math.inf
        self.pause_s = SAMPLE_S
        self.unlogged = 0

    def is_due(self, now: float) -> bool:
        """Whether a request of now is to be logged, or only counted."""
        if now - self.asked_at >= STEADY_S:
            self.pause_s = SAMPLE_S
        self.asked_at = now
        return now - self.logged_at >= self.pause_s

    def logged(self, now: float, *, steady: bool) -> int:
        """Note that a request of now is logged; return how many since the last one that was were not."""
        unlogged, self.unlogged, self.logged_at = self.unlogged, 0, now
        self.pause_s = min(2 * self.pause_s, STEADY_S) if steady else SAMPLE_S
        return unlogged

    def cumulative(self) -> Iterator[int]:
        """Yield per bound of :data:`BUCKETS_S`, and for infinity, how many took at most that long."""
        return accumulate(self.buckets)


class AccessLog:
    """Counts every request and logs a sample. Hypercorn's ``Config.logger_class`` makes and awaits it."""

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str, int], Tally] = {}
        self.connections_open = 0
        self.connections_total = 0
        self.connections_refused = 0
        self.accept_errors = 0
        self.clients_dropped = 0
        """Cut off because they did not read."""

    async def access(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        """Count a request that is over, once; ``response`` is None where the client left first."""
        state: dict[str, Any] = request["state"]
        if state.get("counted"):
            return
        state["counted"] = True
        client = request["client"]
        self.record(
            method=request["method"] if request["type"] == "http" else "GET",
            path=request["path"],
            route=state.get("route", "-"),
            status=response["status"] if response is not None else CLIENT_LEFT,
            seconds=request_time,
            request_id=state.get("request_id", ""),
            source=state.get("source") or (client[0] if client else "socket"),
            quiet=bool(state.get("held")),
        )

    def record(
        self,
        *,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
        request_id: str,
        source: str,
        quiet: bool = False,
    ) -> None:
        """Count a request, and log it if none like it was logged just before. ``quiet``: it was held on purpose, so how
        long it took says nothing of the server.
        """
        if method not in METHODS:
            method = "OTHER"
        tally = self.tallies.get((method, route, status))
        if tally is None:
            tally = self.tallies[method, route, status] = Tally()
        tally.count += 1
        if not quiet:
            tally.seconds += seconds
            tally.buckets[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        level = logging.ERROR if status >= 500 and status != 503 else logging.INFO
        if not logger.isEnabledFor(level):
            return
        now = trio.current_time()
        if not tally.is_due(now):
            tally.unlogged += 1
            return
        unlogged = tally.logged(now, steady=status < 400)
        more = f" (and {unlogged} alike before it)" if unlogged else ""
        # The message is the kind of request, so that a sampler of messages downstream tells kinds apart too.
        logger.log(
            level,
            f"{method} {route} {status}{more}",
            extra={
                "request_id": request_id,
                "method": method,
                "path": path,
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "source": source,
            },
        )

    # What else Hypercorn says of itself goes to a logger like any other.

    async def critical(self, message: str, *args: object) -> None:
        """Log for Hypercorn."""
        _server_logger.critical(message, *args)

    async def error(self, message: str, *args: object) -> None:
        """Log for Hypercorn."""
        _server_logger.error(message, *args)

    async def warning(self, message: str, *args: object) -> None:
        """Log for Hypercorn."""
        _server_logger.warning(message, *args)

    async def info(self, message: str, *args: object) -> None:
        """Log for Hypercorn."""
        _server_logger.debug(message, *args)

    async def debug(self, message: str, *args: object) -> None:
        """Log for Hypercorn."""
        _server_logger.debug(message, *args)

    async def exception(self, message: str, *args: object) -> None:
        """Log for Hypercorn, with the traceback of what is being handled."""
        _server_logger.exception(message, *args)
