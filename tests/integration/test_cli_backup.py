"""``edgegc backup``, ``restore``, ``verify``, ``compact`` against a real daemon, and against the directory of a stopped one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
LIMIT_S = 30.0


def environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("EDGEGC_")}
    return ours | {"PYTHONPATH": str(TOP), "COLUMNS": "80"}


def edgegc(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgegc", *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def done(*arguments: object) -> Any:
    ran = edgegc(*arguments, "-o", "json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout) if ran.stdout else None


@contextmanager
def serving(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = data.parent / f"{data.name}.log"
    with log.open("ab") as output:
        shown = log.stat().st_size
        process = subprocess.Popen(
            [sys.executable, "-m", "edgegc", "serve", "--data-dir", data, "--listen", "127.0.0.1:0"],
            env=environment(),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + LIMIT_S
        while b"edgegc is up" not in log.read_bytes()[shown:]:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)


def fill(data: Path) -> None:
    done("tenant", "create", "acme", "--data-dir", data)
    done("cluster", "create", "home", "--network-cidr", "10.42.0.0/16", "--data-dir", data)
    done("node", "create", "pi-7", "--data-dir", data)


def names(data: Path) -> set[str]:
    return {node["name"] for node in done("node", "list", "--data-dir", data)["nodes"]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_backup_of_a_running_box_is_verified_restored_elsewhere_and_served(
    data: Path, tmp_path: Path
) -> None:
    file, other = tmp_path / "backup.tar", tmp_path / "other"
    with serving(data):
        fill(data)
        manifest = done("backup", file, "--data-dir", data)
        assert manifest["files"].keys() == {"edgegc.db", "master.key"}
        assert done("verify", "--data-dir", data)["ok"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        # The copy on the box is one of those that it keeps.
        assert len(list((data / "backups").iterdir())) == 1
    checked = done("verify", file)
    assert checked["ok"]
    assert "1 cluster, 1 node" in checked["detail"]
    restored = done("restore", file, "--into", other)
    assert restored["clusters"][0]["version"] > 1_000_000
    assert restored["unknown"]
    with serving(other):
        assert names(other) == {"pi-7"}


def test_a_stopped_box_is_backed_up_verified_and_compacted_too(data: Path, tmp_path: Path) -> None:
    with serving(data) as process:
        fill(data)
        # As after a crash: what was written last is in the log beside the database, and the socket lies there.
        process.kill()
        process.wait()
    assert (data / "edgegc.db-wal").stat().st_size > 0
    assert (data / "admin.sock").exists()
    assert done("verify", "--data-dir", data)["ok"]
    file, other = tmp_path / "backup.tar", tmp_path / "other"
    done("backup", file, "--data-dir", data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "data", "data.log"]
    assert done("compact", "--data-dir", data)["ok"]
    done("restore", file, "--into", other)
    with serving(other):
        assert names(other) == {"pi-7"}


def test_what_a_person_reads(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    with serving(data):
        fill(data)
        made = edgegc("backup", file, "--data-dir", data)
        assert made.returncode == 0
        assert made.stdout == ""
        assert "edgegc.db, master.key" in made.stderr
        refused = edgegc("restore", file, "--into", data, "--force")
        assert refused.returncode == 3
        assert "in use by process" in refused.stderr
    refused = edgegc("restore", file, "--into", data)
    assert refused.returncode == 3
    assert "--force" in refused.stderr
    ran = edgegc("restore", file, "--into", data, "--force")
    assert ran.returncode == 0
    assert "replaced-" in ran.stdout
    assert "must join again" in ran.stderr
    assert "are back" in ran.stderr


def test_without_secrets_there_is_none_in_it_and_the_key_is_needed(data: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "backup.tar", tmp_path / "other"
    with serving(data):
        fill(data)
        done("backup", file, "--without-secrets", "--data-dir", data)
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["edgegc.db", "manifest.json"]
    assert (data / "master.key").read_bytes().strip() not in file.read_bytes()
    refused = edgegc("restore", file, "--into", other)
    assert refused.returncode == 2
    assert "--master-key" in refused.stderr
    done("restore", file, "--into", other, "--master-key", data / "master.key")
    with serving(other):
        assert names(other) == {"pi-7"}


def test_secrets_are_not_taken_over_the_network(tmp_path: Path) -> None:
    ran = edgegc("backup", tmp_path / "backup.tar", "--url", "http://127.0.0.1:9")
    assert ran.returncode == 2
    assert "--without-secrets" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_backup_and_a_damaged_database_fail_with_a_reason(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    with serving(data):
        fill(data)
        done("backup", file, "--data-dir", data)
    with file.open("r+b") as damaged:
        damaged.seek(20_000)
        damaged.write(b"\xff")
    ran = edgegc("verify", file)
    assert ran.returncode == 1
    assert "edgegc.db is not what the manifest says" in ran.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with closing(sqlite3.connect(data / "edgegc.db")) as connection, connection:
        connection.execute("DELETE FROM tenants")
    ran = edgegc("verify", "--data-dir", data)
    assert ran.returncode == 1
    assert "refers to nothing" in ran.stderr


def test_where_there_is_nothing_it_says_so(tmp_path: Path) -> None:
    for command in (["backup", tmp_path / "backup.tar"], ["verify"], ["compact"]):
        ran = edgegc(*command, "--data-dir", tmp_path / "missing")
        assert ran.returncode in (4, 5), ran.stderr
        assert ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_half_restored_directory_is_not_served(data: Path) -> None:
    data.mkdir()
    (data / "restoring").touch()
    ran = edgegc("serve", "--data-dir", data, "--listen", "127.0.0.1:0")
    assert ran.returncode == 3
    assert "run the same 'edgegc restore' again" in ran.stderr
    assert {path.name for path in data.iterdir()} == {"restoring"}
