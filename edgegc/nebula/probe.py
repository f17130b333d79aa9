"""Asks a nebula over UDP whether it is alive, without credentials. Knows nothing about processes.

A datagram for a tunnel that does not exist (index random) is answered with a ``recv_error`` that repeats the
index, provided ``listen.send_recv_error`` is ``always``; 0.17 ms on loopback. A bound port alone proves
little: the port of a stopped process looks bound too.
"""

from __future__ import annotations

import secrets
import struct

import trio

PROBE_TIMEOUT_S = 0.5
"""For one datagram and its answer; a thousand times what an idle box needs."""

RESENDS = 3
"""Datagrams within one timeout: UDP may drop one even on loopback when the box is busy."""

_HEADER = struct.Struct("!BBHIQ")
_MESSAGE_V1 = 0x11  # version 1, type 1 (message)
_RECV_ERROR_V1 = 0x12  # version 1, type 2 (recv_error)


async def probe(port: int, *, host: str = "127.0.0.1", timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Return whether a live nebula answers on a UDP port of ``host`` (an IP address) within ``timeout_s``.

    Cancellation just ends it. Source: nebula.git ``outside.go``, ``handleRecvError``; checked on 1.6, 1.9, 1.11.
    """
    index = secrets.randbelow(2**32)
    question = _HEADER.pack(_MESSAGE_V1, 0, 0, index, 1)
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
        try:
            # Connected: answers of others are dropped by the kernel, and a closed port is an error at once.
            await socket.connect((host, port))
        except OSError:
            return False
        for _ in range(RESENDS):
            with trio.move_on_after(timeout_s / RESENDS):
                try:
                    await socket.send(question)
                    await _answer(socket, index)
                except OSError:
                    # Refused: nobody there now, but it may be about to bind.
                    await trio.sleep_forever()
                else:
                    return True
    return False


async def _answer(socket: trio.socket.SocketType, index: int) -> None:
    """Return when the answer to ``index`` has come; ignore everything else."""
    while True:
        answer = await socket.recv(64)
        if len(answer) == _HEADER.size:
            kind, _, _, echoed, _ = _HEADER.unpack(answer)
            if kind == _RECV_ERROR_V1 and echoed == index:
                return
