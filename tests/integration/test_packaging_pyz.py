"""The one file: the same bytes every time, complete or not unpacked at all, and clear about what it needs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent.parent
MARKER = ".edgegc-complete"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "shiv"


def start(
    pyz: Path, root: Path, *arguments: str, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SHIV_ROOT": str(root)}
    return subprocess.run(
        [python, pyz, *(arguments or ("--version",))],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def tree(root: Path) -> Path:
    [marker] = root.glob(f"*/{MARKER}")
    return marker.parent


def other_build(pyz: Path, directory: Path) -> Path:
    """The same program under another build id."""
    directory.mkdir()
    other = directory / pyz.name
    with zipfile.ZipFile(pyz) as old, other.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename == "environment.json":
                    content = re.sub(rb'"build_id": "[0-9a-f]{4}', b'"build_id": "0000', content)
                new.writestr(entry, content)
    return other


def test_building_twice_gives_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [TOP / "packaging" / "build", "--out", tmp_path],
        env={**os.environ, "PACKAGING_PYTHON": sys.executable, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    again = Path(done.stdout.strip())
    assert again.name == pyz.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(pyz.read_bytes()).digest()


def test_the_archive_holds_byte_code_for_every_module_and_no_trace_of_the_build(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        names = archive.namelist()
        sources = [name for name in names if name.startswith("site-packages/") and name.endswith(".py")]
        assert len(sources) > 500
        for name in sources:
            folder, _, module = name.rpartition("/")
            cached = f"{folder}/__pycache__/{module[:-3]}.{sys.implementation.cache_tag}.pyc"
            # Flags 0b01 (PEP 552): by hash, and the source is never compared.
            assert archive.read(cached)[4:8] == b"\x01\x00\x00\x00", name
        content = b"".join(archive.read(name) for name in names if not name.endswith(".so"))
    assert str(TOP / "edgegc").encode() not in content
    assert sys.prefix.encode() not in content
    assert names == sorted(names)


def test_the_file_unpacks_itself_once_and_says_its_version(pyz: Path, root: Path) -> None:
    first = start(pyz, root)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("edgegc ")
    written = (tree(root) / MARKER).stat().st_mtime_ns
    assert start(pyz, root).stdout == first.stdout
    assert (tree(root) / MARKER).stat().st_mtime_ns == written


def test_a_tree_that_a_power_cut_left_broken_is_unpacked_again(pyz: Path, root: Path) -> None:
    assert start(pyz, root).returncode == 0
    broken = tree(root)
    (broken / MARKER).unlink()
    (broken / "site-packages" / "edgegc" / "cli" / "main.py").write_bytes(b"")
    for cached in (broken / "site-packages" / "edgegc" / "cli" / "__pycache__").glob("main.*"):
        cached.write_bytes(b"")
    (broken.with_name(broken.name + ".tmp") / "site-packages").mkdir(parents=True)
    again = start(pyz, root)
    assert (again.returncode, again.stderr) == (0, "")
    assert not broken.with_name(broken.name + ".tmp").exists()


def test_two_first_starts_at_once_both_work(pyz: Path, root: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "SHIV_ROOT": str(root)}
    both = [
        subprocess.Popen([sys.executable, pyz, "--version"], env=environ, stdout=subprocess.PIPE)
        for _ in "12"
    ]
    answers = [each.communicate()[0] for each in both]
    assert all(answer.startswith(b"edgegc ") for answer in answers)
    assert len(list(root.glob(f"*/{MARKER}"))) == 1


def test_unpacking_a_new_build_removes_the_old_unless_it_is_running(
    pyz: Path, root: Path, tmp_path: Path
) -> None:
    assert start(pyz, root).returncode == 0
    old = tree(root)
    with (root / f".{old.name}.lock").open("w") as running:
        fcntl.flock(running, fcntl.LOCK_SH)
        assert start(other_build(pyz, tmp_path / "second"), root).returncode == 0
        assert (old / MARKER).exists()
    new = next(path for path in root.iterdir() if path.is_dir() and path != old)
    (new / MARKER).unlink()  # so that the second build unpacks, and prunes, once more
    assert start(tmp_path / "second" / pyz.name, root).returncode == 0
    assert not old.exists()
    assert not (root / f".{old.name}.lock").exists()


def test_the_wrong_python_is_told_which_one_is_needed(pyz: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        main = archive.read("__main__.py").decode()
    minor = ".".join(map(str, sys.version_info[:2]))
    assert f"NEEDS = {sys.version_info[:2]!r}" in main
    (tmp_path / "__main__.py").write_text(
        main.replace(f"NEEDS = {sys.version_info[:2]!r}", "NEEDS = (3, 99)")
    )
    done = subprocess.run([sys.executable, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("edgegc: this file is for CPython 3.99, and ")
    assert f"cpython {minor}; start it with python3.99" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_root_that_cannot_be_written_is_explained_in_a_sentence(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = start(pyz, tmp_path / "file" / "shiv")
    assert done.returncode == 1
    assert "can't unpack" in done.stderr
    assert "SHIV_ROOT" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_file_can_run_a_module_of_its_own(pyz: Path, root: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "SHIV_ROOT": str(root), "SHIV_INTERPRETER": "1"}
    done = subprocess.run(
        [sys.executable, pyz, "-m", "edgegc", "--version"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout[:7]) == (0, "edgegc ")


def test_the_unit_printed_by_the_file_starts_the_file(pyz: Path, root: Path) -> None:
    done = start(pyz, root, "service", "show", "agent")
    assert f"ExecStart={sys.executable} {pyz} agent --config-dir /var/lib/edgegc-agent\n" in done.stdout
