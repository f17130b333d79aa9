"""Another release is measured as it is, not with the modules of the suite that measures it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from edgegc.errors import Unavailable
from edgegc.perf import release, respawn

if TYPE_CHECKING:
    from pathlib import Path


def test_another_release_gets_none_of_our_modules_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("EDGEGC_DATA_DIR", "/elsewhere")
    assert "PYTHONPATH" not in respawn.foreign_environ()
    assert "EDGEGC_DATA_DIR" not in respawn.foreign_environ()
    assert respawn.environ()["PYTHONPATH"] == f"{respawn.PACKAGE_ROOT}:/somewhere"


def test_a_release_says_its_version_and_commit(tmp_path: Path) -> None:
    file = tmp_path / "edgegc.pyz"
    file.write_text('print(\'{"version": "0.9.0", "commit": "abc", "python": "3"}\')')
    command = release.command(file)
    assert command == (sys.executable, str(file))
    assert release.versions(command) == {"edgegc": "0.9.0 (abc)"}


def test_a_file_that_is_no_release_is_refused_with_its_last_words(tmp_path: Path) -> None:
    file = tmp_path / "edgegc.pyz"
    file.write_text("import sys; sys.exit('this file is for CPython 3.13')")
    with pytest.raises(Unavailable, match=r"exit code 1.*this file is for CPython 3\.13"):
        release.versions(release.command(file))
