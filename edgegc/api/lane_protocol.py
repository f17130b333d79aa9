"""The lane as a connection sees it: bytes in, bytes or a held poll out. What these bytes say is :mod:`edgegc.api.lane`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


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
