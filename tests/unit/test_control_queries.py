"""No statement of a hot path scans a table: all of them are traced and explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegc.control import certificates, enrolment, fleet, housekeeping, lighthouses, nodes, topology
from edgegc.model import message
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key

if TYPE_CHECKING:
    import sqlite3


async def everyday(plane: Plane) -> None:
    """What nodes and their administrators do, hour by hour."""
    control = plane.control
    enrolled = await enrolment.enroll(
        control, await plane.key(), message.Enroll(name="a", public_key=new_public_key())
    )
    caller = await plane.caller(enrolled.node_token)
    node = await plane.add_node("b")
    await plane.add_node("c", overlay_ip="10.42.0.9", keyed=False)
    await plane.node(node.id)
    await plane.patch(node.id, name="bb", mtu=1400, groups=("web",), overlay_ip="10.42.0.77")
    await nodes.set_lighthouse(
        control, OPERATOR, node.id, message.LighthouseSet(public_addresses=("203.0.113.9:4242",))
    )
    await topology.set_own_routes(control, caller, message.Routes(routes=("172.16.0.0/24",)))
    await topology.own_routes(control, caller)
    await topology.cluster_topology(control, caller, None)
    await certificates.issue(control, caller, message.CertificateRequest(public_key=new_public_key()))
    await nodes.rotate_token(control, OPERATOR, node.id)
    fleet.ride_along(control, enrolled.node_id, applied="1", state="ok", nebula=None)
    await control.fleet.flush(last_seen=True)
    plane.clock.at += 700
    await housekeeping.blocklist_replaced(control)
    plane.clock.at += 15_552_000 * 3 // 4
    await housekeeping.renew_certificates(control)
    await housekeeping.watch_clock(control)
    await lighthouses.desired(control)
    await nodes.delete(control, OPERATOR, node.id)
    await housekeeping.trim(control)


async def test_no_statement_of_everyday_scans_a_table() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        seen: list[str] = []

        def trace(connection: sqlite3.Connection) -> None:
            connection.set_trace_callback(seen.append)

        def explain(connection: sqlite3.Connection) -> dict[str, list[str]]:
            connection.set_trace_callback(None)
            statements = {
                each for each in seen if each.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")
            }
            return {
                each: [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall()]
                for each in statements
            }

        await plane.control.database.read(trace)
        await plane.control.database.write(trace)
        await everyday(plane)
        await plane.control.database.read(lambda connection: connection.set_trace_callback(None))
        plans = await plane.control.database.write(explain)
        assert len(plans) > 60
        scans = {
            statement: steps
            for statement, steps in plans.items()
            if any(
                step.startswith("SCAN") and "USING INDEX" not in step and "json_each" not in step
                for step in steps
            )
        }
        assert scans == {}
