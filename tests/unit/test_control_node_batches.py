"""Batches of nodes: all or none, one version, each failing item named by index and field."""

from __future__ import annotations

from typing import Any

import pytest

from edgegc.control import node_batches, nodes
from edgegc.errors import Conflict, Error, Invalid, NotFound
from edgegc.model import message
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key


async def made(plane: Plane, *items: dict[str, Any]) -> tuple[message.NodeView, ...]:
    batch = message.NodeBatch(nodes=tuple(message.NodeCreate(**item) for item in items))
    return (await node_batches.create(plane.control, OPERATOR, plane.cluster_id, batch)).nodes


async def test_a_batch_answers_its_nodes_in_order_each_with_a_token_that_works() -> None:
    async with control_plane() as plane:
        found = await made(plane, *({"name": f"pi-{n}", "public_key": new_public_key()} for n in range(5)))
        assert [node.name for node in found] == [f"pi-{n}" for n in range(5)]
        assert [node.overlay_ip for node in found] == [f"10.42.0.{n + 2}/16" for n in range(5)]
        callers = [await plane.caller(node.node_token) for node in found]
        assert [caller.node_id for caller in callers] == [node.id for node in found]
        listed = await nodes.list_(plane.control, OPERATOR, plane.cluster_id, message.NodeQuery())
        assert listed.total == 5


async def test_a_batch_takes_one_version_that_moves_no_other_node() -> None:
    async with control_plane() as plane:
        old = await plane.add_node("old")
        before = plane.effective(old.id)
        found = await made(plane, *({"name": f"pi-{n}", "public_key": new_public_key()} for n in range(5)))
        assert {node.version for node in found} == {old.version + 1}
        assert plane.effective(old.id) == before
        assert all(node.certificate is not None for node in found)


async def test_nodes_of_a_batch_without_keys_move_nobodys_version() -> None:
    async with control_plane() as plane:
        found = await made(plane, {"name": "a"}, {"name": "b", "public_key": new_public_key()}, {"name": "c"})
        assert [node.version for node in found] == [0, 2, 0]


async def test_a_thousand_nodes_are_one_batch() -> None:
    async with control_plane() as plane:
        found = await made(plane, *({"name": f"pi-{n}"} for n in range(1000)))
        assert len({node.overlay_ip for node in found}) == 1000


@pytest.mark.parametrize(
    ("items", "kind", "sentence"),
    [
        (
            [{"name": "a"}, {"name": "old"}],
            Conflict,
            r"^nodes\[1\]\.name: a node named 'old' already exists; no",
        ),
        (
            [{"name": "a"}, {"name": "a"}],
            Conflict,
            r"^nodes\[1\]\.name: 'a' is the name of nodes\[0\] too; no",
        ),
        (
            [{"name": "a", "overlay_ip": "10.42.0.2"}],
            Conflict,
            r"^nodes\[0\]\.overlay_ip: 10\.42\.0\.2 is the address of the node 'old'",
        ),
        (
            [{"name": "a", "overlay_ip": "10.9.0.1"}],
            Invalid,
            r"^nodes\[0\]\.overlay_ip: 10\.9\.0\.1 is not inside",
        ),
        (
            [{"name": "a", "overlay_ip": "10.42.0.9"}, {"name": "b", "overlay_ip": "10.42.0.9"}],
            Conflict,
            r"^nodes\[1\]\.overlay_ip: 10\.42\.0\.9 is the address of the node 'a'",
        ),
        ([{"name": "a", "groups": ("x", "x")}], Invalid, r"^nodes\[0\]\.groups: 'x' is there twice"),
        ([{"name": "a"}, {"name": "b", "public_key": "no"}], Invalid, r"^nodes\[1\]\.public_key: "),
        (
            [{"name": "old"}, {"name": "b"}, {"name": "c", "overlay_ip": "10.42.0.1"}],
            Invalid,
            r"^nodes\[0\]\.name: .*; nodes\[2\]\.overlay_ip: .*; no node was made$",
        ),
    ],
)
async def test_one_wrong_item_makes_no_node_and_is_named(
    items: list[dict[str, Any]], kind: type[Error], sentence: str
) -> None:
    async with control_plane() as plane:
        await plane.add_node("old")
        with pytest.raises(kind, match=sentence):
            await made(plane, *items)
        left = await nodes.list_(plane.control, OPERATOR, plane.cluster_id, message.NodeQuery())
        assert [node.name for node in left.nodes] == ["old"]
        assert (await plane.add_node("next")).overlay_ip == "10.42.0.3/16"


async def test_a_batch_that_does_not_fit_names_the_first_that_finds_no_address() -> None:
    async with control_plane(cluster={"network_cidr": "10.42.0.0/29"}) as plane:
        with pytest.raises(
            Conflict, match=r"^nodes\[5\]\.overlay_ip: no free address in 10\.42\.0\.0/29; no "
        ):
            await made(plane, *({"name": f"pi-{n}"} for n in range(6)))
        assert len(await made(plane, *({"name": f"pi-{n}"} for n in range(5)))) == 5


async def test_a_batch_finds_the_last_gaps_between_addresses() -> None:
    async with control_plane(cluster={"network_cidr": "10.42.0.0/28"}) as plane:
        there = await made(plane, *({"name": f"old-{n}"} for n in range(13)))
        for gap in (1, 2, 7, 12):
            await nodes.delete(plane.control, OPERATOR, there[gap].id)
        found = await made(plane, *({"name": f"new-{n}"} for n in range(3)))
        assert [node.overlay_ip for node in found] == ["10.42.0.3/28", "10.42.0.4/28", "10.42.0.9/28"]
        assert (await plane.add_node("last")).overlay_ip == "10.42.0.14/28"


async def test_an_address_that_an_item_asks_for_is_given_to_no_other_item() -> None:
    async with control_plane() as plane:
        found = await made(plane, {"name": "any"}, {"name": "wants", "overlay_ip": "10.42.0.2"})
        assert [node.overlay_ip for node in found] == ["10.42.0.3/16", "10.42.0.2/16"]


async def test_a_long_list_of_failures_is_cut() -> None:
    async with control_plane() as plane:
        for n in range(30):
            await plane.add_node(f"pi-{n}", keyed=False)
        with pytest.raises(Conflict) as refused:
            await made(plane, *({"name": f"pi-{n}"} for n in range(30)))
        assert refused.value.message.count("nodes[") == node_batches.MAX_NAMED
        assert "; there may be more; no node was made" in refused.value.message


async def test_only_admins_of_the_cluster_may_make_batches() -> None:
    async with control_plane() as plane:
        member = await plane.caller((await plane.add_node("m")).node_token)
        other = await plane.add_cluster("other")
        batch = message.NodeBatch(nodes=(message.NodeCreate(name="a"),))
        with pytest.raises(Error, match="role is admin"):
            await node_batches.create(plane.control, member, None, batch)
        with pytest.raises(NotFound):
            await node_batches.create(plane.control, member, other.id, batch)


async def test_nodes_of_an_uploaded_cluster_have_no_address_and_are_told_its_signers() -> None:
    async with control_plane(cluster={"mode": "uploaded"}) as plane:
        found = await made(plane, {"name": "a"}, {"name": "b"})
        single = await plane.add_node("c", keyed=False)
        assert {(node.overlay_ip, node.certificate, node.version) for node in (*found, single)} == {
            (None, None, 0)
        }
        assert len({node.signers for node in (*found, single)}) == 1
        assert isinstance(single.signers, tuple)
