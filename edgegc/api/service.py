"""What all connections of a server share: whom they call, where they count, whether the server stops. Knows no sockets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ASGIFramework

    from edgegc.api.access import AccessLog
    from edgegc.api.lane_protocol import Lane
    from edgegc.api.reactor import Reactor
    from edgegc.api.vigil import Vigil

WATCHED: Final = "edgegc.watched"
"""The ASGI extension by which a connection says: the body comes in one message, and I cancel you when the client leaves."""


@dataclass(slots=True)
class Service:
    """The application, and what stands around it."""

    app: ASGIFramework
    log: AccessLog
    head_bytes: int
    """How long a request head may be."""
    lane: Lane | None
    reactor: Reactor | None
    """The lane's, for those who poll."""
    config: Config
    """Hypercorn's, for the general path, as is ``context``."""
    context: WorkerContext
    vigil: Vigil
    stopping: bool = False

    async def stop(self) -> None:
        """Have every answer from now on close its connection."""
        self.stopping = True
        if self.lane is not None:
            self.lane.stopping = True
        await self.context.terminated.set()
