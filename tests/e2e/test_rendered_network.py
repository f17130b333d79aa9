"""What the renderer writes makes a network: real nebulas with our certificates and configurations, nothing else of ours."""

from __future__ import annotations

import signal
import time
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from edgegc.model.message import NodeRoutes, Topology, TopologyLighthouse
from edgegc.model.policy import ANY_TO_ANY, Policy, Rule
from edgegc.nebula import certificate as certificates
from edgegc.nebula import config, keys
from tests.e2e.network import Network, wait_until
from tests.fakes import CLUSTER_ID, sample_cluster, sample_node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgegc.model.node import Node
    from tests.e2e.network import Child, Host

HOUR_S = 3600
SETTLE_S = 30.0
"""Nodes register within the lighthouse interval of 10 s; the rest is for busy machines."""
NOBODY = 65534


class Overlay:
    """A cluster that was made by hand: an authority, a lighthouse on the box, nodes."""

    def __init__(self, network: Network, nebula: Path) -> None:
        self._network = network
        self._nebula = nebula
        self._now = int(time.time())
        self._ca_key = keys.generate_ed25519()
        self._ca = certificates.self_sign(
            name="home", key=self._ca_key, not_before=self._now - HOUR_S, not_after=self._now + HOUR_S
        )
        self.policy = ANY_TO_ANY
        self.blocklist: list[str] = []
        self.nodes: list[Node] = []
        self._running: dict[str, Child] = {}
        self.fingerprints: dict[str, str] = {}
        self.box = network.add("box", "198.51.100.1/24")
        self._write(self.box, "10.42.0.1", (), (), self._lighthouse_config(), {"port": 4242}, {})
        # Without tunnel device it needs no rights at all.
        self._start(self.box, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

    def join(self, node: Node) -> Host:
        """Plug in a host for a node, and start its nebula once all nodes are known."""
        number = len(self.nodes) + 2
        self.nodes.append(node)
        return self._network.add(node.name, f"198.51.100.{number}/24")

    def up(self) -> None:
        """Write and start every node."""
        for node in self.nodes:
            self.write(node)
            self._start(self._network.hosts[node.name])

    def reload(self, node: Node) -> None:
        self.write(node)
        self._running[node.name].signal(signal.SIGHUP)

    def write(self, node: Node) -> None:
        document: Any = config.node_config(
            node=node,
            topology=self._topology(),
            gateways={each.id: str(each.overlay_ip) for each in self.nodes if each.routes},
            policy=self.policy,
            blocklist=self.blocklist,
        )
        host = self._network.hosts[node.name]
        self._write(
            host, str(node.overlay_ip), node.routes, node.groups, document, {"port": 4242}, {"dev": "overlay"}
        )

    def _topology(self) -> Topology:
        box = TopologyLighthouse(
            node_id=None,
            name="box",
            overlay_ip="10.42.0.1",
            public_addresses=("198.51.100.1:4242",),
            is_relay=True,
        )
        routes = tuple(
            NodeRoutes(node_id=each.id, name=each.name, routes=each.routes)
            for each in self.nodes
            if each.routes
        )
        return Topology(cluster_id=CLUSTER_ID, version=1, lighthouses=(box,), relays=(box,), routes=routes)

    def _lighthouse_config(self) -> Any:
        return config.lighthouse_config(
            cluster=sample_cluster(), topology=self._topology(), blocklist=self.blocklist
        )

    def _write(
        self,
        host: Host,
        address: str,
        routes: Sequence[str],
        groups: Sequence[str],
        document: Any,
        listen: dict[str, Any],
        tun: dict[str, Any],
    ) -> None:
        directory = host.directory
        key_path = directory / "host.key"
        if not key_path.exists():
            key_path.write_text(keys.pem_x25519_private(keys.generate_x25519().private))
        certificate = certificates.sign(
            ca=self._ca,
            ca_private=self._ca_key.private,
            name=host.name,
            overlay=IPv4Interface(f"{address}/16"),
            subnets=[IPv4Network(route) for route in routes],
            groups=groups,
            not_before=self._now - HOUR_S,
            not_after=self._now + HOUR_S,
            public_key=keys.x25519_public_of(keys.parse_x25519_private(key_path.read_text())),
        )
        self.fingerprints[host.name] = certificate.fingerprint
        (directory / "ca.crt").write_text(self._ca.pem())
        (directory / "host.crt").write_text(certificate.pem())
        paths = {"ca": "ca.crt", "cert": "host.crt", "key": "host.key"}
        document = {
            **document,
            "pki": {**document["pki"], **{key: str(directory / name) for key, name in paths.items()}},
            "listen": {**document["listen"], **listen},
            "tun": {**document["tun"], **tun},
        }
        (directory / "nebula.yml").write_bytes(config.dump(document))

    def _start(self, host: Host, *wrapper: str) -> None:
        child = host.start(*wrapper, self._nebula, "-config", host.directory / "nebula.yml", name="nebula")
        self._running[host.name] = child
        wait_until(
            lambda: "Nebula interface is active" in child.output(),
            within_s=SETTLE_S,
            what=f"{host.name} is up",
        )


@pytest.fixture
def overlay(nebula: Path, _swept: None) -> Iterator[Overlay]:
    with Network() as network:
        yield Overlay(network, nebula)


def reaches(host: Host, address: str) -> None:
    wait_until(lambda: host.ping(address), within_s=SETTLE_S, what=f"{host.name} reaches {address}")


def test_nodes_reach_the_lighthouse_and_each_other(overlay: Overlay) -> None:
    one, two = overlay.join(sample_node(5)), overlay.join(sample_node(6))
    overlay.up()
    reaches(one, "10.42.0.1")
    reaches(two, "10.42.0.1")
    reaches(one, "10.42.0.6")


def test_a_node_reaches_the_lighthouse_under_a_policy_that_allows_nothing(overlay: Overlay) -> None:
    overlay.policy = Policy(inbound=(), outbound=())
    one, _ = overlay.join(sample_node(5)), overlay.join(sample_node(6))
    overlay.up()
    reaches(one, "10.42.0.1")
    assert not one.ping("10.42.0.6")


def test_a_rule_admits_only_those_with_all_its_groups(overlay: Overlay) -> None:
    overlay.policy = Policy(
        inbound=(Rule(port="any", proto="icmp", groups=("1e3", "ops")),), outbound=ANY_TO_ANY.outbound
    )
    member = overlay.join(sample_node(5, groups=("ops", "1e3")))
    stranger = overlay.join(sample_node(6, groups=("ops",)))
    overlay.join(sample_node(7))
    overlay.up()
    reaches(member, "10.42.0.7")
    assert not stranger.ping("10.42.0.7")


def test_a_subnet_behind_a_node_is_reached_through_it(overlay: Overlay) -> None:
    router = overlay.join(sample_node(5, routes=("192.168.5.0/24",)))
    other = overlay.join(sample_node(6, mtu=1400))
    router.run("ip", "link", "add", "lan", "type", "bridge")
    router.run("ip", "address", "add", "192.168.5.1/24", "dev", "lan")
    router.run("ip", "link", "set", "lan", "up")
    overlay.up()
    assert other.routes()["192.168.5.0/24"]["dev"] == "overlay"
    assert "192.168.5.0/24" in router.routes()
    assert router.routes()["192.168.5.0/24"]["dev"] == "lan"
    reaches(other, "192.168.5.1")
    link = other.link("overlay")
    assert link is not None
    assert link["mtu"] == 1400


def test_nodes_without_a_direct_way_reach_each_other_through_the_relay(overlay: Overlay) -> None:
    one, two = overlay.join(sample_node(5)), overlay.join(sample_node(6))
    one.run("ip", "route", "add", "unreachable", f"{two.address}/32")
    two.run("ip", "route", "add", "unreachable", f"{one.address}/32")
    assert not one.ping(two.address)
    overlay.up()
    reaches(one, "10.42.0.6")


def test_a_blocklisted_peer_loses_its_open_tunnel(overlay: Overlay) -> None:
    one, two = sample_node(5), sample_node(6)
    host, _ = overlay.join(one), overlay.join(two)
    overlay.up()
    reaches(host, "10.42.0.6")
    overlay.blocklist = [overlay.fingerprints[two.name]]
    overlay.reload(one)
    wait_until(lambda: not host.ping("10.42.0.6"), within_s=SETTLE_S, what="the tunnel is cut")
