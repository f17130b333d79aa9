from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
