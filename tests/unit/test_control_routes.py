"""Routes: what a node may announce, and each reason for which it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgegc.control import clusters, nodes, topology
from edgegc.errors import Conflict, Forbidden, Invalid
from edgegc.model import message
from edgegc.model.manifest import Server
from tests.control_plane import OPERATOR, Plane, control_plane

if TYPE_CHECKING:
    from edgegc.model.credential import Caller


async def member(plane: Plane, name: str = "a", **changes: object) -> Caller:
    return await plane.caller((await plane.add_node(name, **changes)).node_token)


async def announce(plane: Plane, caller: Caller, *cidrs: str) -> tuple[str, ...]:
    return (await topology.set_own_routes(plane.control, caller, message.Routes(routes=cidrs))).routes


async def test_routes_are_answered_and_kept_in_order_of_address() -> None:
    async with control_plane() as plane:
        caller = await member(plane)
        wanted = ("172.16.0.0/12", "10.9.0.0/16", "10.20.0.0/16")
        assert await announce(plane, caller, *wanted) == ("10.9.0.0/16", "10.20.0.0/16", "172.16.0.0/12")
        own = await topology.own_routes(plane.control, caller)
        assert own.routes == ("10.9.0.0/16", "10.20.0.0/16", "172.16.0.0/12")


@pytest.mark.parametrize(
    ("cidr", "sentence"),
    [
        ("rubbish", "'rubbish' is not an IPv4 network"),
        ("10.20.0.0", "is not an IPv4 network in CIDR form"),
        ("10.20.0.1/16", "did you mean '10.20.0.0/16'"),
        ("10.20.0.0/33", "is not an IPv4 network"),
        ("10.20.0.0/255.255.0.0", "is not an IPv4 network in CIDR form"),
        ("2001:db8::/32", "is not an IPv4 network"),
        ("0.0.0.0/0", "a default route can't be announced"),
        ("0.0.0.0/1", "overlaps"),
        ("10.42.3.0/24", "overlaps the cluster's own network 10.42.0.0/16"),
        ("10.0.0.0/8", "overlaps the cluster's own network 10.42.0.0/16"),
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("203.0.113.0/24", "contains 203.0.113.9, the public address of the box's own lighthouse"),
        ("198.51.100.0/24", "contains 198.51.100.7, the public address of the lighthouse or relay 'lh'"),
        ("192.0.2.0/24", "contains 192.0.2.1, the public address of the server https://192.0.2.1:8443"),
    ],
)
async def test_a_route_that_can_not_be_is_refused_by_name(cidr: str, sentence: str) -> None:
    cluster = {"provide_lighthouse": True, "lighthouse_public_addresses": ("203.0.113.9:4242",)}
    servers = (Server(url="https://192.0.2.1:8443", pin=None), Server(url="https://box.example", pin=None))
    async with control_plane(cluster=cluster, servers=servers) as plane:
        lighthouse = await plane.add_node("lh")
        wanted = message.LighthouseSet(public_addresses=("198.51.100.7:4242",))
        await nodes.set_lighthouse(plane.control, OPERATOR, lighthouse.id, wanted)
        node = await plane.add_node("a")
        for call in (
            topology.set_own_routes(
                plane.control, await plane.caller(node.node_token), message.Routes(routes=(cidr,))
            ),
            nodes.set_routes(plane.control, OPERATOR, node.id, message.Routes(routes=(cidr,))),
        ):
            with pytest.raises(Invalid, match=r"^routes: ") as caught:
                await call
            assert sentence in caught.value.message


async def test_a_route_listed_twice_is_refused() -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match="twice"):
            await announce(plane, await member(plane), "10.9.0.0/16", "10.9.0.0/16")


async def test_a_member_stays_inside_the_allowed_routes_and_an_admin_need_not() -> None:
    async with control_plane(cluster={"allowed_routes": ("172.16.0.0/12",)}) as plane:
        plain = await member(plane, "a")
        admin = await member(plane, "b", role="admin")
        await announce(plane, plain, "172.20.0.0/16")
        with pytest.raises(Forbidden, match=r"^routes: 192\.168\.0\.0/24 is not inside .*172\.16\.0\.0/12"):
            await announce(plane, plain, "192.168.0.0/24")
        await announce(plane, admin, "192.168.0.0/24")
        other = await plane.add_node("c")
        await nodes.set_routes(plane.control, OPERATOR, other.id, message.Routes(routes=("192.168.1.0/24",)))


async def test_without_allowed_routes_only_admins_announce() -> None:
    async with control_plane(cluster={"allowed_routes": ()}) as plane:
        with pytest.raises(Forbidden, match="only admins"):
            await announce(plane, await member(plane), "172.20.0.0/16")


async def test_an_exact_duplicate_is_a_conflict_and_a_nested_route_is_not() -> None:
    async with control_plane() as plane:
        first, second = await member(plane, "a"), await member(plane, "b")
        await announce(plane, first, "172.20.0.0/16")
        with pytest.raises(Conflict, match=r"172\.20\.0\.0/16 is announced by the node 'a' already"):
            await announce(plane, second, "172.20.0.0/16")
        await announce(plane, second, "172.20.1.0/24")
        await announce(plane, first, "172.20.0.0/16")


async def test_a_public_address_inside_an_announced_route_is_a_conflict() -> None:
    async with control_plane(cluster={"allowed_routes": ("192.0.0.0/8",)}) as plane:
        await announce(plane, await member(plane), "192.0.2.0/24")
        other = await plane.add_node("b")
        with pytest.raises(
            Conflict, match=r"192\.0\.2\.9 is inside the route 192\.0\.2\.0/24 of the node 'a'"
        ):
            await nodes.set_lighthouse(
                plane.control,
                OPERATOR,
                other.id,
                message.LighthouseSet(public_addresses=("192.0.2.9:4242",)),
            )
        with pytest.raises(Conflict, match=r"^lighthouse_public_addresses: "):
            await clusters.update(
                plane.control,
                OPERATOR,
                plane.cluster_id,
                message.ClusterUpdate(lighthouse_public_addresses=("192.0.2.9:4242",)),
            )


async def test_the_topology_shows_lighthouses_relays_and_routes_with_their_names() -> None:
    cluster = {"provide_lighthouse": True, "lighthouse_public_addresses": ("203.0.113.9:4242",)}
    async with control_plane(cluster=cluster) as plane:
        node = await plane.add_node("a", role="admin")
        caller = await plane.caller(node.node_token)
        await nodes.set_relay(plane.control, caller, node.id)
        await announce(plane, caller, "172.20.0.0/16")
        seen = await topology.cluster_topology(plane.control, caller, None)
        assert [(each.node_id, each.overlay_ip, each.is_relay) for each in seen.lighthouses] == [
            (None, "10.42.0.1/16", True)
        ]
        assert [each.node_id for each in seen.relays] == [None, node.id]
        assert seen.routes == (message.NodeRoutes(node_id=node.id, name="a", routes=("172.20.0.0/16",)),)
        assert (await topology.cluster_routes(plane.control, caller, None)).routes == seen.routes
        again = await topology.topology_document(plane.control, caller, None)
        assert (await topology.topology_document(plane.control, caller, None)) is again
        await plane.patch(node.id, name="renamed")
        renamed = await topology.topology_document(plane.control, caller, None)
        assert renamed.topology.version == again.topology.version
        assert renamed.etag != again.etag
        assert renamed.topology.routes[0].name == "renamed"
