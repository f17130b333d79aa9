"""A change of the policy closes and opens a TCP port between two nodes, on real nebula, without a restart."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from tests.e2e.ground import APPLY_LIMIT_S, JOIN_LIMIT_S, Ground, Machine
from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from tests.e2e.network import Network

PORT = 8000
ANYBODY = {"port": "any", "proto": "any", "host": "any"}
LISTEN = """
import socket
with socket.create_server(("0.0.0.0", {port})) as server:
    print("listening", flush=True)
    while True:
        server.accept()[0].close()
"""
CONNECT = "import socket; socket.create_connection(({address!r}, {port}), timeout=2).close()"


def reaches(machine: Machine, address: str) -> bool:
    """Whether a TCP connection to the port is made."""
    done = machine.host.run(sys.executable, "-c", CONNECT.format(address=address, port=PORT), check=False)
    return done.returncode == 0


def set_policy(ground: Ground, *inbound: dict[str, object]) -> None:
    path = ground.box.host.directory / "policy.json"
    path.write_text(json.dumps({"inbound": inbound, "outbound": [ANYBODY]}))
    preview = ground.box.ask("policy", "set", path, "--dry-run")
    ground.box.ask("policy", "set", path)
    for each in preview["nodes"]:
        version = ground.box.node(each["name"])["version"]
        assert ground.box.wait_applied(each["name"], version)["error"] is None


def test_a_policy_change_closes_and_opens_a_port(network: Network, program: tuple[str, ...]) -> None:
    ground = Ground(network, program)
    ground.box.quickstart()
    one, two = ground.machine("one"), ground.machine("two")
    for machine in (one, two):
        machine.join(ground.box)
    server = two.host.start(sys.executable, "-c", LISTEN.format(port=PORT), name="server")
    wait_until(lambda: "listening" in server.output(), within_s=JOIN_LIMIT_S, what="the server listens")
    wait_until(
        lambda: len(ground.box.ask("node", "list")["nodes"]) == 2,
        within_s=JOIN_LIMIT_S,
        what="both have joined",
    )
    address = ground.overlay_ip(two)
    wait_until(lambda: reaches(one, address), within_s=2 * JOIN_LIMIT_S, what="the port is open at first")
    pids = [machine.nebula_pid() for machine in (one, two)]

    icmp: dict[str, object] = {"port": "any", "proto": "icmp", "host": "any"}
    set_policy(ground, icmp)
    wait_until(lambda: not reaches(one, address), within_s=APPLY_LIMIT_S, what="the port is closed")
    assert one.host.ping(address, wait_s=5)

    set_policy(ground, icmp, {"port": PORT, "proto": "tcp", "host": "one"})
    wait_until(lambda: reaches(one, address), within_s=APPLY_LIMIT_S, what="the port is open for one")
    set_policy(ground, icmp, {"port": PORT, "proto": "tcp", "host": "three"})
    wait_until(lambda: not reaches(one, address), within_s=APPLY_LIMIT_S, what="it is open for three alone")
    assert [machine.nebula_pid() for machine in (one, two)] == pids

    ground.box.ask("node", "update", "one", "--name", "three")
    wait_until(lambda: reaches(one, address), within_s=APPLY_LIMIT_S, what="one, renamed, is let in")
