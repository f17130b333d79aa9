"""Bodies of answers about nodes, kept while nothing that they show changes. Trio thread only.

Two things change what is known of a node: commits, which the roll follows, and what it says of itself, which only the
fleet knows. Knows not what was asked, nor who asks: whoever takes an answer from here has looked whether the caller may.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Hashable

    from edgegc.control.presence import Fleet

CACHE_BYTES: Final = 2 * 1024 * 1024
"""Two thousand nodes, or the first pages of many clusters: enough for whoever looks again and again."""
ID_BYTES: Final = 100
"""What is kept beside a body for each node in it."""


class Basis(msgspec.Struct, frozen=True):
    """What was known when an answer was made, before its rows were read. ``of`` is compared by identity: an object that
    is replaced, or ceases to be the one there is, by a commit that changes the answer and does not raise ``revision``.
    """

    of: object
    revision: int


class _Answer(msgspec.Struct, frozen=True):
    body: bytes
    basis: Basis
    node_ids: tuple[str, ...]
    said: int
    steady_until: float

    @property
    def cost(self) -> int:
        return len(self.body) + ID_BYTES * len(self.node_ids)


class Answers:
    """The newest answers by what was asked, least recently used out first."""

    def __init__(self, fleet: Fleet, *, capacity_bytes: int = CACHE_BYTES) -> None:
        self._fleet = fleet
        self._capacity = capacity_bytes
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much the cache holds."""
        return self._bytes

    async def get(self, asked: Hashable, basis: Basis) -> bytes | None:
        """Return the answer that was kept, or None where any of what it shows may be another now."""
        answer = self._answers.get(asked)
        if (
            answer is None
            or answer.basis.of is not basis.of
            or answer.basis.revision != basis.revision
            or trio.current_time() > answer.steady_until
            or self._fleet.said(answer.node_ids) != answer.said
        ):
            return None
        self._answers.move_to_end(asked)
        await trio.lowlevel.checkpoint()
        return answer.body

    def keep(self, asked: Hashable, basis: Basis, body: bytes, *, node_ids: tuple[str, ...]) -> None:
        """Keep an answer that shows some nodes, in place of an older one. Must follow its making without a checkpoint:
        what the nodes say from now on makes it an old one.
        """
        answer = _Answer(
            body, basis, node_ids, self._fleet.said(node_ids), self._fleet.steady_until(node_ids)
        )
        before = self._answers.pop(asked, None)
        self._bytes -= 0 if before is None else before.cost
        if answer.cost > self._capacity:
            return
        self._answers[asked] = answer
        self._bytes += answer.cost
        while self._bytes > self._capacity:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= oldest.cost
