from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from edgegc import systemd

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_signs_of_life_reach_the_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        systemd.notify("READY=1")
        with trio.move_on_after(0.05):
            await systemd.watchdog()
        received = [manager.recv(100) for _ in range(3)]
    assert received == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]


async def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    systemd.notify("READY=1")
    await systemd.watchdog()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")
    systemd.notify("READY=1")


async def test_a_watchdog_meant_for_another_process_is_not_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    await systemd.watchdog()
