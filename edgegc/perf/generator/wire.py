"""What the suite and the generator's process say to each other: length-prefixed msgpack on standard input and output.

The suite sends one :class:`Task` and keeps its end open: the process ends when it is closed, so that none outlives its suite.
The process answers any number of :class:`~edgegc.perf.plan.Progress`, then one :class:`Done` or :class:`Failed`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from edgegc.perf.plan import Load, Plan, Progress

if TYPE_CHECKING:
    import trio

T = TypeVar("T")

_LENGTH: Final = struct.Struct("<Q")
READ_BYTES: Final = 65_536


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: one plan, or several of closed loads that take turns (see :mod:`edgegc.perf.generator.turns`)."""

    plans: tuple[Plan, ...]
    turn_s: float = 0.0


class Said(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """It goes on."""

    progress: Progress


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The end of plans that could be begun, in their order."""

    loads: tuple[Load, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Nothing was measured: the sentence says why, and what to do."""

    sentence: str


Answer = Said | Done | Failed


def packed(message: msgspec.Struct) -> bytes:
    """Return one message as it is sent."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


class Incoming(Generic[T]):
    """Messages of one type, or union of types, from a stream."""

    def __init__(self, stream: trio.abc.ReceiveStream, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._stream = stream
        self._decoder = decoder
        self._held = bytearray()

    async def next(self) -> T | None:
        """Return the next message; None where the other side closed. Cancelling loses nothing that came."""
        while (body := self._body()) is None:
            piece = await self._stream.receive_some(READ_BYTES)
            if not piece:
                return None
            self._held += piece
        return self._decoder.decode(body)

    def _body(self) -> bytes | None:
        if len(self._held) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._held)[0]
        if len(self._held) < end:
            return None
        body = bytes(self._held[_LENGTH.size : end])
        del self._held[:end]
        return body


def tasks(stream: trio.abc.ReceiveStream) -> Incoming[Task]:
    """Return what the process hears."""
    return Incoming(stream, msgspec.msgpack.Decoder(Task))


def answers(stream: trio.abc.ReceiveStream) -> Incoming[Answer]:
    """Return what the suite hears."""
    decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Said | Done | Failed)
    return Incoming(stream, decoder)
