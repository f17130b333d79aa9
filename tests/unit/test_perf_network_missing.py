"""What is said where a machine can't have namespaces: what it lacks, and what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgegc.errors import Unavailable
from edgegc.perf import network, run

if TYPE_CHECKING:
    from edgegc.perf.scenario import Need

EVERYTHING = {"ip": "/usr/sbin/ip", "nsenter": "/usr/bin/nsenter"}


def lacks(*needs: Need, nebula: Path | None = None) -> str:
    return run.lacks(needs, nebula=nebula, ram_bytes=0, free_bytes=1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A machine that has everything; what a test takes out of the returned programs is missing."""
    programs = dict(EVERYTHING)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", programs.get)
    tun = tmp_path / "tun"
    tun.touch()
    monkeypatch.setattr(network, "TUN", tun)
    return programs


def test_nothing_is_missing_where_everything_is_there(machine: dict[str, str]) -> None:
    assert network.missing() is None
    assert lacks("root", "namespaces") == ""


def test_who_is_not_root_is_told_to_be(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert network.missing() == "network namespaces need root: run it with sudo"
    assert "sudo" in lacks("root")
    with pytest.raises(Unavailable, match="sudo"), network.opened():
        pass


@pytest.mark.parametrize(("program", "package"), [("ip", "iproute2"), ("nsenter", "util-linux")])
def test_a_missing_program_is_named_with_its_package(
    machine: dict[str, str], program: str, package: str
) -> None:
    del machine[program]
    assert network.missing() == f"network namespaces need '{program}': apt install {package}"
    assert package in lacks("namespaces")


def test_a_missing_tunnel_device_is_named(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TUN", Path("/nowhere/tun"))
    assert network.missing() == "nebula's tunnels need /nowhere/tun: modprobe tun"


def test_a_missing_nebula_is_named_with_both_ways_to_have_one(machine: dict[str, str]) -> None:
    assert "apt install nebula" in lacks("nebula")
    assert "--nebula" in lacks("nebula")
    assert lacks("nebula", nebula=Path("/usr/bin/nebula")) == ""
