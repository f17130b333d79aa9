from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from edgegc.model.message import NodeRoutes, Topology, TopologyLighthouse
from edgegc.model.policy import ANY_TO_ANY, Policy, Rule
from edgegc.nebula import config
from tests.fakes import CLUSTER_ID, sample_cluster, sample_node

if TYPE_CHECKING:
    from edgegc.model.node import Node

BOX = TopologyLighthouse(
    node_id=None, name="box", overlay_ip="10.42.0.1", public_addresses=("203.0.113.9:4242",), is_relay=True
)
ICMP = {"port": "any", "proto": "icmp", "host": "any"}


def landmark(node: Node) -> TopologyLighthouse:
    return TopologyLighthouse(
        node_id=node.id,
        name=node.name,
        overlay_ip=f"{node.overlay_ip}/16",
        public_addresses=node.public_addresses,
        is_relay=node.is_relay,
    )


def topology_of(*nodes: Node, box: TopologyLighthouse | None = BOX) -> Topology:
    boxes = (box,) if box else ()
    return Topology(
        cluster_id=CLUSTER_ID,
        version=1,
        lighthouses=boxes + tuple(landmark(node) for node in nodes if node.is_lighthouse),
        relays=tuple(each for each in boxes if each.is_relay)
        + tuple(landmark(node) for node in nodes if node.is_relay),
        routes=tuple(
            NodeRoutes(node_id=node.id, name=node.name, routes=node.routes) for node in nodes if node.routes
        ),
    )


def rendered(node: Node, *others: Node, policy: Policy = ANY_TO_ANY, **changes: Any) -> Any:
    nodes = (node, *others)
    arguments: dict[str, Any] = {
        "topology": topology_of(*nodes),
        "gateways": {each.id: each.overlay_ip for each in nodes if each.routes},
        "blocklist": (),
    }
    return config.node_config(node=node, policy=policy, **(arguments | changes))


LIGHTHOUSE = sample_node(2, is_lighthouse=True, public_addresses=("198.51.100.2:4242", "198.51.100.3:4242"))
RELAY = sample_node(3, is_relay=True)


def test_a_node_knows_where_every_lighthouse_is() -> None:
    document = rendered(sample_node(), LIGHTHOUSE)
    assert document["lighthouse"] == {
        "am_lighthouse": False,
        "interval": 10,
        "hosts": ["10.42.0.1", "10.42.0.2"],
    }
    assert document["static_host_map"] == {
        "10.42.0.1": ["203.0.113.9:4242"],
        "10.42.0.2": ["198.51.100.2:4242", "198.51.100.3:4242"],
    }


def test_a_lighthouse_has_no_lighthouse_hosts_and_does_not_map_itself() -> None:
    document = rendered(LIGHTHOUSE)
    assert document["lighthouse"] == {"am_lighthouse": True, "interval": 10, "hosts": []}
    assert document["static_host_map"] == {"10.42.0.1": ["203.0.113.9:4242"]}


def test_a_lighthouse_without_public_address_is_no_lighthouse_host() -> None:
    """nebula -test refuses a lighthouse host that is missing from static_host_map."""
    hidden = TopologyLighthouse(
        node_id=None, name="box", overlay_ip="10.42.0.1", public_addresses=(), is_relay=False
    )
    document = rendered(sample_node(), topology=topology_of(box=hidden))
    assert document["lighthouse"]["hosts"] == []
    assert document["static_host_map"] == {}


def test_a_node_uses_every_relay() -> None:
    assert rendered(sample_node(), RELAY)["relay"] == {
        "am_relay": False,
        "use_relays": True,
        "relays": ["10.42.0.1", "10.42.0.3"],
    }


def test_a_relay_uses_no_relays() -> None:
    assert rendered(RELAY)["relay"] == {"am_relay": True, "use_relays": True, "relays": []}


def test_relays_with_public_addresses_are_mapped_like_lighthouses() -> None:
    relay = sample_node(3, is_relay=True, public_addresses=("198.51.100.3:4243",))
    assert rendered(sample_node(), relay)["static_host_map"]["10.42.0.3"] == ["198.51.100.3:4243"]


def test_a_node_gets_the_routes_of_the_others_and_not_its_own() -> None:
    node = sample_node(routes=("192.168.5.0/24",))
    near = sample_node(6, routes=("192.168.6.0/24", "10.9.0.0/16"))
    far = sample_node(7, routes=("10.100.0.0/16", "10.9.0.0/24"))
    assert rendered(node, near, far)["tun"]["unsafe_routes"] == [
        {"route": "10.9.0.0/16", "via": "10.42.0.6"},
        {"route": "10.9.0.0/24", "via": "10.42.0.7"},
        {"route": "10.100.0.0/16", "via": "10.42.0.7"},
        {"route": "192.168.6.0/24", "via": "10.42.0.6"},
    ]


def test_the_mtu_is_that_of_the_node() -> None:
    assert rendered(sample_node(mtu=1400))["tun"]["mtu"] == 1400


def test_the_blocklist_is_sorted_and_each_entry_is_there_once() -> None:
    assert rendered(sample_node(), blocklist=["cc", "aa", "cc", "bb"])["pki"] == {
        "blocklist": ["aa", "bb", "cc"],
        "disconnect_invalid": True,
    }


def test_every_node_may_ping_out_whatever_the_policy_says() -> None:
    silent = Policy(inbound=(), outbound=())
    assert rendered(sample_node(), policy=silent)["firewall"]["outbound"] == [ICMP]
    assert rendered(sample_node(), policy=silent)["firewall"]["inbound"] == []


def test_every_lighthouse_answers_pings_whatever_the_policy_says() -> None:
    silent = Policy(inbound=(), outbound=())
    assert rendered(LIGHTHOUSE, policy=silent)["firewall"]["inbound"] == [ICMP]


def test_a_rule_reaches_only_the_nodes_in_one_of_its_groups() -> None:
    policy = Policy(
        inbound=(
            Rule(port="22", proto="tcp", groups=("ops", "laptop")),
            Rule(port="80-90", proto="any", cidr="10.42.9.0/24", on_groups=("web", "shop")),
            Rule(port="53", proto="udp", host="pi-9", on_groups=("dns",)),
        ),
        outbound=(Rule(port="any", proto="any", host="any"),),
    )
    firewall = rendered(sample_node(groups=("pi", "web")), policy=policy)["firewall"]
    assert firewall["inbound"] == [
        {"port": "22", "proto": "tcp", "groups": ["ops", "laptop"]},
        {"port": "80-90", "proto": "any", "cidr": "10.42.9.0/24"},
    ]
    assert firewall["outbound"] == [ICMP, {"port": "any", "proto": "any", "host": "any"}]
    assert {"port": "53", "proto": "udp", "host": "pi-9"} in rendered(
        sample_node(groups=("dns",)), policy=policy
    )["firewall"]["inbound"]


def test_liveness_probes_are_always_answered() -> None:
    assert rendered(sample_node())["listen"]["send_recv_error"] == "always"


def test_what_depends_on_the_machine_is_left_out() -> None:
    document = rendered(sample_node(listen_port=4242))
    assert not {"ca", "cert", "key"} & set(document["pki"])
    assert "dev" not in document["tun"]
    assert "port" not in document["listen"]
    assert "logging" not in document


def test_the_box_lighthouse_has_no_tunnel_device_and_answers_pings() -> None:
    document: Any = config.lighthouse_config(
        cluster=sample_cluster(), topology=topology_of(LIGHTHOUSE, RELAY), blocklist=["bb", "aa"]
    )
    assert document["tun"] == {"disabled": True}
    assert document["firewall"]["inbound"] == [ICMP]
    assert document["lighthouse"] == {"am_lighthouse": True, "interval": 10, "hosts": []}
    assert document["static_host_map"] == {"10.42.0.2": ["198.51.100.2:4242", "198.51.100.3:4242"]}
    assert document["relay"] == {"am_relay": True, "use_relays": True, "relays": []}
    assert document["pki"]["blocklist"] == ["aa", "bb"]


def test_the_box_lighthouse_that_is_no_relay_uses_those_of_others() -> None:
    hidden = TopologyLighthouse(
        node_id=None,
        name="box",
        overlay_ip="10.42.0.1",
        public_addresses=("203.0.113.9:4242",),
        is_relay=False,
    )
    document: Any = config.lighthouse_config(
        cluster=sample_cluster(provide_relay=False), topology=topology_of(RELAY, box=hidden), blocklist=()
    )
    assert document["relay"] == {"am_relay": False, "use_relays": True, "relays": ["10.42.0.3"]}


def test_rendering_depends_on_no_order_but_the_policy() -> None:
    near, far = sample_node(6, routes=("192.168.6.0/24",)), sample_node(7, routes=("192.168.7.0/24",))
    one = rendered(sample_node(), LIGHTHOUSE, near, far, blocklist=["aa", "bb"])
    two = rendered(sample_node(), far, near, LIGHTHOUSE, blocklist=["bb", "aa"])
    assert config.dump(one) == config.dump(two)


def test_the_text_reads_back_as_the_document() -> None:
    document = rendered(
        sample_node(routes=("192.168.5.0/24",)), LIGHTHOUSE, RELAY, sample_node(9, routes=("10.9.0.0/16",))
    )
    assert yaml.safe_load(config.dump(document)) == document
