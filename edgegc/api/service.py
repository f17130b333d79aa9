"""What all connections of a server share: whom they call, where they count, whether the server stops. Knows no sockets.

The lane is seen from here only as far as a connection needs it: bytes in, bytes or a held poll out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.config import Config
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ASGIFramework

    from edgegc.api.access import AccessLog
    from edgegc.api.vigil import Vigil

WATCHED: Final = "edgegc.watched"
"""The ASGI extension by which a connection says: the body comes in one message, and I cancel you when the client leaves."""


class Held(Protocol):
    """A long poll that waits. The connection parks it, and in the end calls ``answer`` or ``leave``."""

    @property
    def deadline(self) -> float:
        """When to answer at the latest, by Trio's clock."""

    def park(self, wake: Callable[[], None]) -> None:
        """Begin to wait. ``wake`` is called when there is news, perhaps at once."""

    def answer(self) -> bytes:
        """End the wait and return the answer."""

    def leave(self) -> None:
        """End the wait: there is nobody to answer. After ``answer`` it does nothing."""


class Taken(Protocol):
    """What the lane took: of the bytes received the first ``consumed``."""

    @property
    def consumed(self) -> int:
        """How many bytes the request had."""

    @property
    def answer(self) -> bytes | Held:
        """The whole answer, or a poll that is to be held."""


class Lane(Protocol):
    """Answers a few requests from memory, and leaves all others as they are."""

    stopping: bool
    """Answers close their connection from now on: the server stops."""

    def take(self, received: bytes | bytearray, *, source: str) -> Taken | None:
        """Take the request that ``received`` begins with; None where it is not the lane's, or not complete."""


@dataclass(slots=True)
class Service:
    """The application, and what stands around it."""

    app: ASGIFramework
    log: AccessLog
    head_bytes: int
    """How long a request head may be."""
    lane: Lane | None
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
