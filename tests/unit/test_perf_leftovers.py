"""Marks of suites: who made what, and what is nobody's any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgegc.errors import Unavailable
from edgegc.perf import filesystem, leftovers, process, respawn

NEVER_A_PID = 2**22 + 1
"""Linux gives none above 2**22."""


def test_what_this_process_names_is_not_abandoned(tmp_path: Path) -> None:
    made = tmp_path / leftovers.name("x")
    assert not leftovers.is_abandoned(made)


def test_a_pid_that_is_somebody_else_by_now_does_not_keep_a_name(tmp_path: Path) -> None:
    assert leftovers.is_abandoned(tmp_path / f"{leftovers.NAME}-{os.getpid()}-000000-x")


@pytest.mark.parametrize(
    "name",
    ["edgegc", "edgegc-perf", "edgegc-perf-notes", "my-edgegc-perf-1-000000-x", "edgegc-perf-1-zz0000"],
)
def test_other_peoples_names_are_never_ours(tmp_path: Path, name: str) -> None:
    assert not leftovers.is_abandoned(tmp_path / name)


def test_a_sweep_removes_abandoned_directories_alone(tmp_path: Path) -> None:
    left = tmp_path / f"{leftovers.NAME}-{NEVER_A_PID}-000000-a"
    (left / "data").mkdir(parents=True)
    kept = [tmp_path / leftovers.name("b"), tmp_path / "edgegc-perf-results"]
    for path in kept:
        path.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / f"{leftovers.NAME}-{NEVER_A_PID}-000000-link"
    link.symlink_to(elsewhere)
    said = leftovers.sweep(tmp_path)
    assert said == [f"found {left.name} of a run that was killed, and removed it"]
    assert not left.exists()
    assert elsewhere.exists()
    assert all(path.exists() for path in kept)


def test_a_sweep_ends_processes_that_carry_the_mark_of_one_that_is_gone(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    environments = {"gone": f"{NEVER_A_PID}-000000", "here": leftovers.mark()}
    running = {
        name: subprocess.Popen(sleeper, env={**os.environ, leftovers.VARIABLE: mark}, stdout=subprocess.PIPE)
        for name, mark in environments.items()
    }
    try:
        for each in running.values():
            assert each.stdout is not None
            each.stdout.readline()
        # Another test's sweep may have found it first; then it is going.
        leftovers.sweep(tmp_path)
        running["gone"].wait(timeout=10)
        assert not process.is_alive(running["gone"].pid)
        assert process.is_alive(running["here"].pid)
    finally:
        for each in running.values():
            each.kill()
            each.communicate()


def test_processes_that_are_started_carry_our_mark() -> None:
    assert respawn.environ()[leftovers.VARIABLE] == leftovers.mark()
    assert respawn.foreign_environ()[leftovers.VARIABLE] == leftovers.mark()


def test_another_program_does_not_find_our_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("EDGEGC_TOKEN", "secret")
    assert "PYTHONPATH" not in respawn.foreign_environ()
    assert "EDGEGC_TOKEN" not in respawn.foreign_environ()


MOUNTS = r"""21 1 8:1 / / rw - ext4 /dev/vda rw
22 21 0:20 / /tmp rw - tmpfs tmpfs rw
23 21 8:2 / /tmp/with\040blank rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/x", "ext4"), ("/tmp/x", "tmpfs"), ("/tmpfiles", "ext4"), ("/tmp/with blank/x", "xfs")],
)
def test_a_path_lies_on_the_innermost_mount(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert filesystem.mount_of(Path(path), mounts=mounts).kind == kind


def test_memory_as_a_disk_is_never_silent() -> None:
    assert "lies in memory" in (filesystem.warning(Path("/dev/shm")) or "")


def test_a_disk_needs_no_warning() -> None:
    assert filesystem.warning(Path("/usr")) is None


def test_a_directory_that_cant_be_used_is_refused_with_the_flag_that_names_another(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="--dir"):
        filesystem.workplace(tmp_path / "missing")
    long = tmp_path / ("x" * 60)
    long.mkdir()
    with pytest.raises(Unavailable, match="shorter directory with --dir"):
        filesystem.workplace(long)


def test_the_first_door_that_is_closed_to_strangers_is_named() -> None:
    with filesystem.temporary(Path("/var/tmp")) as directory:
        assert filesystem.closed_at(directory) is None
        inner = directory / "a" / "b"
        inner.mkdir(parents=True, mode=0o755)
        inner.parent.chmod(0o700)
        assert filesystem.closed_at(inner) == inner.parent.resolve()


def test_without_a_wish_the_working_directory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/var/tmp")
    assert filesystem.workplace(None) == Path("/var/tmp").resolve()


def test_a_temporary_directory_goes_with_its_context_also_when_that_fails() -> None:
    made = []

    def fail(directory: Path) -> None:
        made.append(directory)
        (directory / "file").write_text("x")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), filesystem.temporary(Path("/var/tmp")) as directory:
        fail(directory)
    assert not made[0].exists()
