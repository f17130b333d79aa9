"""Lists of nodes: filters, order, pages and cursors agree with one another and with the total."""

from __future__ import annotations

import base64
import functools
import operator
from typing import TYPE_CHECKING, Any

import pytest

from edgegc.control import fleet, nodes
from edgegc.control.node_lists import SORTS
from edgegc.errors import Invalid
from edgegc.model import message
from edgegc.store import node_pages
from tests.control_plane import OPERATOR, Plane, control_plane

if TYPE_CHECKING:
    import sqlite3


async def listed(plane: Plane, **query: Any) -> message.NodePage:
    return await nodes.list_(plane.control, OPERATOR, plane.cluster_id, message.NodeQuery(**query))


def names(page: message.NodePage) -> list[str]:
    return [node.name for node in page.nodes]


async def walk(plane: Plane, **query: Any) -> list[str]:
    """Follow the cursors to the end."""
    found: list[str] = []
    page = await listed(plane, **query)
    while True:
        found += names(page)
        if page.next_cursor is None:
            return found
        page = await listed(plane, **query, cursor=page.next_cursor)


async def five(plane: Plane) -> list[message.NodeView]:
    made = []
    for number, name in enumerate(["e", "b", "d", "a", "c"]):
        plane.clock.at += number % 2
        made.append(await plane.add_node(name, groups=("web",) if number % 2 else ("web", "db")))
    return made


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", "abcde"),
        ("-name", "edcba"),
        ("overlay_ip", "ebdac"),
        ("-overlay_ip", "cadbe"),
    ],
)
async def test_pages_and_cursors_show_every_node_once_in_order(sort: str, expected: str) -> None:
    async with control_plane() as plane:
        await five(plane)
        pages = [names(await listed(plane, sort=sort, page=page, page_size=2)) for page in (1, 2, 3, 4)]
        assert "".join(functools.reduce(operator.iadd, pages, [])) == expected
        assert "".join(await walk(plane, sort=sort, page_size=2)) == expected


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "last_seen_at", "-last_seen_at"])
async def test_times_that_are_equal_lose_no_node(sort: str) -> None:
    async with control_plane() as plane:
        await five(plane)
        found = await walk(plane, sort=sort, page_size=1)
        assert sorted(found) == list("abcde")
        assert found == names(await listed(plane, sort=sort))


@pytest.mark.parametrize("sort", ["last_seen_at", "-last_seen_at"])
async def test_nodes_never_heard_of_come_with_the_others_and_none_is_lost(sort: str) -> None:
    async with control_plane() as plane:
        made = await five(plane)
        for node in made[:2]:
            plane.clock.at += 1
            await plane.caller(node.node_token)
        found = await walk(plane, sort=sort, page_size=2)
        assert sorted(found) == list("abcde")
        assert (found[-2:] if sort == "last_seen_at" else found[1::-1]) == ["e", "b"]


@pytest.mark.parametrize("sort", ["overlay_ip", "-overlay_ip"])
@pytest.mark.parametrize("query", [{}, {"state": "offline"}, {"group": "web"}])
async def test_an_uploaded_clusters_nodes_have_no_address_and_none_is_lost(
    sort: str, query: dict[str, str]
) -> None:
    def forget_addresses(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE clusters SET mode = 'uploaded'")
        connection.execute("UPDATE nodes SET overlay_ip = NULL")

    async with control_plane() as plane:
        await five(plane)
        await plane.control.database.write(forget_addresses)
        found = await walk(plane, sort=sort, page_size=2, **query)
        assert found == sorted("abcde", reverse=sort.startswith("-"))


@pytest.mark.parametrize("query", [{"name": "a"}, {"group": "db"}, {"role": "member"}, {"state": "offline"}])
@pytest.mark.parametrize("sort", SORTS)
async def test_cursors_keep_to_the_filter(sort: str, query: dict[str, str]) -> None:
    async with control_plane() as plane:
        await five(plane)
        for number in range(4):
            await plane.add_node(f"a{number}", groups=("db",), keyed=False)
        found = await walk(plane, sort=sort, page_size=3, **query)
        page = await listed(plane, sort=sort, page_size=500, **query)
        assert found == names(page)
        assert len(found) == page.total > 3


async def test_last_seen_is_sorted_by_what_is_shown_and_not_by_what_was_flushed() -> None:
    async with control_plane() as plane:
        made = await five(plane)
        for number, node in enumerate(made):
            plane.clock.at += 1 + number
            await plane.caller(node.node_token)
        assert "".join(names(await listed(plane, sort="-last_seen_at"))) == "cadbe"


async def test_filters_and_total_agree() -> None:
    async with control_plane() as plane:
        await five(plane)
        await plane.add_node("abc", role="admin")
        assert names(await listed(plane, name="a")) == ["a", "abc"]
        assert names(await listed(plane, group="db")) == ["c", "d", "e"]
        assert names(await listed(plane, role="admin")) == ["abc"]
        assert names(await listed(plane, name="a", role="member")) == ["a"]
        assert names(await listed(plane, name="ab%")) == []
        page = await listed(plane, group="web", page_size=2)
        assert (page.total, len(page.nodes)) == (5, 2)


async def test_the_state_filter_splits_all_nodes() -> None:
    async with control_plane() as plane:
        made = await five(plane)
        for node in made[:3]:
            await plane.caller(node.node_token)
        ok, failed = made[0], made[1]
        fleet.ride_along(plane.control, ok.id, applied=str(ok.version), state="ok", nebula=None)
        fleet.ride_along(plane.control, failed.id, applied="0", state="failed", nebula=None)
        by_state = {
            state: names(await listed(plane, state=state))
            for state in ("online", "behind", "failed", "offline")
        }
    assert by_state == {"online": ["e"], "behind": ["d"], "failed": ["b"], "offline": ["a", "c"]}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"page_size": 501}, r"^page_size: must be from 1 to 500"),
        ({"page_size": 0}, r"^page_size"),
        ({"page": 0}, r"^page: "),
        ({"sort": "mtu"}, r"^sort: must be one of name, created_at, last_seen_at, overlay_ip"),
        ({"cursor": "rubbish"}, r"^cursor: "),
        ({"cursor": "é"}, r"^cursor: "),
        (
            {
                "cursor": base64.b64encode(b'["created_at",[99999999999999999999,"a"]]').decode(),
                "sort": "created_at",
            },
            r"^cursor: ",
        ),
        ({"cursor": "A" * 1000}, r"^cursor: "),
    ],
)
async def test_a_parameter_that_can_not_be_is_refused_by_name(
    query: dict[str, object], sentence: str
) -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match=sentence):
            await listed(plane, **query)


@pytest.mark.parametrize("key", ['["x"]', "[1,2]", "[null]", "[]", '[1,"x"]', '["x","y"]'])
@pytest.mark.parametrize("sort", ["name", "overlay_ip", "created_at", "last_seen_at"])
@pytest.mark.parametrize("state", [None, "offline"])
async def test_a_forged_cursor_is_refused_or_means_something(key: str, sort: str, state: str | None) -> None:
    cursor = base64.b64encode(f'["{sort}",{key}]'.encode()).decode()
    async with control_plane() as plane:
        await five(plane)
        try:
            await listed(plane, sort=sort, state=state, cursor=cursor)
        except Invalid as error:
            refusal = error.message
        else:
            refusal = "cursor: none"
    assert refusal.startswith("cursor: ")


async def test_a_cursor_of_another_order_is_refused() -> None:
    async with control_plane() as plane:
        await five(plane)
        cursor = (await listed(plane, page_size=1)).next_cursor
        with pytest.raises(Invalid, match=r"^cursor: "):
            await listed(plane, cursor=cursor, sort="created_at")


@pytest.mark.parametrize("sort", ["name", "created_at", "overlay_ip"])
@pytest.mark.parametrize("descending", [False, True])
async def test_no_list_scans_or_sorts_the_table(sort: str, descending: bool) -> None:
    async with control_plane() as plane:

        def plan(connection: Any) -> list[str]:
            seen: list[str] = []
            connection.set_trace_callback(seen.append)
            wanted = node_pages.Filter(cluster_id=plane.cluster_id)
            key = {"name": ("a",), "overlay_ip": (1,), "created_at": (1, "a")}[sort]
            node_pages.page(connection, wanted, sort=sort, descending=descending, limit=50, after=key)
            connection.set_trace_callback(None)
            steps = connection.execute(f"EXPLAIN QUERY PLAN {seen[0]}").fetchall()
            return [step[3] for step in steps]

        steps = await plane.control.database.read(plan)
    assert all("SCAN" not in step and "TEMP B-TREE" not in step for step in steps), steps
