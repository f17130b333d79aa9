"""Counts what goes over a machine's wire, both ways, by protocol: as long as headers and all, without Ethernet's preamble.

Knows no process: on a machine of the network all TCP is the agent's, and all UDP is nebula's.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Unavailable
from edgegc.perf.network import DEVICE

if TYPE_CHECKING:
    from edgegc.perf.network import Host

EVERY_PROTOCOL: Final = 0x0003
"""``ETH_P_ALL``: what goes out is seen, too."""
ETHERNET_BYTES: Final = 14
HEAD_BYTES: Final = 64
IPV4: Final = b"\x08\x00"
_TYPE: Final = slice(12, 14)
_LENGTH: Final = slice(16, 18)
_PROTOCOL: Final = 23


class Tap:
    """The bytes that were seen."""

    def __init__(self) -> None:
        self.tcp_bytes = 0
        self.udp_bytes = 0
        self.packets = 0

    async def listen(
        self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Count what goes over a machine's wire until cancelled. Raises Unavailable where that can't be seen."""
        try:
            opened = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
        except OSError as error:
            raise Unavailable(f"the wire of {host.name} can't be listened to: {error.strerror}") from error
        with trio.socket.from_stdlib_socket(opened) as packets:
            await packets.bind((DEVICE, 0))
            task_status.started()
            while True:
                self.count(await packets.recv(HEAD_BYTES))

    def count(self, frame: bytes) -> None:
        """Count one frame, of which the head is enough."""
        if len(frame) <= _PROTOCOL or frame[_TYPE] != IPV4:
            return
        length = ETHERNET_BYTES + int.from_bytes(frame[_LENGTH])
        self.packets += 1
        if frame[_PROTOCOL] == socket.IPPROTO_TCP:
            self.tcp_bytes += length
        elif frame[_PROTOCOL] == socket.IPPROTO_UDP:
            self.udp_bytes += length
