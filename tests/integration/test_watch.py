from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.watch import Polling, Watch, open_watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock


async def told(watch: Watch, *, within_s: float = 5.0) -> bool:
    with trio.move_on_after(within_s):
        await watch.changed()
        return True
    return False


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("new"),
        lambda path: path.replace(path.with_name("other")),
        lambda path: path.unlink(),
        lambda path: path.with_name("link").symlink_to(path),
        lambda path: path.with_name("directory").mkdir(),
    ],
)
async def test_a_change_is_told(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (tmp_path / "file").write_text("old")
    with Watch(settle_s=0.01) as watch:
        watch.add(tmp_path)
        change(tmp_path / "file")
        assert await told(watch)


async def test_a_burst_is_told_once_and_silence_not_at_all(tmp_path: Path) -> None:
    with Watch(settle_s=0.1) as watch:
        watch.add(tmp_path)
        for number in range(50):
            (tmp_path / str(number)).write_text("x")
        assert await told(watch)
        assert not await told(watch, within_s=0.3)


async def test_a_stream_of_changes_is_told_after_a_while(tmp_path: Path) -> None:
    async def keep_writing() -> None:
        while True:
            (tmp_path / "file").write_text("x")
            await trio.sleep(0.01)

    with Watch(settle_s=0.1, at_most_s=0.3) as watch:
        watch.add(tmp_path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_writing)
            assert await told(watch)
            nursery.cancel_scope.cancel()


async def test_a_change_while_nobody_waits_is_told_later(tmp_path: Path) -> None:
    with Watch(settle_s=0.01) as watch:
        watch.add(tmp_path)
        assert not await told(watch, within_s=0.05)
        (tmp_path / "file").write_text("x")
        assert await told(watch)


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
    class UsedUp(Watch):
        def __enter__(self) -> Watch:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr("edgegc.watch.Watch", UsedUp)
    with open_watcher(tmp_path) as watcher:
        assert isinstance(watcher, Polling)
