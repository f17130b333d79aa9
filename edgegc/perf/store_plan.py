"""What the store's process is told, and what it answers: the words between the suite and :mod:`edgegc.perf.store`.

Knows neither the store nor a scenario. Messages go as the generator's do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from edgegc.perf.generator.wire import Incoming
from edgegc.perf.plan import Load
from edgegc.perf.result import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag="prepare"):
    """Leave the database that is open and make a new one: a managed cluster with nodes, and an uploaded one with bundles."""

    nodes: int
    seed: int = 0
    bundles: int = 0
    bundle_bytes: int = 0


class Series(msgspec.Struct, frozen=True, kw_only=True, tag="series"):
    """One operation after another, by one client: how long does each take?"""

    operation: str
    size: int = 1
    duration_s: float
    at_most: int
    """Operations: what they add must not make it another database."""


class Clients(msgspec.Struct, frozen=True, kw_only=True, tag="clients"):
    """Closed model: each client begins its next operation when the one before is answered: how much can it do?"""

    mix: dict[str, int]
    """How often each operation, beside the others."""
    clients: int
    duration_s: float
    seed: int = 0


class Arrivals(msgspec.Struct, frozen=True, kw_only=True, tag="arrivals"):
    """Open model: operations begin at exponential distances (Poisson), latency from when they were to begin."""

    mix: dict[str, int]
    rate_per_s: float
    duration_s: float
    seed: int = 0


class Checkpoints(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoints"):
    """Checkpoints as housekeeping makes them, of a log of this size, with one writer and one reader beside them."""

    wal_bytes: int
    repeat: int


class OwnCheckpoints(msgspec.Struct, frozen=True, kw_only=True, tag="own_checkpoints"):
    """Writes until the writer has made so many checkpoints by itself, because its log passed its limit."""

    clients: int
    wanted: int
    at_most_s: float


class Growth(msgspec.Struct, frozen=True, kw_only=True, tag="growth"):
    """So many of something, one write each: how much larger is the file, and how much was written?"""

    what: Literal["node", "bundle", "reports"]
    count: int
    size: int = 1


class PageCache(msgspec.Struct, frozen=True, kw_only=True, tag="page_cache"):
    """Reads of random nodes. ``hot``: all has been read before; ``reopened``: SQLite's cache is empty, the kernel's is
    not; ``cold``: both are."""

    state: Literal["hot", "reopened", "cold"]
    rounds: int
    reads: int
    """Per round; before each the state is made again."""
    seed: int = 0


Work = Prepare | Series | Clients | Arrivals | Checkpoints | OwnCheckpoints | Growth | PageCache


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """What became of a piece of work."""

    load: Load | None = None
    figures: dict[str, Figure] = {}
    marks: tuple[tuple[float, str], ...] = ()
    """Seconds since the load began, and what happened."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """It could not be done. ``unavailable``: this machine lacks what it needs."""

    sentence: str
    unavailable: bool


Answer = Done | Failed


def works(stream: trio.abc.ReceiveStream) -> Incoming[Work]:
    """Return what the process hears."""
    decoder: msgspec.msgpack.Decoder[Work] = msgspec.msgpack.Decoder(Work)
    return Incoming(stream, decoder)


def answers(stream: trio.abc.ReceiveStream) -> Incoming[Answer]:
    """Return what the suite hears."""
    decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
    return Incoming(stream, decoder)


def weighted(mix: Mapping[str, int]) -> tuple[list[str], list[int]]:
    """Return operations and weights as :func:`random.choices` takes them."""
    return list(mix), list(mix.values())
