"""The log lines that the reload table expects are those which a real nebula writes."""

from __future__ import annotations

import copy
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any

import pytest

from edgegc.model.message import Topology
from edgegc.nebula import certificate as certificates
from edgegc.nebula import config, keys, reload
from tests.fakes import CLUSTER_ID, sample_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR_S = 3600
LIMIT_S = 30.0
"""Only a machine that hangs comes near it."""

CHANGES: dict[str, tuple[str, str, object]] = {
    "a rule": ("firewall", "inbound", [{"port": "any", "proto": "any", "host": "any"}]),
    "a host": ("static_host_map", "10.42.0.9", ["127.0.0.1:9"]),
    "a lighthouse": ("lighthouse", "hosts", ["10.42.0.9"]),
    "the interval": ("lighthouse", "interval", 11),
    "advertised addresses": ("lighthouse", "advertise_addrs", ["127.0.0.1:10"]),
    "send_recv_error": ("listen", "send_recv_error", "private"),
    "respond": ("punchy", "respond", False),
    "delay": ("punchy", "delay", "2s"),
    "disconnect_invalid": ("pki", "disconnect_invalid", False),
    "the blocklist": ("pki", "blocklist", ["ab" * 32]),
    "the log level": ("logging", "level", "debug"),
}


class Box:
    """A lighthouse without tunnel device, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        now = int(time.time())
        self._key = keys.generate_ed25519()
        self._host_key = keys.generate_x25519()
        self._ca = certificates.self_sign(
            name="home", key=self._key, not_before=now - HOUR_S, not_after=now + HOUR_S
        )
        (directory / "ca.crt").write_text(self._ca.pem())
        (directory / "host.key").write_text(keys.pem_x25519_private(self._host_key.private))
        self.sign(now)

    def sign(self, not_before: int) -> str:
        certificate = certificates.sign(
            ca=self._ca,
            ca_private=self._key.private,
            name="box",
            overlay=IPv4Interface("10.42.0.1/16"),
            subnets=(),
            groups=(),
            not_before=not_before,
            not_after=not_before + 60,
            public_key=self._host_key.public,
        )
        (self.directory / "host.crt").write_text(certificate.pem())
        return certificate.fingerprint

    def config(self) -> dict[str, Any]:
        alone = Topology(cluster_id=CLUSTER_ID, version=1, lighthouses=(), relays=(), routes=())
        document: Any = config.lighthouse_config(cluster=sample_cluster(), topology=alone, blocklist=())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            document["listen"] |= {"host": "127.0.0.1", "port": probe.getsockname()[1]}
        for key, name in (("ca", "ca.crt"), ("cert", "host.crt"), ("key", "host.key")):
            document["pki"][key] = str(self.directory / name)
        return dict(document)

    def write(self, document: dict[str, Any]) -> None:
        (self.directory / "nebula.yml").write_bytes(config.dump(document))

    def log(self) -> str:
        return (self.directory / "nebula.log").read_text()

    @contextmanager
    def running(self, nebula: Path) -> Iterator[subprocess.Popen[bytes]]:
        with (self.directory / "nebula.log").open("wb") as log:
            process = subprocess.Popen(
                [nebula, "-config", self.directory / "nebula.yml"], stdout=log, stderr=log, cwd=self.directory
            )
        try:
            wait_for(self, ["Nebula interface is active"])
            yield process
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def wait_for(box: Box, lines: tuple[str, ...] | list[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while missing := [line for line in lines if line not in box.log()]:
        assert time.monotonic() < deadline, f"nebula did not say {missing}:\n{box.log()}"
        time.sleep(0.02)


@pytest.fixture
def version(nebula: Path) -> reload.Version:
    said = subprocess.run([nebula, "-version"], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", said.stdout)
    assert found is not None
    return int(found[1]), int(found[2]), int(found[3])


def test_nebula_says_that_it_took_each_section(nebula: Path, version: reload.Version, tmp_path: Path) -> None:
    box = Box(tmp_path)
    before = box.config()
    after = copy.deepcopy(before)
    for section, key, value in CHANGES.values():
        changed = copy.deepcopy(after)
        changed.setdefault(section, {})[key] = value
        if reload.plan(before, changed, nebula_version=version).action == "hup":
            after = changed
    box.write(before)
    with box.running(nebula) as process:
        box.write(after)
        process.send_signal(signal.SIGHUP)
        wait_for(box, reload.plan(before, after, nebula_version=version).log_lines)


def test_nebula_names_the_certificate_that_it_read(
    nebula: Path, version: reload.Version, tmp_path: Path
) -> None:
    """Old versions too, though they use it only for new tunnels: it is how a reload of anything else is proven."""
    box = Box(tmp_path)
    before = box.config()
    after = {**before, "pki": {**before["pki"], "blocklist": ["ab" * 32]}}
    box.write(before)
    with box.running(nebula) as process:
        box.write(after)
        fingerprint = box.sign(int(time.time()) - 1)
        process.send_signal(signal.SIGHUP)
        wait_for(box, [*reload.plan(before, after, nebula_version=version).log_lines, fingerprint])
