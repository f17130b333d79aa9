"""Frames by protocol and length."""

from __future__ import annotations

import socket

from edgegc.perf.tap import Tap


def frame(protocol: int, length: int, *, kind: bytes = b"\x08\x00") -> bytes:
    ip = bytes([0x45, 0]) + length.to_bytes(2) + bytes(5) + bytes([protocol]) + bytes(10)
    return bytes(12) + kind + ip


def test_tcp_and_udp_count_with_all_their_headers() -> None:
    tap = Tap()
    tap.count(frame(socket.IPPROTO_TCP, 60))
    tap.count(frame(socket.IPPROTO_TCP, 1500))
    tap.count(frame(socket.IPPROTO_UDP, 100))
    assert (tap.tcp_bytes, tap.udp_bytes, tap.packets) == (74 + 1514, 114, 3)


def test_what_is_not_ipv4_is_nobodys() -> None:
    tap = Tap()
    tap.count(frame(socket.IPPROTO_TCP, 60, kind=b"\x08\x06"))
    tap.count(bytes(10))
    tap.count(frame(socket.IPPROTO_ICMP, 84))
    assert (tap.tcp_bytes, tap.udp_bytes, tap.packets) == (0, 0, 1)
