"""Every configuration that we render passes ``nebula -test``: with nebula as installed, and with every other one given."""

from __future__ import annotations

import subprocess
import time
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgegc.control import policy_rules
from edgegc.model import message
from edgegc.model.message import NodeRoutes, Topology, TopologyLighthouse
from edgegc.model.policy import ANY_TO_ANY, Policy, Rule
from edgegc.nebula import certificate as certificates
from edgegc.nebula import config, keys
from tests.fakes import CLUSTER_ID, sample_cluster, sample_node

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOUR_S = 3600
BOX = TopologyLighthouse(
    node_id=None, name="box", overlay_ip="10.42.0.1", public_addresses=("203.0.113.9:4242",), is_relay=True
)
LIGHTHOUSE = sample_node(2, is_lighthouse=True, is_relay=True, public_addresses=("198.51.100.2:4242",))
ROUTER = sample_node(3, routes=("192.168.3.0/24", "10.9.0.0/16"))
MEMBER = sample_node(4, groups=("web", "1e3"), mtu=1280)
NODES = {"lighthouse": LIGHTHOUSE, "router": ROUTER, "member": MEMBER}

BUSY = Policy(
    inbound=(
        Rule(port="22", proto="tcp", groups=("ops", "1e3")),
        Rule(port="80-90", proto="tcp", cidr="10.42.9.0/24", on_groups=("web",)),
        Rule(port="fragment", proto="any", host="any"),
        Rule(port="any", proto="icmp", host="pi-9"),
        Rule(port="53", proto="udp", groups=("0x1F", "yes", "12:30")),
    ),
    outbound=(Rule(port="any", proto="any", cidr="0.0.0.0/0"),),
)
POLICIES = {"any to any": ANY_TO_ANY, "nothing": Policy(inbound=(), outbound=()), "busy": BUSY}


def landmark(number: int, public: tuple[str, ...]) -> TopologyLighthouse:
    node = sample_node(number)
    return TopologyLighthouse(
        node_id=node.id,
        name=node.name,
        overlay_ip=f"10.42.0.{number}",
        public_addresses=public,
        is_relay=True,
    )


TOPOLOGY = Topology(
    cluster_id=CLUSTER_ID,
    version=1,
    lighthouses=(BOX, landmark(2, LIGHTHOUSE.public_addresses)),
    relays=(BOX, landmark(2, LIGHTHOUSE.public_addresses)),
    routes=(NodeRoutes(node_id=ROUTER.id, name=ROUTER.name, routes=ROUTER.routes),),
)
_PORTS = st.integers(1, 65_535).map(str)
_RANGES = st.tuples(st.integers(1, 65_000), st.integers(0, 500)).map(lambda at: f"{at[0]}-{at[0] + at[1]}")
_SIDES = st.one_of(
    st.lists(
        st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,20}[A-Za-z0-9])?", fullmatch=True),
        min_size=1,
        max_size=3,
        unique=True,
    ).map(lambda groups: {"groups": [group for group in groups if group != "any"] or ["web"]}),
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True).map(
        lambda name: {"host": name}
    ),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
        lambda at: {"cidr": str(IPv4Network(at, strict=False))}
    ),
)
TAKEN_RULES = st.one_of(
    st.builds(
        lambda port, proto, side: {"port": port, "proto": proto, **side},
        st.one_of(_PORTS, _RANGES, st.sampled_from(["any", "fragment"])),
        st.sampled_from(["any", "tcp", "udp"]),
        _SIDES,
    ),
    _SIDES.map(lambda side: {"port": "any", "proto": "icmp", **side}),
)
"""Rules as the API takes them, of every form."""
ALONE = Topology(cluster_id=CLUSTER_ID, version=1, lighthouses=(), relays=(), routes=())
BLOCKLIST = ["ab" * 32, "12345e" + "6" * 58]


def refusal(
    nebula: Path, directory: Path, document: Mapping[str, Any], *, port: int, groups: tuple[str, ...] = ()
) -> str:
    """Run ``nebula -test`` on a document as a machine would complete it; return what it says when it refuses."""
    authority_key, host_key = keys.generate_ed25519(), keys.generate_x25519()
    now = int(time.time())
    authority = certificates.self_sign(
        name="home", key=authority_key, not_before=now - HOUR_S, not_after=now + HOUR_S
    )
    host = certificates.sign(
        ca=authority,
        ca_private=authority_key.private,
        name="host",
        overlay=IPv4Interface("10.42.0.4/16"),
        subnets=(),
        groups=groups,
        not_before=now - HOUR_S,
        not_after=now + HOUR_S,
        public_key=host_key.public,
    )
    (directory / "ca.crt").write_text(authority.pem())
    (directory / "host.crt").write_text(host.pem())
    (directory / "host.key").write_text(keys.pem_x25519_private(host_key.private))
    paths = {
        "ca": str(directory / "ca.crt"),
        "cert": str(directory / "host.crt"),
        "key": str(directory / "host.key"),
    }
    complete = {
        **document,
        "pki": {**document["pki"], **paths},
        "listen": {**document["listen"], "port": port},
    }
    path = directory / "nebula.yml"
    path.write_bytes(config.dump(complete))
    done = subprocess.run(
        [str(nebula), "-test", "-config", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_nebula_accepts_the_configuration_of_a_node(
    nebula: Path, tmp_path: Path, node: Any, policy: Policy
) -> None:
    document = config.node_config(
        node=node,
        topology=TOPOLOGY,
        gateways={ROUTER.id: "10.42.0.3"},
        policy=policy,
        blocklist=BLOCKLIST,
    )
    assert refusal(nebula, tmp_path, document, port=4242, groups=node.groups) == ""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.lists(TAKEN_RULES, min_size=1, max_size=8))
def test_nebula_accepts_every_rule_that_we_take(nebula: Path, tmp_path: Path, rules: Any) -> None:
    asked = msgspec.convert({"inbound": rules, "outbound": rules}, message.Policy)
    document = config.node_config(
        node=MEMBER, topology=ALONE, gateways={}, policy=policy_rules.read(asked), blocklist=()
    )
    assert refusal(nebula, tmp_path, document, port=0) == ""


def test_nebula_accepts_the_first_node_of_a_cluster_without_lighthouse(nebula: Path, tmp_path: Path) -> None:
    document = config.node_config(node=MEMBER, topology=ALONE, gateways={}, policy=ANY_TO_ANY, blocklist=())
    assert refusal(nebula, tmp_path, document, port=0) == ""


@pytest.mark.parametrize("topology", [TOPOLOGY, ALONE], ids=["busy", "alone"])
def test_nebula_accepts_the_configuration_of_the_box_lighthouse(
    nebula: Path, tmp_path: Path, topology: Topology
) -> None:
    document = config.lighthouse_config(cluster=sample_cluster(), topology=topology, blocklist=BLOCKLIST)
    assert refusal(nebula, tmp_path, document, port=4242) == ""


def test_nebula_refuses_a_lighthouse_host_without_address(nebula: Path, tmp_path: Path) -> None:
    """The twin of the tests above: this is how a refusal looks."""
    document: dict[str, Any] = config.node_config(
        node=MEMBER, topology=TOPOLOGY, gateways={ROUTER.id: "10.42.0.3"}, policy=ANY_TO_ANY, blocklist=()
    )
    document["static_host_map"] = {}
    assert "static_host_map" in refusal(nebula, tmp_path, document, port=0)
