from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.agent import state as state_module
from edgegc.agent.state import HISTORY_LENGTH, Failure, Memory, Outcome, State, Trial, load, save
from edgegc.errors import Invalid
from tests.fakes import inline

if TYPE_CHECKING:
    from pathlib import Path

FULL = State(
    applied=6,
    tried=7,
    highest=7,
    highest_digest="ab",
    trial=Trial(version=7, back_to=6, must_reach=True),
    failure=Failure(version=7, reason="it broke", lost=True, attempts=2, at=1000),
    history=(Outcome(at=900, version=6, what="applied"),),
)


def test_what_is_remembered_is_recalled_by_its_owner_alone(tmp_path: Path) -> None:
    save(tmp_path / "state.json", FULL)
    assert load(tmp_path / "state.json") == FULL
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert load(tmp_path / "state.json") == State()


@pytest.mark.parametrize("content", ["", "{", '{"applied": "x"}', '{"format": 2}'])
def test_a_damaged_file_is_refused_rather_than_forgotten(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(Invalid, match=r"state\.json"):
        load(tmp_path / "state.json")


def test_the_log_is_bounded() -> None:
    state = State()
    for number in range(HISTORY_LENGTH + 10):
        state = state.with_outcome(Outcome(at=number, version=number, what="applied"))
    assert [outcome.version for outcome in state.history] == list(range(10, HISTORY_LENGTH + 10))


async def test_changes_of_two_tasks_at_once_are_both_kept(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state.json")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: memory.change(tried=7))
        nursery.start_soon(lambda: memory.change(applied=6))
    assert (memory.state.tried, memory.state.applied) == (7, 6)
    assert load(tmp_path / "state.json") == memory.state


async def test_what_could_not_be_written_has_not_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, state: State) -> None:
        raise OSError(28, "No space left on device")

    memory = Memory(tmp_path / "state.json", disk=inline)
    await memory.change(tried=7)
    monkeypatch.setattr(state_module, "save", full)
    with pytest.raises(OSError, match="No space"):
        await memory.change(tried=8)
    assert memory.state.tried == 7


async def test_nothing_new_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(tmp_path / "state.json", disk=inline)
    await memory.change(tried=7)
    (tmp_path / "state.json").unlink()
    await memory.change(tried=7)
    assert not (tmp_path / "state.json").exists()
