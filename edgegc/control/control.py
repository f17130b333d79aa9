"""Control: the bag of everything the use cases share. Wires the commit to roll, fleet, bus and held polls.

Order on a write: COMMIT, roll replaced, waiters woken, writer answered. Knows no use case.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, TypeVar

import trio

from edgegc.control.answer_cache import Answers
from edgegc.control.body_cache import Bodies
from edgegc.control.bundle_cache import Bundles
from edgegc.control.bus import Bus
from edgegc.control.callers import system_caller
from edgegc.control.failures import Failures
from edgegc.control.health import Health
from edgegc.control.held_polls import Polls
from edgegc.control.kept_backups import KeptBackups
from edgegc.control.lighthouse_board import Board
from edgegc.control.lighthouse_specs import Specs
from edgegc.control.presence import Fleet
from edgegc.control.reconcile import check_master_key, reconcile
from edgegc.control.roll import Roll
from edgegc.control.token_uses import TokenUses
from edgegc.control.topology_cache import Topologies
from edgegc.control.upload_desk import Desk
from edgegc.control.write import Committed, Write
from edgegc.model.event import (
    ClusterChanged,
    ClusterDeleted,
    Event,
    NodeChanged,
    NodeDeleted,
    TokenChanged,
    TokenDeleted,
)
from edgegc.model.series import Series
from edgegc.store import api_tokens, backups, bundles, clusters, last_seen, nodes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from edgegc.clock import Clock
    from edgegc.model.credential import Caller
    from edgegc.model.manifest import Server
    from edgegc.settings import Settings
    from edgegc.store.database import Database
    from edgegc.store.vault import Vault

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Control:
    """Everything the use cases share. Made by :func:`open_control`."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        settings: Settings,
        vault: Vault,
        servers: tuple[Server, ...],
        udp_port_in_use: Callable[[int], bool],
    ) -> None:
        self.database = database
        self.clock = clock
        self.settings = settings
        self.vault = vault
        self.servers = servers
        self.udp_port_in_use = udp_port_in_use
        self.roll = Roll()
        self.bus = Bus()
        self.polls = Polls(self.roll, limit=settings.limits.held_polls)
        self.fleet = Fleet(database, self.roll, clock=clock)
        self.token_uses = TokenUses(database)
        self.failures = Failures(database, clock=clock)
        self.answers = Answers(self.fleet)
        self.topologies = Topologies(database, self.roll)
        self.bundles = Bundles(database, self.roll, vault=vault, servers=servers)
        self.bodies = Bodies(database)
        self.uploads = Desk(limited=settings.limits.enabled)
        self.specs = Specs(database, vault=vault)
        # Beside the database that is open, which in tests is not where the settings say.
        self.backups = KeptBackups(
            database, database.path.parent / backups.DIRECTORY, keep=settings.backup.keep
        )
        self.lighthouses = Board()
        self.health = Health()
        self.series = Series(capacity=int(settings.sampler.history_s / settings.sampler.interval_s))
        self.last_checkpoint_at = trio.current_time()

    async def write(self, caller: Caller, job: Callable[[Write], T]) -> T:
        """Run a job as one write and return its value, when it is on the disk and everybody has been told.

        Errors of the job are raised here, and nothing of it remains. Checks for cancellation on entry, and is then
        waited for to the end.
        """
        now = self.clock.now()

        def run(connection: sqlite3.Connection) -> Committed[T]:
            write = Write(connection, caller=caller, now=now, vault=self.vault)
            value = job(write)
            return Committed(value, write.events())

        return (await self.database.write(run)).value

    def follow(self, result: object) -> None:
        """Follow a commit: called by the store with each job's result, in commit order, before its writer goes on."""
        if isinstance(result, Committed):
            for event in result.events:
                self._follow(event)
            # Together, so that the many whom one commit concerns are told to spread their downloads.
            self.polls.follow(result.events)

    def _follow(self, event: Event) -> None:
        gone = self.roll.members(event.cluster_id) if isinstance(event, ClusterDeleted) else ()
        self.roll.apply(event)
        match event:
            case NodeDeleted():
                self._forget_node(event.node_id)
            case ClusterDeleted():
                for node_id in gone:
                    self._forget_node(node_id)
                self.bundles.forget_cluster(event.cluster_id)
                self.topologies.forget(event.cluster_id)
            case TokenDeleted():
                self.token_uses.forget(event.token_id)
            case _:
                pass
        self.bus.publish(event)

    def _forget_node(self, node_id: str) -> None:
        self.fleet.forget(node_id)
        self.bundles.forget(node_id)


async def open_control(
    database: Database,
    *,
    clock: Clock,
    settings: Settings,
    vault: Vault,
    servers: tuple[Server, ...],
    udp_port_in_use: Callable[[int], bool] | None = None,
) -> Control:
    """Bring the store up to date with this edgegc, load roll and fleet, and follow every commit from now on.

    Raises Conflict where the vault's key is not the one that the store was made with.

    There is nothing to close. ``udp_port_in_use`` says whether a UDP port of this box is taken; a test of the port
    itself by default.
    """
    control = Control(
        database,
        clock=clock,
        settings=settings,
        vault=vault,
        servers=servers,
        udp_port_in_use=udp_port_in_use or _udp_port_in_use,
    )
    await control.write(system_caller(), check_master_key)
    bumped = await control.write(system_caller(), lambda write: reconcile(write, servers))
    if bumped:
        logger.info("the renderer or the servers changed: every cluster gets a new version")
    await control.write(system_caller(), lambda write: bundles.drop_incomplete(write.connection))
    for event in await database.read(_roll_rows):
        control.roll.apply(event)
    control.fleet.load(await database.read(nodes.all_reports), await database.read(last_seen.all_))
    database.on_commit = control.follow
    return control


def _roll_rows(connection: sqlite3.Connection) -> list[ClusterChanged | NodeChanged | TokenChanged]:
    return [
        *(
            ClusterChanged(cluster_id=cluster_id, wide_version=wide_version)
            for cluster_id, wide_version in clusters.wide_versions(connection)
        ),
        *nodes.all_roll_entries(connection),
        *api_tokens.roll_entries(connection),
    ]


def _udp_port_in_use(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False
