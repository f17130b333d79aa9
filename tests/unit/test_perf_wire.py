"""Frames by protocol and length."""

from __future__ import annotations

import socket

from edgegc.perf.wire import Wire


def frame(protocol: int, length: int, *, kind: bytes = b"\x08\x00") -> bytes:
    ip = bytes([0x45, 0]) + length.to_bytes(2) + bytes(5) + bytes([protocol]) + bytes(10)
    return bytes(12) + kind + ip


def test_tcp_and_udp_count_with_all_their_headers() -> None:
    wire = Wire()
    wire.count(frame(socket.IPPROTO_TCP, 60))
    wire.count(frame(socket.IPPROTO_TCP, 1500))
    wire.count(frame(socket.IPPROTO_UDP, 100))
    assert (wire.tcp_bytes, wire.udp_bytes, wire.packets) == (74 + 1514, 114, 3)


def test_what_is_not_ipv4_is_nobodys() -> None:
    wire = Wire()
    wire.count(frame(socket.IPPROTO_TCP, 60, kind=b"\x08\x06"))
    wire.count(bytes(10))
    wire.count(frame(socket.IPPROTO_ICMP, 84))
    assert (wire.tcp_bytes, wire.udp_bytes, wire.packets) == (0, 0, 1)
