"""Many callers at once, over the real threads and a database on disk: what must hold whatever the order."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from edgegc.control import bundles, enrolment, nodes, polls
from edgegc.errors import Conflict, NotFound, Unauthorized
from edgegc.model import message
from edgegc.store.database import open_database
from tests.control_plane import OPERATOR, Plane, new_public_key, open_plane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SAFETY_LIMIT_S = 60


@asynccontextmanager
async def threaded_plane(directory: Path, **cluster: object) -> AsyncIterator[Plane]:
    with trio.fail_after(SAFETY_LIMIT_S):
        async with open_database(directory / "edgegc.db") as database:
            plane = await open_plane(database)
            plane.cluster_id = (await plane.add_cluster(**cluster)).id
            yield plane


async def test_a_key_with_n_uses_makes_exactly_n_nodes(tmp_path: Path) -> None:
    """KEY_USES, under concurrency."""
    uses, askers = 17, 60
    async with threaded_plane(tmp_path) as plane:
        caller = await plane.key(uses=uses)
        made: list[str] = []
        refused: list[str] = []

        async def enroll(number: int) -> None:
            request = message.Enroll(name=f"n{number}", public_key=new_public_key())
            try:
                made.append((await enrolment.enroll(plane.control, caller, request)).node_id)
            except Unauthorized as error:
                refused.append(error.message)

        async with trio.open_nursery() as nursery:
            for number in range(askers):
                nursery.start_soon(enroll, number)
        page = await nodes.list_(plane.control, OPERATOR, plane.cluster_id, message.NodeQuery())
        assert len(set(made)) == page.total == uses
        assert len(refused) == askers - uses


async def test_the_same_enrolment_many_times_at_once_makes_one_node(tmp_path: Path) -> None:
    async with threaded_plane(tmp_path) as plane:
        caller = await plane.key()
        request = message.Enroll(name="a", public_key=new_public_key())
        answers: list[message.Enrolled] = []

        async def enroll() -> None:
            answers.append(await enrolment.enroll(plane.control, caller, request))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(enroll)
        assert len({answer.node_id for answer in answers}) == 1
        assert len({answer.node_token for answer in answers}) == 20
        valid = 0
        for answer in answers:
            try:
                await plane.caller(answer.node_token)
            except Unauthorized:
                continue
            valid += 1
        assert valid == 1


async def test_no_two_nodes_ever_share_an_address_and_a_full_network_says_so(tmp_path: Path) -> None:
    """ADDRESS_UNIQUE, under concurrency."""
    async with threaded_plane(tmp_path, network_cidr="10.42.0.0/26") as plane:
        made: list[message.NodeView] = []
        full = 0

        async def add(number: int) -> None:
            nonlocal full
            try:
                made.append(await plane.add_node(f"n{number}"))
            except Conflict:
                full += 1

        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(add, number)
        # 64 addresses without network, broadcast and the box's own lighthouse.
        assert len({node.overlay_ip for node in made}) == len(made) == 61
        assert full == 19


async def test_addresses_stay_unique_while_nodes_come_and_go(tmp_path: Path) -> None:
    async with threaded_plane(tmp_path, network_cidr="10.42.0.0/27") as plane:

        async def come_and_go(who: int) -> None:
            for turn in range(6):
                try:
                    node = await plane.add_node(f"n{who}-{turn}", keyed=False)
                except Conflict:
                    continue
                if turn % 2:
                    await nodes.delete(plane.control, OPERATOR, node.id)

        async with trio.open_nursery() as nursery:
            for who in range(12):
                nursery.start_soon(come_and_go, who)
        page = await nodes.list_(plane.control, OPERATOR, plane.cluster_id, message.NodeQuery(page_size=100))
        assert len({node.overlay_ip for node in page.nodes}) == page.total == len(page.nodes)


async def test_one_name_wanted_by_many_is_given_once(tmp_path: Path) -> None:
    async with threaded_plane(tmp_path) as plane:
        made: list[str] = []
        refusals: list[str] = []

        async def add() -> None:
            try:
                made.append((await plane.add_node("the-one")).id)
            except Conflict as error:
                refusals.append(error.message)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(add)
        assert len(made) == 1
        assert refusals == ["a node named 'the-one' already exists"] * 19


async def test_no_change_is_missed_by_who_waits_for_it(tmp_path: Path) -> None:
    async with threaded_plane(tmp_path) as plane:
        node = await plane.add_node("a")
        changes = 40

        async def change() -> None:
            for number in range(changes):
                await plane.patch(node.id, mtu=1300 + number % 2 + 1)

        seen = node.version
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            while seen < node.version + changes:
                answer = await polls.wait(plane.control, node.id, current=seen, wait_s=30)
                assert answer.version > seen
                seen = answer.version


async def test_a_bundle_is_never_older_than_the_version_that_was_announced(tmp_path: Path) -> None:
    async with threaded_plane(tmp_path) as plane:
        made = [await plane.add_node(f"n{number}") for number in range(8)]
        callers = {node.id: await plane.caller(node.node_token) for node in made}
        done = False

        async def follow(node_id: str) -> None:
            while not done:
                announced = plane.control.roll.effective(node_id)
                signed = await bundles.node_bundle(plane.control, callers[node_id])
                assert signed.version >= announced

        async with trio.open_nursery() as nursery:
            for node in made:
                nursery.start_soon(follow, node.id)
            for turn in range(10):
                await plane.patch(made[turn % 8].id, mtu=1400 + turn)
                await nodes.set_relay(plane.control, OPERATOR, made[turn % 8].id)
            done = True


async def test_tenants_never_see_one_another_while_both_change(tmp_path: Path) -> None:
    """TENANT_ISOLATION, under concurrency."""
    async with threaded_plane(tmp_path) as plane:
        other = await plane.add_cluster("other")
        admins = {
            cluster_id: await plane.caller(
                (await plane.add_node("admin", role="admin", cluster_id=cluster_id)).node_token
            )
            for cluster_id in (plane.cluster_id, other.id)
        }
        ids: dict[str, set[str]] = {cluster_id: set() for cluster_id in admins}

        async def work(mine: str, theirs: str) -> None:
            caller = admins[mine]
            for number in range(15):
                node = await nodes.create(plane.control, caller, None, message.NodeCreate(name=f"n{number}"))
                ids[mine].add(node.id)
                for foreign in list(ids[theirs]):
                    for call in (nodes.get, nodes.delete, nodes.rotate_token, nodes.set_relay):
                        try:
                            await call(plane.control, caller, foreign)
                        except NotFound:
                            continue
                        raise AssertionError(f"{call.__name__} reached another tenant's node")
                page = await nodes.list_(plane.control, caller, None, message.NodeQuery(page_size=100))
                assert not {node.id for node in page.nodes} & ids[theirs]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, plane.cluster_id, other.id)
            nursery.start_soon(work, other.id, plane.cluster_id)
