"""Control: the bag of everything the use cases share. Wires the commit to roll, bus and held polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from edgegc.control.bus import Bus
from edgegc.control.fleet import Fleet
from edgegc.control.health import Health
from edgegc.control.lighthouses import Board
from edgegc.control.polls import Polls
from edgegc.control.roll import Roll
from edgegc.model.series import Series

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from edgegc.clock import Clock
    from edgegc.model.manifest import Server
    from edgegc.settings import Settings

T = TypeVar("T")


class Database(Protocol):
    """What control needs of the store."""

    on_commit: Callable[[object], None]

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in the writer."""

    async def read(self, job: Callable[[sqlite3.Connection], T], *, deadline_s: float = 5.0) -> T:
        """Run a job in the reader."""


class Control:
    """Everything the use cases share. Made by :func:`open_control`."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        settings: Settings,
        vault: Any,
        servers: tuple[Server, ...],
    ) -> None:
        self.database = database
        self.clock = clock
        self.settings = settings
        self.vault = vault
        self.servers = servers
        self.roll = Roll()
        self.bus = Bus()
        self.polls = Polls(self.roll, limit=settings.limits.held_polls)
        self.fleet = Fleet()
        self.lighthouses = Board()
        self.health = Health()
        self.series = Series(capacity=int(settings.sampler.history_s / settings.sampler.interval_s))


async def open_control(
    database: Database,
    *,
    clock: Clock,
    settings: Settings,
    vault: Any,
    servers: tuple[Server, ...],
) -> Control:
    """Load roll and fleet from the store and bring ``meta`` up to date; there is nothing to close."""
    raise NotImplementedError
