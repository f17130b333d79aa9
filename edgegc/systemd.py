"""Tells systemd that we are up, and alive: ``sd_notify`` and the watchdog. Knows nothing of what runs.

Outside of systemd (no ``NOTIFY_SOCKET``) everything here does nothing.
"""

from __future__ import annotations

import os
import socket
from typing import Final

import trio

WATCHDOG_PART: Final = 3
"""A sign of life at each third of the limit: one may come late, as systemd's manual advises at least half."""


def notify(state: str) -> None:
    """Send a state such as ``READY=1`` or ``STOPPING=1``; a manager that does not listen is not our problem."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto(state.encode(), address)
        except OSError:
            return


async def watchdog() -> None:
    """Send signs of life for as long as the event loop turns; return at once where nobody asked for them."""
    limit_us = os.environ.get("WATCHDOG_USEC", "")
    asked_pid = os.environ.get("WATCHDOG_PID", "")
    if not limit_us.isdecimal() or int(limit_us) == 0 or asked_pid not in ("", str(os.getpid())):
        return
    while True:
        notify("WATCHDOG=1")
        await trio.sleep(int(limit_us) / 1e6 / WATCHDOG_PART)
