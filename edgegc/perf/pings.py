"""Pings on a schedule, from a machine of the network to an overlay address: how many were answered, and the longest silence.

Our own ICMP echo requests over a raw socket, so that no ``ping`` program is needed; the other end is the kernel there, or a
lighthouse, which answers by itself. Knows nothing of what happens meanwhile. Answers are told apart by a number and a
random mark in their payload: no other pinger's answers count.
"""

from __future__ import annotations

import secrets
import socket
import struct
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgegc.perf.network import Host

LATE_S: Final = 2.0
"""An answer that has not come after this is lost: no programme waits for it any more."""
AGAIN_S: Final = 0.1
"""How often one asks who waits for a first answer."""
REQUEST: Final = 8
REPLY: Final = 0
MARK_BYTES: Final = 8
MOST_BYTES: Final = 2048
NS_PER_S: Final = 1_000_000_000

_HEADER: Final = struct.Struct("!BBHHH")
_NUMBER: Final = struct.Struct("!Q")


class Pinging:
    """A series of pings. Counts while it is entered; complete after :func:`pinging` was left."""

    def __init__(self, host: Host, address: str, *, every_s: float) -> None:
        self._sent_at: list[float] = []
        self._answered_at: dict[int, float] = {}
        self._first = 0
        self._heard = trio.Event()
        self.lag_ns: list[int] = []
        """How late each was sent: our own fault, not the network's."""
        self._address = address
        self._every_s = every_s
        self._mark = secrets.token_bytes(MARK_BYTES)
        try:
            self._socket = trio.socket.from_stdlib_socket(
                host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            )
        except OSError as error:
            raise Unavailable(f"pings can't be sent from {host.name}: {error.strerror}") from error

    @property
    def sent(self) -> int:
        """How many were sent."""
        return len(self._sent_at) - self._first

    @property
    def answered(self) -> int:
        """How many were answered in time."""
        return len(self._answered_at)

    @property
    def lost(self) -> int:
        """How many were not, as far as is known."""
        return self.sent - self.answered

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two answers; the whole time where there were fewer."""
        times = sorted(self._answered_at.values())
        if len(times) < 2:
            return self._sent_at[-1] - self._sent_at[self._first] if self.sent else 0.0
        return max(after - before for before, after in pairwise(times))

    def round_trips_ns(self) -> list[int]:
        """Return how long each that was answered took."""
        return [round((at - self._sent_at[number]) * NS_PER_S) for number, at in self._answered_at.items()]

    def forget(self) -> None:
        """Count from now on: what was sent before never was."""
        self._first = len(self._sent_at)
        self._answered_at.clear()
        self.lag_ns.clear()

    async def until_answered(self, within_s: float) -> None:
        """Wait until the next answer. Raises errors.Error where none comes within so many seconds."""
        with trio.move_on_after(within_s):
            await self._heard.wait()
            return
        raise Error(f"no ping over the overlay was answered within {within_s:.0f} s")

    async def _send(self) -> None:
        due = trio.current_time()
        while True:
            await trio.sleep_until(due)
            now = trio.current_time()
            self.lag_ns.append(round((now - due) * NS_PER_S))
            number = len(self._sent_at)
            self._sent_at.append(now)
            # Where nothing can leave, for the tunnel's device is away, it is lost, too.
            with suppress(OSError):
                await self._socket.sendto(echo_request(number, self._mark), (self._address, 0))
            due += self._every_s

    async def _receive(self) -> None:
        while True:
            packet = await self._socket.recv(MOST_BYTES)
            number = number_of(packet, self._mark)
            if number is None or number in self._answered_at:
                continue
            now = trio.current_time()
            if self._first <= number < len(self._sent_at) and now - self._sent_at[number] <= LATE_S:
                self._answered_at[number] = now
                heard, self._heard = self._heard, trio.Event()
                heard.set()

    async def _late_ones(self) -> None:
        with trio.move_on_after(LATE_S):
            while self.lost:
                await self._heard.wait()


@asynccontextmanager
async def pinging(host: Host, address: str, *, every_s: float) -> AsyncIterator[Pinging]:
    """Ping ``address`` from ``host`` every so many seconds while the context lasts; leaving it waits for late answers.

    Raises Unavailable where that can't be done. Cancellation ends it at once.
    """
    series = Pinging(host, address, every_s=every_s)
    failure: Exception | None = None
    with series._socket:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(series._receive)
            async with trio.open_nursery() as sending:
                sending.start_soon(series._send)
                try:
                    yield series
                except Exception as raised:
                    # Raised below, so that it leaves as what it is and not as a member of a nursery's group.
                    failure = raised
                sending.cancel_scope.cancel()
            if failure is None:
                await series._late_ones()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def answers(host: Host, address: str, *, within_s: float) -> bool:
    """Return whether ``address`` answers a ping from ``host``, asked again and again, within so many seconds."""
    try:
        async with pinging(host, address, every_s=AGAIN_S) as series:
            await series.until_answered(within_s)
    except Error:
        return False
    return True


def echo_request(number: int, mark: bytes) -> bytes:
    """Return an ICMP echo request (RFC 792) with its checksum."""
    payload = mark + _NUMBER.pack(number)
    identifier = int.from_bytes(mark[:2])
    blank = _HEADER.pack(REQUEST, 0, 0, identifier, number & 0xFFFF)
    return _HEADER.pack(REQUEST, 0, _checksum(blank + payload), identifier, number & 0xFFFF) + payload


def number_of(packet: bytes, mark: bytes) -> int | None:
    """Return the number of the request that an IP packet answers; None where it is anything else."""
    if not packet or packet[0] >> 4 != 4:
        return None
    message = packet[(packet[0] & 0x0F) * 4 :]
    payload = message[_HEADER.size :]
    if len(payload) != MARK_BYTES + _NUMBER.size or message[0] != REPLY or payload[:MARK_BYTES] != mark:
        return None
    number: int = _NUMBER.unpack(payload[MARK_BYTES:])[0]
    return number


def _checksum(content: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
