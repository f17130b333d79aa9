"""An uploaded cluster on real nebula: a CA and a bundle made elsewhere, certificates of the nodes' own."""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from edgegc.nebula import keys
from edgegc.nebula.certificate import NebulaCertificate, self_sign, sign
from edgegc.nebula.plain_yaml import dump
from tests import zoo
from tests.e2e.ground import Ground
from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.network import Network

PORT = 4300


def test_two_machines_run_a_bundle_made_elsewhere_with_certificates_of_their_own(
    network: Network, program: tuple[str, ...], nebula: Path
) -> None:
    network.environment["PATH"] = f"{nebula.parent}:{network.environment['PATH']}"
    ground = Ground(network, program)
    box = ground.box
    box.quickstart()
    made = box.ask("cluster", "create", "field", "--network-cidr", "10.9.0.0/24", "--mode", "uploaded")
    machines = {f"10.9.0.{number}": ground.machine(f"m{number}") for number in (1, 2)}
    now = int(time.time())
    authority = keys.generate_ed25519()
    ca = self_sign(name="elsewhere", key=authority, not_before=now - 60, not_after=now + 86_400)
    key = box.ask("key", "create", "--cluster", "field", "--uses", 2)["key"]
    url, _, _, *pin = box.join_words
    box.join_words = [url, "--key", key, *pin]

    def certify(address: str, *, life_s: int) -> NebulaCertificate:
        home = machines[address].config / made["id"]
        own = sign(
            ca=ca,
            ca_private=authority.private,
            name=machines[address].name,
            overlay=IPv4Interface(f"{address}/24"),
            subnets=(),
            groups=(),
            not_before=now - 60,
            not_after=now + life_s,
            public_key=keys.parse_x25519_public((home / "host.pub").read_text()),
        )
        (home / "host.crt").write_text(own.pem())
        return own

    for address, machine in machines.items():
        machine.join(box)
        public = machine.config / made["id"] / "host.pub"
        wait_until(public.is_file, within_s=60, what=f"{machine.name} has joined")
        certify(address, life_s=80_000)

    def upload(mtu: int) -> int:
        config = {
            "pki": {"disconnect_invalid": True},
            "static_host_map": {
                each: [f"{machine.host.address}:{PORT}"] for each, machine in machines.items()
            },
            "lighthouse": {"am_lighthouse": False, "interval": 10, "hosts": []},
            "listen": {"host": "0.0.0.0", "port": PORT},
            "punchy": {"punch": True},
            "tun": {"disabled": False, "mtu": mtu},
            "firewall": {
                "inbound": [{"port": "any", "proto": "any", "host": "any"}],
                "outbound": [{"port": "any", "proto": "any", "host": "any"}],
            },
        }
        file = box.host.directory / f"{mtu}.tar.gz"
        file.write_bytes(zoo.bundle({"config.yml": dump(config), "ca.crt": ca.pem().encode()}))
        return int(box.ask("bundle", "upload", file, "--cluster", "field")["version"])

    def applied(version: int) -> None:
        for machine in machines.values():
            wait_until(
                lambda machine=machine: machine.status().get("applied_version") == version,
                within_s=90,
                what=f"{machine.name} runs version {version}",
            )

    one = machines["10.9.0.1"]
    applied(upload(1300))
    wait_until(lambda: one.host.ping("10.9.0.2"), within_s=60, what="one reaches two")
    applied(upload(1400))
    assert one.overlay_device()["mtu"] == 1400
    applied(int(box.ask("bundle", "activate", 1, "--cluster", "field")["version"]))
    assert one.overlay_device()["mtu"] == 1300
    wait_until(lambda: one.host.ping("10.9.0.2"), within_s=60, what="one reaches two again")

    renewed = certify("10.9.0.1", life_s=86_000)
    record = one.config / made["id"] / "process.json"

    def loaded() -> str | None:
        known = json.loads(record.read_text())["loaded"]
        return None if known is None else str(known["fingerprint"])

    wait_until(lambda: loaded() == renewed.fingerprint, within_s=60, what="the new certificate is in force")
    wait_until(lambda: one.host.ping("10.9.0.2"), within_s=60, what="one reaches two with it")
