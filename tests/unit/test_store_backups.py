"""The directory of database copies: names, order, retention."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgegc.store import backups

if TYPE_CHECKING:
    from pathlib import Path

NOON = 1_795_000_000


def put(directory: Path, name: str, *, at: int = NOON) -> Path:
    path = directory / name
    path.write_bytes(b"copy")
    os.utime(path, (at, at))
    return path


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
    "name",
    ["edgegc-20261123T103000Z.db", "edgegc-20261123T103000Z-2.db", "before-schema-2-from-1.db"],
)
def test_names_of_copies_are_known(name: str) -> None:
    assert backups.is_name(name)


@pytest.mark.parametrize(
    "name",
    ["../edgegc.db", "edgegc.db", "edgegc-20261123T103000Z.db/..", "edgegc-20261123T103000Z.db\n", ""],
)
def test_nothing_else_is_a_name(name: str) -> None:
    assert not backups.is_name(name)


def test_two_copies_of_one_second_have_two_names(tmp_path: Path) -> None:
    first = backups.new_path(tmp_path, now=NOON)
    first.touch()
    second = backups.new_path(tmp_path, now=NOON)
    assert first != second
    assert backups.is_name(first.name)
    assert backups.is_name(second.name)


def test_copies_are_listed_newest_first_and_strangers_not_at_all(tmp_path: Path) -> None:
    put(tmp_path, "edgegc-20260101T000000Z.db", at=NOON)
    put(tmp_path, "before-schema-2-from-1.db", at=NOON + 5)
    put(tmp_path, "notes.txt")
    found = backups.all_(tmp_path)
    assert [copy.name for copy in found] == ["before-schema-2-from-1.db", "edgegc-20260101T000000Z.db"]
    assert found[0].created_at == NOON + 5
    assert backups.all_(tmp_path / "missing") == []


def test_the_newest_of_each_kind_stay_and_halves_and_only_those_go(tmp_path: Path) -> None:
    for day in range(1, 5):
        put(tmp_path, f"edgegc-2026010{day}T000000Z.db", at=NOON + day)
        put(tmp_path, f"before-schema-{day + 1}-from-{day}.db", at=NOON + day)
    put(tmp_path, ".edgegc-20260105T000000Z.db.partial")
    put(tmp_path, "notes.txt", at=0)
    gone = backups.prune(tmp_path, keep=3)
    assert set(gone) == {
        "edgegc-20260101T000000Z.db",
        "before-schema-2-from-1.db",
        ".edgegc-20260105T000000Z.db.partial",
    }
    assert names(tmp_path).isdisjoint(gone)
    assert "notes.txt" in names(tmp_path)
    assert len(names(tmp_path)) == 7
