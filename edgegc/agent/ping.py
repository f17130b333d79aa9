"""Asks overlay addresses for an ICMP echo: the end-to-end proof that certificate, CA and tunnel work.

Knows nothing of versions. A lighthouse answers on its overlay address even without a tunnel device.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RESEND_S: Final = 1.0
"""Also how long a device may be missing before one looks again: nebula makes it anew at a restart."""
PAYLOAD_BYTES: Final = 16
"""Random, and what an answer is recognised by: the kernel chooses the identifier on unprivileged sockets."""

_HEADER = struct.Struct("!BBHHH")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_SO_BINDTODEVICE: Final = 25


async def any_answers(addresses: Iterable[str], *, device: str, within_s: float) -> bool:
    """Return True as soon as one of the addresses answers a ping sent through ``device``, False after ``within_s``.

    Bound to the device because two clusters may use the same addresses. Needs CAP_NET_RAW, or a group in
    ``net.ipv4.ping_group_range``; without either, nothing ever answers. Cancellation just ends it.
    """
    asked = tuple(addresses)
    if not asked:
        return False
    with trio.move_on_after(within_s):
        while True:
            with trio.move_on_after(RESEND_S):
                if await _one_round(asked, device):
                    return True
                await trio.sleep_forever()
    return False


def may_ping() -> str | None:
    """Return None where pings can be sent, else the system's reason."""
    try:
        _open().close()
    except OSError as error:
        return error.strerror or str(error)
    return None


async def _one_round(addresses: tuple[str, ...], device: str) -> bool:
    """Ask every address once and wait for an answer; False at once where nothing can be sent."""
    try:
        opened = _open()
        opened.setblocking(False)
        icmp = trio.socket.from_stdlib_socket(opened)
    except OSError:
        return False
    with icmp:
        payload = secrets.token_bytes(PAYLOAD_BYTES)
        try:
            icmp.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device.encode() + b"\0")
            sent = 0
            for sequence, address in enumerate(addresses, 1):
                try:
                    await icmp.sendto(echo_request(os.getpid() & 0xFFFF, sequence, payload), (address, 0))
                    sent += 1
                except OSError:
                    continue
            if not sent:
                return False
            while True:
                answer, (source, *_) = await icmp.recvfrom(2048)
                if source in addresses and is_reply(answer, payload):
                    return True
        except OSError:
            return False


def _open() -> socket.socket:
    """Open an ICMP socket: the unprivileged kind where the system lets us, else a raw one."""
    kinds: tuple[Callable[[], socket.socket], ...] = (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    )
    try:
        return kinds[0]()
    except OSError:
        return kinds[1]()


def echo_request(identifier: int, sequence: int, payload: bytes) -> bytes:
    """Return an ICMP echo request (RFC 792) with its checksum."""
    blank = _HEADER.pack(_ECHO_REQUEST, 0, 0, identifier, sequence)
    return _HEADER.pack(_ECHO_REQUEST, 0, _checksum(blank + payload), identifier, sequence) + payload


def is_reply(packet: bytes, payload: bytes) -> bool:
    """Whether a packet, with or without its IP header (raw sockets have it), is the reply to ``payload``."""
    if packet and packet[0] >> 4 == 4:
        packet = packet[(packet[0] & 0x0F) * 4 :]
    return len(packet) >= _HEADER.size and packet[0] == _ECHO_REPLY and packet[_HEADER.size :] == payload


def _checksum(content: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
