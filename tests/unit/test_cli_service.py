"""systemd units: rendered for the file that runs, and accepted by systemd."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import pytest

from edgegc.cli import service

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("which", ["serve", "agent"])
def test_systemd_accepts_the_unit(which: Literal["serve", "agent"], tmp_path: Path) -> None:
    unit = tmp_path / service.UNITS[which]
    unit.write_text(service.render(which))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.mark.parametrize("which", ["serve", "agent"])
def test_the_unit_keeps_the_promises_of_the_product(which: Literal["serve", "agent"]) -> None:
    lines = service.render(which).splitlines()
    assert "Type=notify" in lines
    assert "KillMode=process" in lines  # nebula outlives us
    assert any(line.startswith("WatchdogSec=") for line in lines)
    directory = next(line for line in lines if line.startswith("StateDirectory=")).partition("=")[2]
    assert f"Environment=SHIV_ROOT=/var/lib/{directory}/.shiv" in lines
    assert service.COMMAND_MARK not in "\n".join(lines)


def test_the_unit_starts_the_file_that_was_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["./edgegc 100%.pyz"])
    expected = (
        f'ExecStart={sys.executable} "{tmp_path}/edgegc 100%%.pyz" agent --config-dir /var/lib/edgegc-agent'
    )
    assert expected in service.render("agent").splitlines()
    monkeypatch.setattr(sys, "argv", ["/src/edgegc/__main__.py"])
    assert f"ExecStart={sys.executable} -m edgegc serve" in service.render("serve")
