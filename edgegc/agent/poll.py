"""Asks the control plane for newer versions, and brings them onto the disk: verified, complete, not yet in force.

Knows no nebula process. Whatever goes wrong here concerns only what is new: what runs, runs on.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from edgegc.agent import verify
from edgegc.agent.pace import HOLD_S, Pace
from edgegc.client import Untrusted
from edgegc.errors import Error, Unauthorized
from edgegc.nebula.process import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgegc.agent.report import Reporter
    from edgegc.agent.servers import Servers
    from edgegc.agent.settings import Cluster
    from edgegc.agent.state import Memory
    from edgegc.agent.versions import Versions
    from edgegc.client import Client, Polled
    from edgegc.clock import Clock
    from edgegc.nebula.process import Disk

LONGEST_SPREAD_S: Final = 60.0
"""No server is obeyed that wants a change to wait for longer."""
TRIAL_PATIENCE_S: Final = 2.0
"""Most versions are applied within this; waiting for it lets the outcome ride along with the next question."""

_log = logging.getLogger(__name__)


class Poller:
    """The poller of one cluster. ``settled`` waits until a version given to the applier is applied, or failed."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        servers: Servers,
        versions: Versions,
        memory: Memory,
        reporter: Reporter,
        clock: Clock,
        random: Callable[[], float],
        on_version: Callable[[], None],
        on_change: Callable[[], None],
        settled: Callable[[], Awaitable[None]],
        disk: Disk = in_thread,
    ) -> None:
        self.cluster = cluster
        """May be replaced at any time: servers and signers change with a proven version."""
        self.desired: int | None = None
        """What the control plane wants, as far as we know."""
        self.trouble: str | None = None
        """Why what it wants cannot be had; a sentence for people. None while all is well or it cannot be reached."""
        self.last_contact_at: int | None = None
        self._servers = servers
        self._versions = versions
        self._memory = memory
        self._reporter = reporter
        self._clock = clock
        self._random = random
        self._on_version = on_version
        self._on_change = on_change
        self._settled = settled
        self._disk = disk
        self._pace = Pace(random)

    async def run(self) -> None:
        """Ask and fetch, for ever. Cancellation loses at most a download."""
        while True:
            delay_s = await self._turn()
            await trio.sleep(delay_s)

    async def _turn(self) -> float:
        """Ask once, fetch what is new, and return after how many seconds to ask again."""
        started = trio.current_time()
        held_s = self._pace.hold_s(started)
        tried = self._memory.state.tried
        try:
            polled = await self._ask(tried, held_s)
            delay_s = self._pace.answered(
                trio.current_time(),
                held_s=held_s,
                took_s=trio.current_time() - started,
                news=polled.version != tried,
                interval_s=polled.interval_s,
            )
            self.desired = polled.version
            if polled.version == tried:
                self._say_trouble(None)
                return delay_s
            held_s = 0.0  # from here on a failure says nothing about held questions
            await self._fetch(polled)
            self._pace.fetched()
        except Unauthorized:
            self._say_trouble(
                "the control plane does not know this node's token: it was deleted, or its token rotated"
            )
            return self._pace.unauthorized()
        except Error as error:
            # What is wrong with the network is not news to anybody who could be told over it.
            if isinstance(error, verify.Refused | Untrusted):
                self._say_trouble(error.message)
            else:
                _log.info("%s", error.message, extra=self._fields())
            return self._pace.failed(held_s=held_s, retry_after_s=error.retry_after_s)
        except OSError as error:
            self._say_trouble(f"a new version cannot be written: {error}")
            return self._pace.failed(held_s=0.0)
        return delay_s

    async def _ask(self, tried: int, held_s: float) -> Polled:
        async def question(client: Client) -> Polled:
            with self._reporter.riding_along() as headers:
                return await client.poll(current=tried, wait_s=min(held_s, HOLD_S), headers=headers)

        polled = await self._servers.ask(question)
        self.last_contact_at = self._clock.now()
        return polled

    async def _fetch(self, polled: Polled) -> None:
        """Download, verify, remember, and lay down a version. Raises Refused, and what the network and the disk raise."""
        highest = self._memory.state.highest
        if polled.version < highest:
            # Not even asked for. The control plane's database was restored by other means than ours, or replaced.
            raise verify.Refused(
                f"the control plane is at version {polled.version}, but this node has accepted version {highest} before"
            )
        await trio.sleep(min(polled.spread_s or 0.0, LONGEST_SPREAD_S) * self._random())
        received = await self._servers.ask(lambda client: client.bundle(limit_bytes=verify.BODY_LIMIT_BYTES))
        state = self._memory.state
        accepted = verify.accept(
            received, cluster=self.cluster, highest=state.highest, highest_digest=state.highest_digest
        )
        if accepted.version < polled.version:
            raise verify.Refused(
                f"the control plane announces version {polled.version}, but gives out version {accepted.version}"
            )
        # Remembered before the archive is opened: whatever happens now, nothing older will be taken any more.
        await self._memory.change(highest=accepted.version, highest_digest=accepted.digest)
        unpacked = verify.open_bundle(accepted, cluster=self.cluster)
        await self._disk(partial(self._versions.store, unpacked))
        await self._memory.change(tried=accepted.version)
        _log.info("version %d is here", accepted.version, extra=self._fields(version=accepted.version))
        self._say_trouble(None)
        self._on_version()
        with trio.move_on_after(TRIAL_PATIENCE_S):
            await self._settled()

    def _say_trouble(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble is not None:
                _log.error("%s", trouble, extra=self._fields())
            self._on_change()

    def _fields(self, **more: object) -> dict[str, object]:
        return {"cluster_id": self.cluster.id, "node_id": self.cluster.node_id, **more}
