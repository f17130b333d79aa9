"""What is told of a machine, and the fleet that a seed stands for."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest
import trio

from edgegc.model import message
from edgegc.nebula import keys
from edgegc.perf import filesystem, host, seed, server


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Fast 9000\n", "Fast 9000"),
        (
            "processor\t: 0\nHardware\t: BCM2711\nModel\t\t: Raspberry Pi 4 Model B\n",
            "Raspberry Pi 4 Model B",
        ),
    ],
)
def test_the_processors_name_is_found_on_boards_too(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert host.cpu_model(cpuinfo=tmp_path / "cpuinfo") == name


def test_a_processor_without_a_name_is_named_by_its_kind(tmp_path: Path) -> None:
    assert host.cpu_model(cpuinfo=tmp_path / "missing")


def test_governors_are_told_each_once(tmp_path: Path) -> None:
    assert host.governor(system=tmp_path) == "none"
    for cpu, name in enumerate(("performance", "ondemand", "performance")):
        path = tmp_path / f"cpu{cpu}" / "cpufreq" / "scaling_governor"
        path.parent.mkdir(parents=True)
        path.write_text(f"{name}\n")
    assert host.governor(system=tmp_path) == "ondemand, performance"


def test_the_hottest_sensor_counts(tmp_path: Path) -> None:
    assert host.temperature_c(thermal=tmp_path) is None
    for zone, value in enumerate(("41000", "55500", "no number")):
        path = tmp_path / f"thermal_zone{zone}" / "temp"
        path.parent.mkdir()
        path.write_text(f"{value}\n")
    assert host.temperature_c(thermal=tmp_path) == 55.5


async def test_a_machine_is_described_without_its_name_and_paths() -> None:
    with filesystem.temporary(Path("/var/tmp")) as directory:
        known = host.glance(directory)
        described = await host.describe(known, directory)
        again = host.glance(directory)
    text = msgspec.json.encode(described).decode()
    assert f'"{socket.gethostname()}"' not in text
    assert str(directory) not in text
    assert "/" not in described.cgroup
    assert described.fingerprint == again.fingerprint
    assert described.fsync_p50_s is not None
    assert described.fsync_p99_s is not None
    assert 0 < described.fsync_p50_s <= described.fsync_p99_s
    assert known.fsync_p99_s is None


def test_a_machine_that_asks_another_one_is_told_apart_by_that(tmp_path: Path) -> None:
    here, there = host.glance(tmp_path), host.glance(tmp_path, asks="192.0.2.7")
    assert here.fingerprint != there.fingerprint
    assert "192.0.2.7" not in msgspec.json.encode(there).decode()


async def test_looking_how_long_an_fsync_takes_can_be_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "FSYNCS", 1 << 30)
    monkeypatch.setattr(host, "FSYNC_S", 3600.0)
    with filesystem.temporary(Path("/var/tmp")) as directory, trio.fail_after(30):
        with trio.move_on_after(0.05) as scope:
            await host.fsync_times(directory)
        assert scope.cancelled_caught


def test_versions_name_what_matters() -> None:
    found = host.versions()
    assert {"edgegc", "python", "sqlite", "openssl", "trio", "nebula"} <= set(found)
    assert host.nebula_version(Path("/nowhere/nebula")).startswith("unknown")


def test_the_same_seed_makes_the_same_fleet() -> None:
    assert seed.node(7, keys=True, seed=1) == seed.node(7, keys=True, seed=1)
    assert seed.node(7, keys=True, seed=1) != seed.node(7, keys=True, seed=2)
    assert seed.node(7, keys=True, seed=1) != seed.node(8, keys=True, seed=1)
    assert isinstance(seed.node(7, keys=False, seed=1), message.NodeCreate)


def test_seeded_keys_are_keys_that_the_server_takes() -> None:
    for number in range(50):
        keys.parse_x25519_public(seed.public_key(number, seed=1))


def test_a_servers_port_is_none_that_a_connection_gets() -> None:
    lowest = int(server.EPHEMERAL_PORTS.read_text().split()[0])
    assert all(server.FIRST_PORT <= server.free_port() < lowest for _ in range(20))
