"""The polling twin of the file watcher, and who lighthouses run as."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from edgegc.lighthouse import account, watch
from edgegc.lighthouse.watch import Polling, open_watcher

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from trio.testing import MockClock


async def test_polling_tells_of_new_changed_and_removed_files_but_not_of_logs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    watcher = Polling()
    watcher.add(tmp_path)

    async def silent() -> bool:
        with trio.move_on_after(60) as scope:
            await watcher.changed()
        return scope.cancelled_caught

    assert await silent()
    (tmp_path / "a.yml").write_text("x")
    assert not await silent()
    assert await silent()
    (tmp_path / "nebula.log").write_text("x")
    assert await silent()
    os.utime(tmp_path / "a.yml", (1, 1))
    assert not await silent()
    (tmp_path / "a.yml").unlink()
    assert not await silent()


async def test_where_inotify_is_used_up_files_are_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UsedUp:
        def __enter__(self) -> None:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(watch, "Watch", UsedUp)
    with open_watcher() as watcher:
        assert isinstance(watcher, Polling)


def test_without_root_lighthouses_run_as_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account.choose("edgegc-nebula") == (None, None, None)


def test_a_missing_user_falls_back_to_nobody_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    chosen = account.choose("no-such-user")
    assert chosen.user == "nobody"
    assert chosen.warning is not None
    assert "useradd --system" in chosen.warning
    assert account.choose("nobody").warning is None
