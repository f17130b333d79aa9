"""A change of the policy closes and opens a TCP port between two nodes, on real nebula, without a restart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.e2e.ground import APPLY_LIMIT_S, JOIN_LIMIT_S, Ground, Machine
from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.network import Network

PORT = 8000
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


def test_a_policy_change_closes_and_opens_a_port(
    network: Network, program: tuple[str, ...], nebula: Path
) -> None:
    network.environment["PATH"] = f"{nebula.parent}:{network.environment['PATH']}"
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
    ground.box.set_policy(icmp)
    wait_until(lambda: not reaches(one, address), within_s=APPLY_LIMIT_S, what="the port is closed")
    assert one.host.ping(address, wait_s=5)

    ground.box.set_policy(icmp, {"port": PORT, "proto": "tcp", "host": "one"})
    wait_until(lambda: reaches(one, address), within_s=APPLY_LIMIT_S, what="the port is open for one")
    ground.box.set_policy(icmp, {"port": PORT, "proto": "tcp", "host": "three"})
    wait_until(lambda: not reaches(one, address), within_s=APPLY_LIMIT_S, what="it is open for three alone")
    assert [machine.nebula_pid() for machine in (one, two)] == pids

    ground.box.ask("node", "update", "one", "--name", "three")
    wait_until(lambda: reaches(one, address), within_s=APPLY_LIMIT_S, what="one, renamed, is let in")
