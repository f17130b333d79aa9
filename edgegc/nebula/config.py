"""Renders a node's or lighthouse's ``config.yml`` from the model: a pure function. Knows no paths and no devices.

What depends on the machine is left to whoever runs nebula there, and wins over what is here: ``pki.ca``, ``pki.cert``,
``pki.key``, ``tun.dev``, ``listen.port`` and ``logging``. Each choice that is not nebula's default has its reason below.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

from edgegc.nebula.plain_yaml import dump

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgegc.model.cluster import Cluster
    from edgegc.model.message import Topology, TopologyLighthouse
    from edgegc.model.node import Node
    from edgegc.model.policy import Policy, Rule

__all__ = [
    "LIGHTHOUSE_INTERVAL_S",
    "RENDERER_REVISION",
    "dump",
    "lighthouse_config",
    "node_config",
    "policy_rules",
]

RENDERER_REVISION = 1
"""Raise it with every change that makes another text from the same rows: a start with a new one bumps every cluster."""

LIGHTHOUSE_INTERVAL_S = 10
"""How often a node tells lighthouses where it is. After a lighthouse's SIGTERM nodes are back within this time; with
nebula's older default of 60 it takes minutes after a SIGKILL. It never changes: up to 1.7 a change by SIGHUP kills
the handling of SIGHUP for good."""

_ANY_ICMP: dict[str, object] = {"port": "any", "proto": "icmp", "host": "any"}


class PolicyRules(NamedTuple):
    """The rules of a policy that one node gets, as nebula reads them."""

    inbound: list[dict[str, object]]
    outbound: list[dict[str, object]]


def node_config(
    *,
    node: Node,
    topology: Topology,
    gateways: Mapping[str, str],
    policy: Policy,
    blocklist: Iterable[str],
) -> dict[str, object]:
    """Return a node's configuration.

    ``topology`` is that of the node's cluster. ``gateways`` maps the id of every node that has routes to its overlay
    address. ``blocklist`` are fingerprints in any order.
    """
    hosts = () if node.is_lighthouse else _reachable(topology.lighthouses)
    relays = () if node.is_relay else _others(topology.relays, node.id)
    # A node proves that a version works by pinging a lighthouse over the overlay, whatever the operator's policy says.
    inbound = [_ANY_ICMP] if node.is_lighthouse else []
    outbound = [_ANY_ICMP]
    by_policy = policy_rules(policy, node.groups)
    return {
        "pki": _pki(blocklist),
        "static_host_map": _static_host_map(topology, node.id),
        "lighthouse": {
            "am_lighthouse": node.is_lighthouse,
            "interval": LIGHTHOUSE_INTERVAL_S,
            "hosts": _addresses(hosts),
        },
        "listen": _listen(),
        "punchy": _punchy(),
        "relay": {"am_relay": node.is_relay, "use_relays": True, "relays": _addresses(relays)},
        "tun": {
            "disabled": False,
            "mtu": node.mtu,
            "unsafe_routes": _unsafe_routes(topology, gateways, node.id),
        },
        "firewall": _firewall(inbound=inbound + by_policy.inbound, outbound=outbound + by_policy.outbound),
    }


def policy_rules(policy: Policy, groups: Iterable[str]) -> PolicyRules:
    """Return what a policy gives to a node with these groups."""
    has = frozenset(groups)
    return PolicyRules(
        [_rule(rule) for rule in policy.inbound if _concerns(rule, has)],
        [_rule(rule) for rule in policy.outbound if _concerns(rule, has)],
    )


def lighthouse_config(*, cluster: Cluster, topology: Topology, blocklist: Iterable[str]) -> dict[str, object]:
    """Return the configuration of the box's own lighthouse of a cluster; its port is added by whoever runs it.

    It has no tunnel device, so that it needs no privileges; such a nebula still answers pings on its overlay address.
    The policy does not concern it: there is nothing behind it.
    """
    relays = () if cluster.provide_relay else _others(topology.relays, None)
    return {
        "pki": _pki(blocklist),
        "static_host_map": _static_host_map(topology, None),
        "lighthouse": {"am_lighthouse": True, "interval": LIGHTHOUSE_INTERVAL_S, "hosts": []},
        "listen": _listen(),
        "punchy": _punchy(),
        "relay": {"am_relay": cluster.provide_relay, "use_relays": True, "relays": _addresses(relays)},
        "tun": {"disabled": True},
        "firewall": _firewall(inbound=[_ANY_ICMP], outbound=[_ANY_ICMP]),
    }


def _pki(blocklist: Iterable[str]) -> dict[str, object]:
    return {
        "blocklist": sorted(set(blocklist)),
        # Without it an old nebula keeps the open tunnel of a peer that was blocklisted or has expired.
        "disconnect_invalid": True,
    }


def _listen() -> dict[str, object]:
    # send_recv_error answers the liveness probe, and tells a peer at once that a restarted nebula has lost its tunnel.
    return {"host": "0.0.0.0", "send_recv_error": "always"}


def _punchy() -> dict[str, object]:
    # Both ends of a tunnel are usually behind NAT: keep mappings open, and punch back when asked through a lighthouse.
    return {"punch": True, "respond": True}


def _firewall(*, inbound: Sequence[object], outbound: Sequence[object]) -> dict[str, object]:
    return {
        # nebula 1.10 changed the default to false: rules would stop covering the subnets behind a node.
        "default_local_cidr_any": True,
        "inbound": list(inbound),
        "outbound": list(outbound),
    }


def _rule(rule: Rule) -> dict[str, object]:
    rendered: dict[str, object] = {"port": rule.port, "proto": rule.proto}
    if rule.groups:
        rendered["groups"] = list(rule.groups)
    elif rule.cidr is not None:
        rendered["cidr"] = rule.cidr
    else:
        rendered["host"] = rule.host
    return rendered


def _concerns(rule: Rule, groups: frozenset[str]) -> bool:
    return not rule.on_groups or not groups.isdisjoint(rule.on_groups)


def _static_host_map(topology: Topology, node_id: str | None) -> dict[str, object]:
    """Map whoever has public addresses to them: lighthouses, and relays too, which saves asking where they are."""
    known: dict[str, dict[str, None]] = {}
    for each in (*topology.lighthouses, *topology.relays):
        if each.public_addresses and each.node_id != node_id:
            known.setdefault(_address(each.overlay_ip), {}).update(dict.fromkeys(each.public_addresses))
    return {address: list(known[address]) for address in sorted(known, key=_number)}


def _reachable(lighthouses: Iterable[TopologyLighthouse]) -> tuple[TopologyLighthouse, ...]:
    """Leave out what has no public address: nebula refuses a lighthouse host without a static_host_map entry."""
    return tuple(each for each in lighthouses if each.public_addresses)


def _others(relays: Iterable[TopologyLighthouse], node_id: str | None) -> tuple[TopologyLighthouse, ...]:
    return tuple(each for each in relays if each.node_id != node_id)


def _addresses(of: Iterable[TopologyLighthouse]) -> list[str]:
    return sorted({_address(each.overlay_ip) for each in of}, key=_number)


def _unsafe_routes(topology: Topology, gateways: Mapping[str, str], node_id: str) -> list[dict[str, object]]:
    """Everything behind the other nodes; sorted by route, so that one change is one changed line."""
    routes = [
        {"route": route, "via": _address(gateways[each.node_id])}
        for each in topology.routes
        if each.node_id != node_id
        for route in each.routes
    ]
    return [dict(route) for route in sorted(routes, key=_route_order)]


def _route_order(route: Mapping[str, str]) -> tuple[int, int]:
    network, _, length = route["route"].partition("/")
    return _number(network), int(length or 32)


def _address(text: str) -> str:
    """Take an address bare or in CIDR form: the model has one, the API shows the other."""
    return text.partition("/")[0]


def _number(address: str) -> int:
    """Return what addresses are ordered by. They come from the model, in their only form; IPv4Address takes ten times as
    long to look, and every bundle of a cluster orders all of its addresses.
    """
    return int.from_bytes(socket.inet_aton(address))
