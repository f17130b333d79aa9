"""What the laboratory asks of the store is what use cases ask of it: the same statements, whatever their values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from edgegc.control import node_lists, topology
from edgegc.model import message
from edgegc.perf import store, store_content, store_rig
from edgegc.store.database import MEMORY, open_database
from tests.control_plane import OPERATOR, control_plane

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    from edgegc.store.database import Database
    from tests.control_plane import Plane

VALUES = re.compile(r"x?'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b|\bNULL\b|:\w+|\?\d*", re.IGNORECASE)


def without_values(statement: str) -> str:
    return re.sub(r"\s+", " ", VALUES.sub("?", statement))


async def statements(database: Database, ask: Callable[[], Awaitable[object]]) -> set[str]:
    """Return what a database was asked."""
    seen: list[str] = []

    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(seen.append)

    def no_trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(None)

    for lane in (database.write, database.read):
        await lane(trace)
    await ask()
    for lane in (database.write, database.read):
        await lane(no_trace)
    return {without_values(each) for each in seen}


async def list_a_page(plane: Plane, _node_id: str) -> object:
    query = message.NodeQuery(page_size=store.PAGE_SIZE)
    return await node_lists.list_(plane.control, OPERATOR, plane.cluster_id, query)


@pytest.mark.parametrize(
    ("operation", "use_case"),
    [
        ("node_insert", lambda plane, node_id: plane.add_node("another")),
        ("node_update", lambda plane, node_id: plane.patch(node_id, mtu=1290)),
        ("node_by_id", lambda plane, node_id: plane.node(node_id)),
        ("nodes_of_cluster", list_a_page),
        (
            "topology",
            lambda plane, node_id: topology.cluster_topology(plane.control, OPERATOR, plane.cluster_id),
        ),
    ],
)
async def test_an_operation_asks_what_its_use_case_asks(
    operation: str, use_case: Callable[[Plane, str], Awaitable[object]]
) -> None:
    async with open_database(MEMORY, executor="inline") as database, control_plane() as plane:
        rig = store_rig.Rig(database, seed=1)
        await store_content.fill(rig, node_count=store.PAGE_SIZE + 1, bundle_count=0, bundle_bytes=0)
        node = await plane.add_node("first")
        ours = await statements(database, store.OPERATIONS[operation](rig, 1))
        theirs = await statements(plane.control.database, lambda: use_case(plane, node.id))
    assert ours == theirs


async def test_a_flush_writes_what_presence_flushes() -> None:
    async with open_database(MEMORY, executor="inline") as database, control_plane() as plane:
        rig = store_rig.Rig(database, seed=1)
        await store_content.fill(rig, node_count=3, bundle_count=0, bundle_bytes=0)
        node = await plane.add_node("first")
        plane.control.fleet.seen(node.id)
        ours = await statements(database, store.OPERATIONS["flush"](rig, 1))
        theirs = await statements(plane.control.database, lambda: plane.control.fleet.flush(last_seen=True))
    assert ours == theirs
