"""Tells the control plane what this node runs: with each question, and by itself where that would be late or too short.

Knows neither versions nor nebula. Level-triggered: what matters is whether the newest condition was delivered.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from edgegc.agent.pace import UNAUTHORIZED_S
from edgegc.errors import Error, Unauthorized
from edgegc.model.message import Report
from edgegc.model.node import ReportedState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgegc.agent.servers import Servers

SETTLE_S: Final = 1.0
"""A condition that does not last this long is not worth a request, unless it is an error."""
RETRY_S: Final = 30.0
"""After a report that was not taken. A question may carry it sooner."""
MAX_ERROR_CHARACTERS: Final = 2000


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is like. ``error``: a sentence for people, with state ``failed``."""

    applied: int | None
    state: ReportedState
    error: str | None = None
    nebula_version: str | None = None


class Reporter:
    """The reporter of one cluster. ``look`` returns the present condition, ``reached`` whether a lighthouse answers."""

    def __init__(
        self, *, servers: Servers, look: Callable[[], Condition], reached: Callable[[], bool | None]
    ) -> None:
        self._servers = servers
        self._look = look
        self._reached = reached
        self._delivered: Condition | None = None
        self._changed = trio.Event()

    def changed(self) -> None:
        """Say that the condition may have changed."""
        self._changed.set()
        self._changed = trio.Event()

    @contextmanager
    def riding_along(self) -> Iterator[dict[str, str]]:
        """Give the headers for a question.

        An error's sentence does not fit into them: it is delivered by itself, and its state not before it.
        """
        condition = self._look()
        headers: dict[str, str] = {}
        if condition.applied is not None:
            headers["Edgegc-Applied"] = str(condition.applied)
            if condition.error is None or condition == self._delivered:
                headers["Edgegc-State"] = condition.state
        if condition.nebula_version is not None:
            headers["Edgegc-Nebula"] = condition.nebula_version
        before = self._delivered
        if condition.error is None:
            # At once, not with the answer: a held question is answered when it is too late to care.
            self._delivered = condition
        try:
            yield headers
        except BaseException:
            if self._delivered is condition:
                self._delivered = before
                self.changed()
            raise

    async def run(self) -> None:
        """Deliver what no question carries, for ever."""
        while True:
            changed = self._changed
            condition = self._look()
            if condition == self._delivered or (condition.applied is None and condition.error is None):
                await changed.wait()
                if self._look().error is None:
                    await trio.sleep(SETTLE_S)
                continue
            try:
                await self._deliver(condition)
            except Unauthorized:
                await trio.sleep(UNAUTHORIZED_S)
            except Error:
                with trio.move_on_after(RETRY_S):
                    await changed.wait()

    async def _deliver(self, condition: Condition) -> None:
        report = Report(
            applied_version=condition.applied or 0,
            state=condition.state,
            error=condition.error[:MAX_ERROR_CHARACTERS] if condition.error else None,
            nebula_version=condition.nebula_version,
            lighthouse_reached=self._reached(),
        )
        await self._servers.ask(lambda client: client.report(report))
        self._delivered = condition
