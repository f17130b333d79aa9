"""Bundles for askers: rendered once for many, the same bytes after a restart, bounded in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edgegc.control import bundles, existing, nodes, policies, rendering
from edgegc.control.bundle_cache import Bundles
from edgegc.control.control import open_control
from edgegc.errors import Forbidden, NotFound
from edgegc.model import message
from edgegc.nebula import config
from edgegc.settings import Settings
from edgegc.store.database import MEMORY, open_database
from edgegc.store.vault import Vault
from tests.control_plane import MASTER, OPERATOR, control_plane, open_plane

if TYPE_CHECKING:
    import sqlite3


async def test_many_askers_share_one_rendering_and_its_bytes() -> None:
    async with control_plane() as plane:
        caller = await plane.caller((await plane.add_node("a")).node_token)
        found: list[bundles.SignedBundle] = []

        async def ask() -> None:
            found.append(await bundles.node_bundle(plane.control, caller))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
        assert len({id(each.body) for each in found}) == 1
        assert plane.control.bundles.rendered == 1


async def test_a_new_version_is_rendered_anew() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        caller = await plane.caller(node.node_token)
        first = await bundles.node_bundle(plane.control, caller)
        changed = await plane.patch(node.id, mtu=1400)
        second = await bundles.node_bundle(plane.control, caller)
    assert (first.version, second.version) == (node.version, changed.version)
    assert first.digest != second.digest


async def test_a_cancelled_rendering_is_taken_over_by_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with control_plane() as plane:
        caller = await plane.caller((await plane.add_node("a")).node_token)
        read, first_is_reading = plane.control.database.read, trio.Event()
        calls = 0

        async def stuck_once(job: object, **options: float) -> object:
            nonlocal calls
            calls += 1
            if calls == 1:
                first_is_reading.set()
                await trio.sleep_forever()
            return await read(job, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(plane.control.database, "read", stuck_once)
        found: list[bundles.SignedBundle] = []

        async def ask() -> None:
            found.append(await bundles.node_bundle(plane.control, caller))

        first = trio.CancelScope()

        async def ask_first() -> None:
            with first:
                await ask()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_first)
            await first_is_reading.wait()
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
    assert len(found) == 1


async def test_the_same_version_has_the_same_bytes_after_a_restart() -> None:
    async with open_database(MEMORY, executor="inline") as database:
        plane = await open_plane(database)
        plane.cluster_id = (
            await plane.add_cluster(
                provide_lighthouse=True, lighthouse_public_addresses=("203.0.113.9:4242",)
            )
        ).id
        node = await plane.add_node("a", groups=("web", "db"))
        caller = await plane.caller(node.node_token)
        before = await bundles.node_bundle(plane.control, caller)
        plane.clock.at += 100_000
        control = await open_control(
            database, clock=plane.clock, settings=Settings(), vault=Vault(MASTER), servers=()
        )
        after = await bundles.node_bundle(control, caller)
    assert before == after
    assert before is not after


async def test_what_nodes_have_in_common_is_rendered_once_and_each_gets_what_it_would_get_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rendered: list[str] = []
    render = config.node_config

    def counted(**given: Any) -> dict[str, object]:
        rendered.append(given["node"].name)
        return render(**given)

    async with control_plane() as plane:
        control = plane.control

        async def check(*names: str) -> None:
            """Compare bundles with what a rendering that knows no other node makes, and say who was rendered."""
            monkeypatch.setattr(config, "node_config", counted)
            offers = {node.id: await control.bundles.get(node.id) for node in made}
            monkeypatch.undo()
            assert rendered == [*names]
            rendered.clear()
            for node_id, offer in offers.items():

                def alone(connection: sqlite3.Connection, node_id: str = node_id) -> object:
                    node, cluster = existing.node(connection, node_id)
                    common = rendering.read_common(connection, control.vault, cluster)
                    return rendering.node_bundle(node, cluster, common, servers=())

                assert offer == await control.database.read(alone)

        made = [await plane.add_node(name, groups=("web",)) for name in "abc"]
        made.append(await plane.add_node("d", groups=("db",)))
        await check("a", "d")
        rule = message.PolicyRule(port=80, proto="tcp", host="any", on_groups=("web",))
        policy = message.Policy(inbound=(rule,), outbound=())
        await policies.put(control, OPERATOR, plane.cluster_id, policy)
        await check("a", "d")
        await plane.patch(made[1].id, mtu=1400)
        await check("b")
        await nodes.set_relay(control, OPERATOR, made[0].id)
        await nodes.set_routes(control, OPERATOR, made[3].id, message.Routes(routes=("10.20.0.0/16",)))
        await check("a", "b", "c", "d")


async def test_a_node_without_a_key_has_no_bundle_and_others_none_at_all() -> None:
    async with control_plane() as plane:
        caller = await plane.caller((await plane.add_node("a", keyed=False)).node_token)
        with pytest.raises(NotFound, match="no bundle yet"):
            await bundles.node_bundle(plane.control, caller)
        with pytest.raises(Forbidden):
            await bundles.node_bundle(plane.control, OPERATOR)


async def test_the_cache_stays_within_its_bound_and_forgets_deleted_nodes() -> None:
    async with control_plane() as plane:
        control = plane.control
        control.bundles = Bundles(
            control.database, control.roll, vault=control.vault, servers=control.servers, capacity_bytes=8_000
        )
        made = [await plane.add_node(f"n{number}") for number in range(12)]
        for node in made:
            await bundles.node_bundle(plane.control, await plane.caller(node.node_token))
            assert plane.control.bundles.size_bytes <= 8_000
        kept = plane.control.bundles.size_bytes
        assert kept > 0
        await nodes.delete(plane.control, OPERATOR, made[-1].id)
        assert plane.control.bundles.size_bytes < kept


async def test_no_query_of_a_bundle_scans_a_table() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        caller = await plane.caller((await plane.add_node("a")).node_token)
        seen: list[str] = []

        def trace(connection: sqlite3.Connection) -> None:
            connection.set_trace_callback(seen.append)

        def untrace(connection: sqlite3.Connection) -> list[str]:
            connection.set_trace_callback(None)
            selects = {each for each in seen if each.startswith("SELECT")}
            return [
                step[3]
                for each in selects
                for step in connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall()
            ]

        await plane.control.database.read(trace)
        await bundles.node_bundle(plane.control, caller)
        steps = await plane.control.database.read(untrace)
    assert steps
    assert all(not step.startswith("SCAN") for step in steps), steps
