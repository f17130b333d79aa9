"""The operator's own TLS files: replaced under a daemon that runs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec
import trio

from edgegc.api import tls
from edgegc.client import Client, PinMismatch
from edgegc.settings import Tls
from tests.box import box_settings, running_box

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LIMIT_S = 20.0


async def shows(port: int, pin: str) -> bool:
    async with Client(f"https://127.0.0.1:{port}", pin=pin) as client:
        try:
            return (await client.request("GET", "/health/live")).status == 200
        except PinMismatch:
            return False


async def becomes(port: int, pin: str) -> None:
    with trio.fail_after(LIMIT_S):
        while not await shows(port, pin):
            await trio.sleep(0.05)


async def test_replaced_files_are_in_force_without_a_restart_and_half_a_pair_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second, third = (
        tls.self_signed(tmp_path / name, names=(), now=int(time.time())) for name in ("1", "2", "3")
    )
    plain = box_settings(tmp_path / "data")
    settings = msgspec.structs.replace(
        plain, tls=Tls(mode="files", certificate=first.certificate, key=first.key)
    )
    async with running_box(tmp_path / "data", settings) as box:
        assert await shows(box.port, first.pin)
        second.certificate.replace(first.certificate)
        with trio.fail_after(LIMIT_S):
            while "are not taken over" not in caplog.text:
                await trio.sleep(0.05)
        assert await shows(box.port, first.pin)
        second.key.replace(first.key)
        await becomes(box.port, second.pin)
        # As a renewal client does it: a link that is turned to another pair.
        for old, new in ((first.key, third.key), (first.certificate, third.certificate)):
            link = old.with_name("link")
            link.symlink_to(new)
            link.replace(old)
        await becomes(box.port, third.pin)
