"""A node that becomes a lighthouse, and a plain one again: applied and proven, on real nebula."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.ground import JOIN_LIMIT_S, Ground
from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from tests.e2e.network import Network


def test_a_node_becomes_a_lighthouse_and_a_plain_node_again(
    network: Network, program: tuple[str, ...]
) -> None:
    ground = Ground(network, program)
    ground.box.quickstart()
    one, two = ground.machine("one"), ground.machine("two")
    for machine in (one, two):
        machine.join(ground.box)
        wait_until(
            lambda machine=machine: machine.status().get("applied_version"),
            within_s=JOIN_LIMIT_S,
            what="it has joined",
        )
    # Only who reached a lighthouse before has to reach one after.
    wait_until(lambda: two.host.ping("10.42.0.1"), within_s=JOIN_LIMIT_S, what="two reaches the lighthouse")

    ground.box.ask("node", "set-lighthouse", "two", "--public-addresses", f"{two.host.address}:4343")
    for machine in (one, two):
        version = ground.box.node(machine.name)["version"]
        assert ground.box.wait_applied(machine.name, version)["error"] is None
    assert one.host.ping(ground.overlay_ip(two), wait_s=5)

    ground.box.ask("node", "unset-lighthouse", "two")
    for machine in (one, two):
        version = ground.box.node(machine.name)["version"]
        assert ground.box.wait_applied(machine.name, version)["error"] is None
