"""Nodes: made, changed and deleted, each with the errors that the API promises."""

from __future__ import annotations

import pytest

from edgegc.control import nodes
from edgegc.errors import Conflict, Invalid, NotFound
from edgegc.model import message
from tests.control_plane import OPERATOR, control_plane


async def test_the_first_node_gets_the_second_host_address_and_a_certificate() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1", groups=("web",))
    assert node.overlay_ip == "10.42.0.2/16"
    assert node.certificate is not None
    assert node.groups == ("web",)
    assert isinstance(node.node_token, str)
    assert node.node_token.startswith("egn_")


async def test_a_node_without_a_key_has_no_certificate_and_version_0() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1", keyed=False)
    assert node.certificate is None
    assert node.version == 0


async def test_a_taken_name_is_a_conflict() -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-7")
        with pytest.raises(Conflict, match=r"^a node named 'pi-7' already exists$"):
            await plane.add_node("pi-7")


async def test_another_cluster_may_use_the_same_name_and_address() -> None:
    async with control_plane() as plane:
        first = await plane.add_node("pi-7")
        other = await plane.add_cluster("other")
        second = await plane.add_node("pi-7", cluster_id=other.id)
    assert first.overlay_ip == second.overlay_ip


async def test_a_full_network_is_a_conflict_that_names_it() -> None:
    async with control_plane(cluster={"network_cidr": "10.42.0.0/29"}) as plane:
        for number in range(5):
            await plane.add_node(f"pi-{number}")
        with pytest.raises(Conflict, match=r"^no free address in 10\.42\.0\.0/29$"):
            await plane.add_node("pi-6")


async def test_a_freed_address_is_given_out_only_after_all_others() -> None:
    async with control_plane(cluster={"network_cidr": "10.42.0.0/29"}) as plane:
        first = await plane.add_node("a")
        await nodes.delete(plane.control, OPERATOR, first.id)
        given = [(await plane.add_node(name)).overlay_ip for name in "bcdef"]
    assert given == [f"10.42.0.{last}/29" for last in (3, 4, 5, 6, 2)]


async def test_an_address_that_was_asked_for_is_skipped_by_the_others() -> None:
    async with control_plane() as plane:
        await plane.add_node("a", overlay_ip="10.42.0.3")
        given = [(await plane.add_node(name)).overlay_ip for name in "bc"]
    assert given == ["10.42.0.2/16", "10.42.0.4/16"]


async def test_an_address_that_a_node_just_left_is_kept_until_its_certificate_is_blocklisted() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        await plane.patch(node.id, overlay_ip="10.42.7.7")
        with pytest.raises(Conflict, match="about to be revoked"):
            await plane.add_node("b", overlay_ip="10.42.0.2")
        back = await plane.patch(node.id, overlay_ip="10.42.0.2")
    assert back.overlay_ip == "10.42.0.2/16"


@pytest.mark.parametrize(
    ("overlay_ip", "sentence"),
    [
        ("10.43.0.5", "not inside"),
        ("10.42.0.1", "reserved for the box's own lighthouse"),
        ("10.42.0.0", "not a host address"),
        ("10.42.255.255", "not a host address"),
        ("10.42.0.300", "not an IPv4 address"),
        ("10.42.0.5/24", "prefix length"),
        ("fe80::1", "not an IPv4 address"),
    ],
)
async def test_an_address_that_no_node_can_have_is_refused_by_name(overlay_ip: str, sentence: str) -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match=rf"^overlay_ip: .*{sentence}"):
            await plane.add_node("a", overlay_ip=overlay_ip)


async def test_a_public_key_that_is_none_is_refused_by_name() -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match=r"^public_key: "):
            await plane.add_node("a", public_key="rubbish")


async def test_a_deleted_node_is_not_found() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        await nodes.delete(plane.control, OPERATOR, node.id)
        with pytest.raises(NotFound):
            await plane.node(node.id)
        with pytest.raises(NotFound):
            await nodes.delete(plane.control, OPERATOR, node.id)


async def test_a_lighthouse_gets_the_port_of_its_first_address_and_follows_it() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        wanted = message.LighthouseSet(public_addresses=("203.0.113.9:4300", "[2001:db8::1]:4300"))
        set_ = await nodes.set_lighthouse(plane.control, OPERATOR, node.id, wanted)
        assert (set_.is_lighthouse, set_.listen_port) == (True, 4300)
        moved = await nodes.set_lighthouse(
            plane.control, OPERATOR, node.id, message.LighthouseSet(public_addresses=("203.0.113.9:4400",))
        )
        assert moved.listen_port == 4400
        unset = await nodes.unset_lighthouse(plane.control, OPERATOR, node.id)
    assert (unset.is_lighthouse, unset.public_addresses, unset.listen_port) == (False, (), 4400)


@pytest.mark.parametrize(
    "address",
    [
        "203.0.113.9",
        "example.com:4242",
        "203.0.113.9:0",
        "203.0.113.9:70000",
        "10.42.3.4:4242",
        "0.0.0.0:1",
        "[fe80::1%eth0]:4242",
    ],
)
async def test_a_public_address_that_is_none_is_refused_by_name(address: str) -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        wanted = message.LighthouseSet(public_addresses=(address,))
        with pytest.raises(Invalid, match=r"^public_addresses: "):
            await nodes.set_lighthouse(plane.control, OPERATOR, node.id, wanted)


async def test_the_number_of_nodes_follows_creation_and_deletion() -> None:
    async with control_plane() as plane:
        first = await plane.add_node("a")
        await plane.add_node("b")
        await nodes.delete(plane.control, OPERATOR, first.id)
        page = await nodes.list_(plane.control, OPERATOR, plane.cluster_id, message.NodeQuery())
    assert page.total == 1
    assert [node.name for node in page.nodes] == ["b"]
