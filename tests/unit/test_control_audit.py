"""The audit log: one row per write with its caller, failures counted into few rows, pages from the newest back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgegc.control import audit_log, nodes
from edgegc.control.failures import MAX_KINDS
from edgegc.errors import Conflict, Forbidden, Invalid
from tests.control_plane import OPERATOR, Plane, control_plane

if TYPE_CHECKING:
    from edgegc.model import message


async def shown(plane: Plane, *, cursor: str | None = None, page_size: int = 500) -> message.AuditList:
    return await audit_log.list_(plane.control, OPERATOR, cursor=cursor, page_size=page_size)


def refuse(plane: Plane, *, source: str = "192.0.2.9", number: int = 1) -> None:
    for n in range(number):
        plane.control.failures.note(
            actor="unknown",
            action="authentication.failed",
            what="malformed token",
            source=source,
            request_id=f"request-{n}",
        )


async def test_every_write_is_an_entry_with_its_caller_and_target() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1")
        await plane.patch(node.id, mtu=1400)
        await nodes.delete(plane.control, OPERATOR, node.id)
        found = (await shown(plane)).audit
    assert [entry.action for entry in found[:3]] == ["node.delete", "node.update", "node.create"]
    assert {(e.target, e.actor, e.request_id, e.source) for e in found[:3]} == {
        (node.id, "operator:socket", "test-request", "socket")
    }


async def test_a_refused_write_and_one_that_changes_nothing_are_no_entries() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("pi-1")
        before = await shown(plane)
        with pytest.raises(Conflict):
            await plane.add_node("pi-1")
        await plane.patch(node.id, name="pi-1")
        assert await shown(plane) == before


async def test_pages_show_every_entry_once_newest_first_even_while_more_come() -> None:
    async with control_plane() as plane:
        for number in range(7):
            await plane.add_node(f"pi-{number}", keyed=False)
        everything = [entry.id for entry in (await shown(plane)).audit]
        assert everything == sorted(everything, reverse=True)
        found: list[int] = []
        cursor = None
        while True:
            page = await shown(plane, cursor=cursor, page_size=3)
            found += [entry.id for entry in page.audit]
            await plane.add_node(f"later-{len(found)}", keyed=False)
            if page.next_cursor is None:
                break
            cursor = page.next_cursor
        assert found == everything


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "9" * 16, "١"])
async def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match=r"^cursor: "):
            await shown(plane, cursor=cursor)


async def test_alike_failures_are_one_entry_with_their_number() -> None:
    async with control_plane() as plane:
        refuse(plane, number=5)
        refuse(plane, source="192.0.2.10")
        first, second = (await shown(plane, page_size=2)).audit
    assert (second.target, second.source, second.request_id) == (
        "malformed token (5 times)",
        "192.0.2.9",
        "request-4",
    )
    assert (first.target, first.source) == ("malformed token", "192.0.2.10")
    assert second.action == "authentication.failed"


async def test_failures_from_everywhere_make_a_bounded_number_of_entries() -> None:
    async with control_plane() as plane:
        before = len((await shown(plane)).audit)
        for number in range(1000):
            refuse(plane, source=f"198.51.100.{number}")
        found = (await shown(plane)).audit
    assert len(found) - before == MAX_KINDS + 1
    assert found[0].source == "others"
    assert found[0].target == f"various reasons ({1000 - MAX_KINDS} times)"


async def test_only_the_operator_reads_the_log() -> None:
    async with control_plane() as plane:
        boss = await plane.caller((await plane.add_node("boss", role="admin")).node_token)
        with pytest.raises(Forbidden):
            await audit_log.list_(plane.control, boss, cursor=None, page_size=50)
