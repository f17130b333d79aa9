"""``edgegc doctor``: each check by what it sees, the exit code, and that it leaves nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgegc import build
from edgegc.api import tls
from edgegc.cli.main import run
from edgegc.doctor import box, machine, node
from edgegc.settings import Api, Data, Settings, Tls

if TYPE_CHECKING:
    from edgegc.doctor.finding import Finding

NOW = 1_900_000_000.0
"""After any build of this code, so that the clock is never what is wrong."""
DAY = 86_400


def settings(data: Path, **sections: object) -> Settings:
    return Settings(**({"data": Data(dir=data)} | sections))  # type: ignore[arg-type]


async def examined(data: Path, *, now: float = NOW, **sections: object) -> dict[str, Finding]:
    return {each.check: each for each in await box.examine(settings(data, **sections), now=now)}


async def test_every_question_is_answered_and_nothing_is_left_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = await examined(data)
    assert list(found) == [
        *("nebula", "daemon", "tun", "capabilities", "lighthouse user", "API port", "lighthouse port"),
        *("clock", "disk", "fsync", "open files", "memory", "TLS", "backups"),
    ]
    assert all((each.remedy is None) == (each.state == "ok") for each in found.values())
    assert not data.exists()
    assert os.listdir(tmp_path) == []


async def test_a_missing_nebula_fails_with_what_to_do(tmp_path: Path) -> None:
    found = await machine.nebula(tmp_path / "nebula")
    assert found.state == "fail"
    assert "there is no nebula" in found.detail
    assert found.remedy is not None
    assert "install nebula" in found.remedy


async def test_a_port_that_somebody_has_fails_and_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = await examined(tmp_path, api=Api(listen=(address,)))
        assert found["API port"].state == "fail"
        assert address in found["API port"].detail
    assert (await examined(tmp_path, api=Api(listen=(address,))))["API port"].state == "ok"


async def test_the_ports_of_a_daemon_that_runs_are_its_own(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"{os.getpid()}\n")
    with lock.open() as held, socket.socket() as taken:
        fcntl.flock(held, fcntl.LOCK_EX)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = await examined(tmp_path, api=Api(listen=(f"127.0.0.1:{taken.getsockname()[1]}",)))
    assert found["daemon"].detail.endswith(f"(pid {os.getpid()})")
    assert found["API port"].state == found["lighthouse port"].state == "ok"


async def test_a_restore_that_was_interrupted_fails(tmp_path: Path) -> None:
    (tmp_path / "restoring").touch()
    assert (await examined(tmp_path))["daemon"].state == "fail"


@pytest.mark.parametrize(
    ("days", "state"), [(None, "warn"), (0, "ok"), (6, "ok"), (8, "warn")], ids=["none", "new", "6 d", "8 d"]
)
async def test_a_box_without_a_new_backup_is_warned_of(days: int | None, state: str, tmp_path: Path) -> None:
    (tmp_path / "edgegc.db").touch()
    if days is not None:
        (tmp_path / "backups").mkdir()
        copy = tmp_path / "backups" / "edgegc-20261123T103000Z.db"
        copy.touch()
        os.utime(copy, (NOW - days * DAY, NOW - days * DAY))
    assert (await examined(tmp_path))["backups"].state == state


@pytest.mark.parametrize(("left", "state"), [(-1, "fail"), (10, "warn"), (100, "ok")])
async def test_a_certificate_of_ones_own_is_warned_of_before_it_ends(
    left: int, state: str, tmp_path: Path
) -> None:
    made = tls.self_signed(tmp_path / "tls", names=("box",), now=int(NOW) - (tls.VALIDITY_DAYS - left) * DAY)
    own = Tls(mode="files", certificate=made.certificate, key=made.key)
    assert (await examined(tmp_path, tls=own))["TLS"].state == state


async def test_a_key_that_everybody_may_read_is_warned_of(tmp_path: Path) -> None:
    made = tls.self_signed(tmp_path / "tls", names=("box",), now=int(NOW))
    made.key.chmod(0o644)
    assert (await examined(tmp_path, tls=Tls(mode="self-signed")))["TLS"].state == "warn"


def test_a_clock_before_the_build_fails() -> None:
    assert machine.clock(build.built_at() - 1).state == "fail"
    assert machine.clock(NOW).state in ("ok", "warn")


def test_a_full_disk_fails_and_a_filling_one_warns(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert machine.disk(tmp_path, least_bytes=free * 2).state == "fail"
    assert machine.disk(tmp_path, least_bytes=free // 2).state == "warn"
    assert machine.disk(tmp_path, least_bytes=free // 100).state == "ok"


def test_too_few_open_files_are_warned_of() -> None:
    assert machine.open_files(2**40).state in ("ok", "warn")
    assert machine.open_files(1).state == "ok"


def test_the_lowest_memory_limit_on_the_way_up_counts_in_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    unit = tmp_path / "system.slice" / "edgegc.service"
    unit.mkdir(parents=True)
    (unit / "memory.max").write_text("max\n")
    (tmp_path / "system.slice" / "memory.max").write_text("100000000\n")
    membership = tmp_path / "membership"
    membership.write_text("0::/system.slice/edgegc.service\n")
    assert machine.memory_limit(membership, tmp_path) == (2, 100_000_000)
    (unit / "memory.max").write_text("50000000\n")
    assert machine.memory_limit(membership, tmp_path) == (2, 50_000_000)


def test_the_memory_controller_of_version_1_is_found_beside_an_empty_version_2(tmp_path: Path) -> None:
    here = tmp_path / "memory" / "box"
    here.mkdir(parents=True)
    (here / "memory.limit_in_bytes").write_text("536870912\n")
    membership = tmp_path / "membership"
    membership.write_text("5:cpu,cpuacct:/\n4:memory:/box\n0::/\n")
    assert machine.memory_limit(membership, tmp_path) == (1, 536_870_912)


def test_no_control_groups_are_no_limit(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("0::/\n")
    assert machine.memory_limit(membership, tmp_path) == (None, None)
    assert machine.memory_limit(tmp_path / "missing", tmp_path) == (None, None)


def test_missing_rights_are_named_with_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: "Name:\tx\nCapEff:\t0000000000001000\n")
    assert machine.capabilities({"CAP_NET_ADMIN": "tunnels"}).state == "ok"
    found = machine.capabilities({"CAP_SETUID": "to become somebody"})
    assert found.state == "fail"
    assert "CAP_SETUID (to become somebody)" in found.detail
    assert machine.capabilities({"CAP_SETUID": "x"}, without="it goes on").state == "warn"


async def test_a_node_that_has_joined_nothing_is_told_how(tmp_path: Path) -> None:
    found = {each.check: each for each in await node.examine(tmp_path / "agent", now=NOW)}
    assert found["agent"].state == "warn"
    assert found["agent"].remedy is not None
    assert "edgegc join" in found["agent"].remedy
    assert os.listdir(tmp_path) == []


def test_a_failure_is_exit_code_1_and_the_json_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGC_NEBULA_PATH", str(tmp_path / "no-nebula"))
    assert run(["doctor", "--data-dir", str(tmp_path), "-o", "json"]) == 1
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["ok"] is False
    assert {"check", "state", "detail", "remedy"} == said["findings"][0].keys()
    assert [each["check"] for each in said["findings"] if each["state"] == "fail"][:1] == ["nebula"]
    assert captured.err.startswith("edgegc: not as it must be: nebula")


def test_settings_that_do_not_fit_are_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edgegc.toml").write_text("[api]\nlisten = 5\n")
    assert run(["doctor", "--data-dir", str(tmp_path)]) == 1
    assert "api.listen" in capsys.readouterr().out


def test_the_timing_file_is_private_and_gone(tmp_path: Path) -> None:
    assert machine.fsync(tmp_path).state in ("ok", "warn")
    assert list(tmp_path.iterdir()) == []
    assert stat.S_ISDIR(tmp_path.stat().st_mode)
    assert msgspec.json.encode(machine.fsync(tmp_path))
