"""The backup file: what was written is what is read, and nothing else is taken for a backup."""

from __future__ import annotations

import io
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from edgegc.model.message import rfc3339
from edgegc.store import backup_file
from edgegc.store.backup_file import BadBackup

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = 1_795_000_000
DATABASE = b"SQLite format 3\0" + bytes(range(256)) * 20
KEY = b"ab" * 32 + b"\n"


def write(path: Path, *, database: bytes = DATABASE) -> None:
    with backup_file.create(path) as writer:
        with writer.streamed(backup_file.DATABASE, len(database), now=NOW) as add:
            add(database[:100])
            add(database[100:])
        writer.add(backup_file.MASTER_KEY, KEY, now=NOW)
        writer.add(backup_file.TLS_KEY, b"key", now=NOW)
        writer.finish(edgegc="0.1.0", created_at=rfc3339(NOW), now=NOW)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / "backup.tar"
    write(path)
    return path


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "into"
    path.mkdir()
    return path


def test_what_was_written_is_read(backup: Path, into: Path) -> None:
    done: list[int] = []
    found = backup_file.unpack(backup, into, done=done.append)
    assert found.database.read_bytes() == DATABASE
    assert sum(done) == backup.stat().st_size
    assert found.small == {backup_file.MASTER_KEY: KEY, backup_file.TLS_KEY: b"key"}
    assert found.manifest is not None
    assert found.manifest.created_at == rfc3339(NOW)


def test_it_is_private_and_any_tar_reads_it(backup: Path) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with tarfile.open(backup) as tar:
        names = tar.getnames()
        assert {member.mode for member in tar.getmembers()} == {0o600}
    assert names == ["edgegc.db", "master.key", "tls/key.pem", "manifest.json"]


def test_a_bare_copy_of_a_database_is_a_backup_without_secrets(tmp_path: Path, into: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(DATABASE)
    found = backup_file.unpack(copy, into)
    assert found.database.read_bytes() == DATABASE
    assert (found.small, found.manifest) == ({}, None)


def test_a_backup_that_fails_leaves_the_one_that_was_there(backup: Path) -> None:
    before = backup.read_bytes()
    with (
        pytest.raises(BadBackup, match="5 bytes where 6 were announced"),
        backup_file.create(backup) as writer,
        writer.streamed(backup_file.DATABASE, 6, now=NOW) as add,
    ):
        add(b"12345")
    assert backup.read_bytes() == before
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]


def test_a_file_cut_short_anywhere_is_refused(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    for number, length in enumerate(range(0, len(whole) - 2 * 512, 512)):
        cut = tmp_path / f"cut-{number}.tar"
        cut.write_bytes(whole[: length + 100])
        scratch = tmp_path / f"scratch-{number}"
        scratch.mkdir()
        with pytest.raises(BadBackup):
            backup_file.unpack(cut, scratch)


def test_a_flipped_bit_in_any_file_is_refused(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    for name, content in ((backup_file.DATABASE, DATABASE), (backup_file.MASTER_KEY, KEY)):
        damaged = bytearray(whole)
        damaged[whole.index(content) + len(content) // 2] ^= 1
        path = tmp_path / "damaged.tar"
        path.write_bytes(damaged)
        scratch = tmp_path / f"scratch-{name}"
        scratch.mkdir()
        with pytest.raises(BadBackup, match=f"{name} is not what the manifest says"):
            backup_file.unpack(path, scratch)


def member(name: str, content: bytes = b"x", **changes: object) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in changes.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(content))

    return add


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([], "no manifest.json"),
        ([member("edgegc.db")], "no manifest.json"),
        ([member("../edgegc.db")], "has no place in one"),
        ([member("/etc/passwd")], "has no place in one"),
        ([member("edgegc.db", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "has no place in one"),
        ([member("edgegc.db", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "has no place in one"),
        ([member("edgegc.db", b"", type=tarfile.CHRTYPE)], "has no place in one"),
        ([member("edgegc.db", b"", type=tarfile.DIRTYPE)], "has no place in one"),
        ([member("master.key"), member("master.key")], "twice"),
        ([member("master.key", bytes(2_000_000))], "2000000 bytes"),
        ([member("manifest.json", b"[")], "damaged"),
        ([member("manifest.json", b'{"format":1}')], "damaged"),
        (
            [
                member(
                    "manifest.json",
                    b'{"format":2,"edgegc":"9","created_at":"2026-11-23T10:30:00Z","files":{}}',
                )
            ],
            "format 2",
        ),
        (
            [
                member(
                    "manifest.json",
                    b'{"format":1,"edgegc":"9","created_at":"2026-11-23T10:30:00Z","files":{}}',
                )
            ],
            "no database",
        ),
    ],
)
def test_what_is_no_backup_is_refused_with_a_reason(
    members: list[Callable[[tarfile.TarFile], None]], complaint: str, tmp_path: Path, into: Path
) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for add in members:
            add(tar)
    with pytest.raises(BadBackup, match=complaint):
        backup_file.unpack(path, into)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b" + bytes(600), bytes(512)])
def test_what_is_no_tar_is_refused(content: bytes, tmp_path: Path, into: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(BadBackup):
        backup_file.unpack(path, into)
