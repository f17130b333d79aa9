"""The fleet: what nodes say is shown at once, stored now and then, and never believed beyond what they were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from edgegc.control import fleet, node_batches, nodes, rollout
from edgegc.control.control import open_control
from edgegc.errors import Forbidden
from edgegc.model import message
from edgegc.settings import Settings
from edgegc.store.database import MEMORY, open_database
from edgegc.store.vault import Vault
from tests.control_plane import MASTER, OPERATOR, Plane, control_plane, open_plane

if TYPE_CHECKING:
    from pathlib import Path


def ride(
    plane: Plane, node_id: str, applied: str | None, state: str | None, nebula: str | None = None
) -> None:
    fleet.ride_along(plane.control, node_id, applied=applied, state=state, nebula=nebula)


async def heard(plane: Plane, name: str = "a") -> message.NodeView:
    node = await plane.add_node(name)
    await plane.caller(node.node_token)
    return node


async def test_a_node_is_offline_until_it_was_heard_of_and_90_seconds_after(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        assert (await plane.node(node.id)).state == "offline"
        await plane.caller(node.node_token)
        assert (await plane.node(node.id)).state == "behind"
        await trio.sleep(90)
        assert (await plane.node(node.id)).state == "behind"
        await trio.sleep(1)
        assert (await plane.node(node.id)).state == "offline"


async def test_applying_the_effective_version_makes_a_node_online() -> None:
    async with control_plane() as plane:
        node = await heard(plane)
        ride(plane, node.id, str(node.version), "ok", "1.9.3")
        seen = await plane.node(node.id)
        assert (seen.state, seen.applied_version, seen.nebula_version) == ("online", node.version, "1.9.3")
        await plane.patch(node.id, mtu=1400)
        assert (await plane.node(node.id)).state == "behind"


async def test_a_failure_is_shown_with_its_reason_until_another_state_comes() -> None:
    async with control_plane() as plane:
        node = await heard(plane)
        caller = await plane.caller(node.node_token)
        sentence = "nebula -test refused it"
        fleet.report(plane.control, caller, message.Report(applied_version=0, state="failed", error=sentence))
        seen = await plane.node(node.id)
        assert (seen.state, seen.error) == ("failed", sentence)
        ride(plane, node.id, "0", "failed")
        assert (await plane.node(node.id)).error == sentence
        ride(plane, node.id, str(node.version), "ok")
        assert (await plane.node(node.id)).error is None


async def test_a_node_that_is_ahead_of_a_database_put_back_is_shown_as_failed_with_its_reason() -> None:
    async with control_plane() as plane:
        node = await heard(plane)
        caller = await plane.caller(node.node_token)
        ride(plane, node.id, str(node.version), "ok")
        sentence = "the control plane is at version 2, but this node has accepted version 9 before"
        ahead = node.version + 7
        fleet.report(
            plane.control, caller, message.Report(applied_version=ahead, state="failed", error=sentence)
        )
        seen = await plane.node(node.id)
        assert (seen.state, seen.error, seen.applied_version) == ("failed", sentence, node.version)
        ride(plane, node.id, str(ahead), "failed")
        assert (await plane.node(node.id)).error == sentence


async def test_more_than_was_given_is_ignored() -> None:
    async with control_plane() as plane:
        node = await heard(plane)
        ride(plane, node.id, str(node.version + 1), "ok")
        assert (await plane.node(node.id)).applied_version is None


@pytest.mark.parametrize(
    ("applied", "state", "nebula_version"),
    [
        ("-1", "ok", None),
        ("x", "ok", None),
        ("9" * 30, "ok", None),
        ("٣", "ok", None),
        (None, "ok", None),
        ("1", "fine", None),
        (None, None, "x" * 65),
        (None, None, "<script>"),
    ],
)
async def test_a_malformed_report_is_counted_and_changes_nothing(
    applied: str | None, state: str | None, nebula_version: str | None
) -> None:
    async with control_plane() as plane:
        node = await heard(plane)
        before = await plane.node(node.id)
        ride(plane, node.id, applied, state, nebula_version)
        assert await plane.node(node.id) == before
        assert plane.control.fleet.malformed_reports == 1


async def test_only_a_node_reports() -> None:
    async with control_plane() as plane:
        with pytest.raises(Forbidden):
            fleet.report(plane.control, OPERATOR, message.Report(applied_version=0, state="ok"))


async def test_what_changed_is_stored_within_ten_seconds_and_the_rest_at_the_end(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with control_plane() as plane:
        changed, silent = await heard(plane, "a"), await heard(plane, "b")

        async def stored() -> dict[str, tuple[Any, ...]]:
            def rows(connection: Any) -> dict[str, tuple[Any, ...]]:
                found = connection.execute(
                    "SELECT id, applied_version, reported_state, at FROM nodes LEFT JOIN last_seen ON node_id = id"
                )
                return {row[0]: row[1:] for row in found}

            return await plane.control.database.read(rows)

        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: fleet.run(plane.control, task_status=task_status))
            ride(plane, changed.id, str(changed.version), "ok")
            await trio.sleep(11)
            rows = await stored()
            assert rows[changed.id] == (changed.version, "ok", None)
            assert rows[silent.id] == (None, None, None)
            nursery.cancel_scope.cancel()
        rows = await stored()
        assert rows[changed.id] == (changed.version, "ok", plane.clock.at)
        assert rows[silent.id] == (None, None, plane.clock.at)


async def test_a_flush_of_when_many_nodes_were_heard_of_writes_few_pages(tmp_path: Path) -> None:
    async with open_database(tmp_path / "edgegc.db", executor="inline") as database:
        plane = await open_plane(database)
        plane.cluster_id = (await plane.add_cluster()).id
        items = tuple(message.NodeCreate(name=f"pi-{number}") for number in range(1000))
        made = await node_batches.create(
            plane.control, OPERATOR, plane.cluster_id, message.NodeBatch(nodes=items)
        )
        for _ in range(2):
            plane.clock.at += fleet.LAST_SEEN_FLUSH_S
            for node in made.nodes:
                plane.control.fleet.seen(node.id)
            await database.checkpoint()
            await plane.control.fleet.flush(last_seen=True)
            # Four an hour, and the checkpoint writes each page once more: a fifth of what an idle box may write.
            assert 0 < database.stats().wal_bytes <= 100_000


async def test_a_restart_knows_what_was_stored() -> None:
    async with open_database(MEMORY, executor="inline") as database:
        plane = await open_plane(database)
        plane.cluster_id = (await plane.add_cluster()).id
        node = await heard(plane)
        ride(plane, node.id, str(node.version), "ok", "1.9.3")
        await plane.control.fleet.flush(last_seen=True)
        control = await open_control(
            database, clock=plane.clock, settings=Settings(), vault=Vault(MASTER), servers=()
        )
        seen = await nodes.get(control, OPERATOR, node.id)
    assert (seen.applied_version, seen.nebula_version) == (node.version, "1.9.3")
    assert seen.last_seen_at is not None
    assert seen.state == "offline"


async def test_a_deleted_node_leaves_nothing_in_memory() -> None:
    async with control_plane() as plane:
        node = await heard(plane)
        ride(plane, node.id, str(node.version), "ok")
        await nodes.delete(plane.control, OPERATOR, node.id)
        plane.control.fleet.seen(node.id)
        plane.control.fleet.hold(node.id)
        plane.control.fleet.release(node.id)
        await plane.control.fleet.flush(last_seen=True)
        assert plane.control.fleet.presence(node.id).last_seen_at is None


async def test_the_rollout_counts_every_node_once_and_names_those_behind() -> None:
    async with control_plane() as plane:
        made = [await heard(plane, name) for name in "abc"]
        await plane.add_node("d")
        ride(plane, made[0].id, str(made[0].version), "ok")
        ride(plane, made[1].id, "0", "failed")
        plane.clock.at += 5
        await plane.patch(made[2].id, mtu=1400)
        seen = await rollout.rollout(plane.control, OPERATOR, plane.cluster_id)
        assert seen.nodes == message.RolloutCounts(total=4, online=1, behind=1, failed=1, offline=1)
        assert [(each.name, each.version, each.applied_version) for each in seen.behind] == [
            ("b", made[1].version, 0),
            ("c", plane.control.roll.effective(made[2].id), None),
            ("d", plane.control.roll.effective(seen.behind[2].id), None),
        ]
        assert [each.state for each in seen.behind] == ["failed", "behind", "offline"]
        assert seen.behind[1].since == message.rfc3339(plane.clock.at)
        assert (seen.behind_total, seen.behind_truncated) == (3, False)


async def test_a_rollout_shows_so_many_and_first_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollout, "SHOWN", 2)
    async with control_plane() as plane:
        for name in ("a", "b", "e"):
            await plane.add_node(name)
        ride(plane, (await heard(plane, "d")).id, "0", "failed")
        await heard(plane, "c")
        seen = await rollout.rollout(plane.control, OPERATOR, plane.cluster_id)
        assert [(each.name, each.state) for each in seen.behind] == [("d", "failed"), ("c", "behind")]
        assert (seen.behind_total, seen.behind_truncated, seen.nodes.offline) == (5, True, 3)
