"""Every statement that a hot endpoint runs finds its rows by an index, and lists come out of one in order.

The statements are those that really run: recorded from the connections while the use cases do their work.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgegc.control import (
    audit_log,
    bundles,
    certificates,
    clusters,
    enrolment,
    expiry,
    fleet,
    housekeeping,
    lighthouses,
    node_batches,
    node_lists,
    nodes,
    policies,
    rollout,
    rotation,
    tenants,
    topology,
    uploads,
)
from edgegc.model import message
from edgegc.model.credential import Repeatable
from edgegc.settings import Data
from tests import zoo
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

NARROW = ("audit_refusals", "authorities_active", "bundle_bodies_incomplete", "clusters_lighthouse_port")
"""Indexes over just the rows that are asked for, or over one of each cluster: read whole on purpose."""
SCAN = re.compile(
    r"^SCAN (?!CONSTANT ROW|json_each|\(subquery|\d+ CONSTANT"
    rf"|\S+ USING (COVERING )?INDEX ({'|'.join(NARROW)})\b)"
)
"""A step that reads all of a table or index. Lists given as JSON are read whole on purpose."""


@contextmanager
def recorded(plane: Plane, *, each: Callable[[str], None] = lambda _: None) -> Iterator[set[str]]:
    """Collect the statements that jobs run, and hear of each."""
    found: set[str] = set()

    def note(statement: str) -> None:
        found.add(statement)
        each(statement)

    database = plane.control.database
    write, read = database.write, database.read

    def traced(job: Callable[[sqlite3.Connection], object]) -> Callable[[sqlite3.Connection], object]:
        def run(connection: sqlite3.Connection) -> object:
            connection.set_trace_callback(note)
            try:
                return job(connection)
            finally:
                connection.set_trace_callback(None)

        return run

    database.write = lambda job: write(traced(job))  # type: ignore[method-assign]
    database.read = lambda job, **more: read(traced(job), **more)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        database.write, database.read = write, read  # type: ignore[method-assign]


async def plans(plane: Plane, statements: set[str]) -> dict[str, list[str]]:
    """Return the steps of each statement's plan."""

    def job(connection: sqlite3.Connection) -> dict[str, list[str]]:
        return {
            statement: [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in statements
            if statement.split(None, 1)[0].upper()
            in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE")
        }

    return await plane.control.database.read(job)


async def no_scans(plane: Plane, statements: set[str]) -> None:
    found = await plans(plane, statements)
    assert found
    scans = {statement: steps for statement, steps in found.items() if any(map(SCAN.match, steps))}
    assert not scans


async def test_nothing_that_one_node_asks_for_reads_a_whole_table() -> None:
    async with control_plane() as plane:
        control = plane.control
        for number in range(3):
            await plane.add_node(f"other-{number}")
        key = await plane.key()
        with recorded(plane) as statements:
            enrolled = await enrolment.enroll(
                control, key, message.Enroll(name="pi-1", public_key=new_public_key())
            )
            node = await plane.caller(enrolled.node_token)
            await bundles.node_bundle(control, node)
            await certificates.issue(control, node, message.CertificateRequest(public_key=new_public_key()))
            await topology.cluster_topology(control, node, None)
            await topology.cluster_routes(control, node, None)
            await topology.set_own_routes(control, node, message.Routes(routes=("10.20.0.0/16",)))
            await topology.own_routes(control, node)
            await bundles.node_bundle(control, node)
            fleet.report(control, node, message.Report(applied_version=1, state="ok"))
            await control.fleet.flush(last_seen=True)
        await no_scans(plane, statements)


async def test_nothing_that_an_admin_does_with_one_node_reads_a_whole_table() -> None:
    async with control_plane() as plane:
        control = plane.control
        for number in range(3):
            await plane.add_node(f"other-{number}")
        with recorded(plane) as statements:
            made = await plane.add_node("pi-1", groups=("a",))
            await plane.node(made.id)
            await plane.patch(made.id, mtu=1400)
            await plane.patch(made.id, name="pi-2")
            await plane.patch(made.id, groups=("b",))
            await nodes.rotate_token(control, OPERATOR, made.id)
            await nodes.set_routes(control, OPERATOR, made.id, message.Routes(routes=("10.20.0.0/16",)))
            await nodes.set_relay(control, OPERATOR, made.id)
            reached = message.LighthouseSet(public_addresses=("203.0.113.9:4242",))
            await nodes.set_lighthouse(control, OPERATOR, made.id, reached)
            await plane.patch(made.id, overlay_ip="10.42.0.77")
            await nodes.delete(control, OPERATOR, made.id)
        await no_scans(plane, statements)


async def test_a_deletion_looks_at_no_blocklist_entry_that_is_still_good() -> None:
    async with control_plane() as plane:
        made = await plane.add_node("pi-1")
        with recorded(plane) as statements:
            await nodes.delete(plane.control, OPERATOR, made.id)
        found = await plans(plane, {each for each in statements if each.startswith("DELETE FROM blocklist")})
        ((step,),) = found.values()
        assert "(cluster_id=? AND not_after<?)" in step


async def test_a_batch_of_nodes_reads_no_whole_table() -> None:
    async with control_plane() as plane:
        await plane.add_node("old")
        items = tuple(message.NodeCreate(name=f"pi-{n}", public_key=new_public_key()) for n in range(3))
        with recorded(plane) as statements:
            batch = message.NodeBatch(nodes=items)
            await node_batches.create(plane.control, OPERATOR, plane.cluster_id, batch)
        await no_scans(plane, statements)


async def test_a_batch_reads_once_what_all_of_its_nodes_need() -> None:
    async with control_plane() as plane:
        items = tuple(message.NodeCreate(name=f"pi-{n}", public_key=new_public_key()) for n in range(20))
        counted: Counter[str] = Counter()
        with recorded(plane, each=lambda statement: counted.update([statement])):
            batch = message.NodeBatch(nodes=items)
            await node_batches.create(plane.control, OPERATOR, plane.cluster_id, batch)
        assert [
            each for each, times in counted.items() if times == len(items) and each.startswith("SELECT")
        ] == []


async def test_a_change_of_a_node_touches_only_what_is_another_thing_now() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1")
        plane.clock.at += 1
        with recorded(plane) as statements:
            await plane.patch(node.id, mtu=1400)
        (update,) = [each for each in statements if each.startswith("UPDATE nodes")]
        changed = update.partition(" SET ")[2].partition(" WHERE ")[0]
        assert [each.partition(" = ")[0] for each in changed.split(", ")] == [
            "mtu",
            "own_version",
            "updated_at",
            "own_version_at",
        ]


@pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-created_at", "overlay_ip", "-overlay_ip"])
async def test_a_page_of_nodes_comes_in_order_out_of_an_index(sort: str) -> None:
    async with control_plane() as plane:
        for number in range(5):
            await plane.add_node(f"pi-{number}")
        with recorded(plane) as statements:
            query = message.NodeQuery(page_size=2, sort=sort)
            page = await node_lists.list_(plane.control, OPERATOR, plane.cluster_id, query)
            query = message.NodeQuery(page_size=2, sort=sort, cursor=page.next_cursor)
            await node_lists.list_(plane.control, OPERATOR, plane.cluster_id, query)
        await no_scans(plane, statements)
        pages = {s: steps for s, steps in (await plans(plane, statements)).items() if "LIMIT" in s}
        assert len(pages) == 2
        for statement, steps in pages.items():
            # "FOR RIGHT PART OF ORDER BY" sorts those with the same address by id: there is one of each.
            assert "USE TEMP B-TREE FOR ORDER BY" not in steps, statement
            assert any(step.startswith("SEARCH nodes USING") for step in steps)


async def test_a_search_by_name_reads_only_names_that_begin_so() -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-1")
        with recorded(plane) as statements:
            query = message.NodeQuery(name="pi")
            await node_lists.list_(plane.control, OPERATOR, plane.cluster_id, query)
        steps = [step for found in (await plans(plane, statements)).values() for step in found]
        assert any("cluster_id=? AND name>? AND name<?" in step for step in steps), steps


async def test_a_policy_reads_no_table_beyond_its_cluster() -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-1")
        wanted = message.Policy(inbound=(), outbound=())
        with recorded(plane) as statements:
            await policies.preview(plane.control, OPERATOR, plane.cluster_id, wanted)
            await policies.put(plane.control, OPERATOR, plane.cluster_id, wanted)
            await policies.get(plane.control, OPERATOR, plane.cluster_id)
        await no_scans(plane, statements)


async def test_a_page_of_the_audit_log_reads_only_that_page() -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-1")
        with recorded(plane) as statements:
            page = await audit_log.list_(plane.control, OPERATOR, cursor=None, page_size=1)
            await audit_log.list_(plane.control, OPERATOR, cursor=page.next_cursor, page_size=1)
        await no_scans(plane, statements)
        steps = [step for found in (await plans(plane, statements)).values() for step in found]
        assert "USE TEMP B-TREE FOR ORDER BY" not in steps


@pytest.mark.parametrize(
    "query",
    [
        message.NodeQuery(sort="-last_seen_at"),
        message.NodeQuery(state="offline", sort="overlay_ip"),
        message.NodeQuery(group="a", role="member"),
        message.NodeQuery(name="pi", group="a", sort="-created_at"),
    ],
    ids=["last seen", "state", "group and role", "name and group"],
)
async def test_a_filtered_list_reads_no_other_cluster(query: message.NodeQuery) -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-1", groups=("a",))
        with recorded(plane) as statements:
            await node_lists.list_(plane.control, OPERATOR, plane.cluster_id, query)
        await no_scans(plane, statements)


async def test_the_state_of_a_cluster_reads_no_other_cluster() -> None:
    async with control_plane() as plane:
        control = plane.control
        await plane.add_node("pi-1")
        with recorded(plane) as statements:
            await clusters.get(control, OPERATOR, plane.cluster_id)
            await rollout.rollout(control, OPERATOR, plane.cluster_id)
            await rotation.status(control, OPERATOR, plane.cluster_id)
            await lighthouses.desired(control)
            key = await enrolment.create_key(
                control, OPERATOR, plane.cluster_id, message.EnrolmentKeyCreate()
            )
            await enrolment.list_keys(control, OPERATOR, plane.cluster_id)
            await enrolment.revoke_key(control, OPERATOR, key.id)
        await no_scans(plane, statements)


async def test_a_rotation_reads_no_other_cluster() -> None:
    async with control_plane() as plane:
        await plane.add_node("pi-1")
        with recorded(plane) as statements:
            for step in ("prepare", "issue", "retire"):
                asked = message.CaRotationStep(step=step, force=True)
                await rotation.take(plane.control, OPERATOR, plane.cluster_id, asked)
        await no_scans(plane, statements)


async def test_uploaded_bundles_are_found_by_their_cluster(tmp_path: Path) -> None:
    async with control_plane(cluster={"mode": "uploaded"}, data=Data(dir=tmp_path)) as plane:
        control, cluster_id = plane.control, plane.cluster_id
        node = await plane.caller((await plane.add_node("pi-1", keyed=False)).node_token)

        async def body(content: bytes) -> AsyncIterator[bytes]:
            yield content

        with recorded(plane) as statements:
            for number in range(3):
                content = zoo.with_files(notes_txt=str(number).encode())
                await uploads.receive(control, OPERATOR, cluster_id, body(content), length=None)
            await bundles.node_bundle(control, node)
            first, *_ = reversed((await uploads.list_(control, OPERATOR, cluster_id)).bundles)
            found = await uploads.get(control, OPERATOR, cluster_id, first.version)
            async for _ in control.bodies.parts(found.body_id, found.digest, 0, found.size):
                pass
            await uploads.activate(control, OPERATOR, cluster_id, first.version)
            await uploads.delete(control, OPERATOR, cluster_id, first.version)
        await no_scans(plane, statements)


async def test_what_is_looked_at_every_few_seconds_is_found_by_when_it_is_due() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        control = plane.control
        node = await plane.add_node("pi-1", groups=("a",))
        await plane.patch(node.id, groups=("b",))
        plane.clock.at += 150 * 86_400
        with recorded(plane) as statements:
            await housekeeping.renew_certificates(control)
            await housekeeping.blocklist_replaced(control)
            await housekeeping.watch_clock(control)
            await expiry.warn(control, expiry.Said())
            await housekeeping.write_failures(control)
        assert any(statement.startswith("INSERT INTO blocklist") for statement in statements)
        assert any(statement.startswith("INSERT INTO certificates") for statement in statements)
        await no_scans(plane, statements)


async def test_a_repeated_request_and_its_trimming_read_no_whole_table() -> None:
    async with control_plane() as plane:
        asked = Repeatable(key="key", scope="POST /api/v1/tenants", body_digest=b"")
        caller = msgspec.structs.replace(OPERATOR, repeatable=asked)
        with recorded(plane) as statements:
            for _ in range(2):
                await tenants.create(plane.control, caller, message.TenantCreate(name="a"))
            await housekeeping.trim(plane.control)
        await no_scans(plane, statements)
