"""The version check: what is answered at once, what is held and what wakes it (api.md, "Version check")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.box import Box, box_settings, running_box

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.raw_http import RawClient, Reply

PATH = "/api/v1/config/version"
SOON_S = 5.0
"""Far above what waking takes, far below how long the polls here would be held."""


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def cluster(box: Box) -> dict[str, Any]:
    return await box.cluster()


@pytest.fixture
async def node(box: Box, cluster: dict[str, Any]) -> dict[str, Any]:
    return await box.enrolled(cluster["id"], "pi-7")


class Poll:
    """A version check under way on a connection of its own."""

    def __init__(self, client: RawClient) -> None:
        self.client = client

    async def reply(self) -> Reply:
        with trio.fail_after(SOON_S):
            return await self.client.reply()


async def poll(box: Box, token: str, query: str, **headers: str) -> Poll:
    """Start a version check, and return when the server holds it or has answered."""
    client = await box.client()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    before = await held(box)
    await client.send(
        f"GET {PATH}?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{lines}\r\n".encode()
    )
    # Never cancelled in the middle of an answer: the connection is used again.
    deadline = trio.current_time() + 0.5
    while await held(box) <= before and trio.current_time() < deadline:
        await trio.sleep(0.01)
    return Poll(client)


async def held(box: Box) -> int:
    metrics = (await box.request("GET", "/metrics")).body.decode()
    return int(metrics.partition("\nedgegc_held_polls ")[2].partition("\n")[0])


async def test_the_answer_is_immediate_without_current_and_when_it_differs(
    box: Box, node: dict[str, Any]
) -> None:
    version = node["version"]
    for query in (
        "",
        "?wait=100",
        f"?current={version - 1}&wait=100",
        f"?current={version + 1}&wait=100",
        f"?current={version}",
    ):
        with trio.fail_after(SOON_S):
            reply = await box.request("GET", PATH + query, token=node["node_token"])
        assert (reply.status, reply.json) == (200, {"version": version})
        assert reply.headers["etag"] == f'"{version}"'


@pytest.mark.parametrize(
    "query", ["wait=111", "wait=-1", "wait=nan", "wait=x", "current=-1", "current=x", "current=", "curent=1"]
)
async def test_a_query_out_of_bounds_is_invalid(box: Box, node: dict[str, Any], query: str) -> None:
    reply = await box.request("GET", f"{PATH}?{query}", token=node["node_token"])
    assert (reply.status, reply.json["code"]) == (400, "invalid_request")
    assert query.partition("=")[0] in reply.json["detail"]


async def test_if_none_match_is_304_while_nothing_changed(box: Box, node: dict[str, Any]) -> None:
    token, version = node["node_token"], node["version"]
    unchanged = await box.request("GET", PATH, token=token, headers={"If-None-Match": f'"{version}"'})
    assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", f'"{version}"')
    other = await box.request("GET", PATH, token=token, headers={"If-None-Match": f'"{version + 1}"'})
    assert other.status == 200


async def test_current_wins_over_if_none_match(box: Box, node: dict[str, Any]) -> None:
    version = node["version"]
    reply = await box.request(
        "GET",
        f"{PATH}?current={version - 1}&wait=100",
        token=node["node_token"],
        headers={"If-None-Match": f'"{version}"'},
    )
    assert reply.status == 200


async def test_at_the_deadline_it_is_200_or_304_where_if_none_match_matches(
    box: Box, node: dict[str, Any]
) -> None:
    token, version = node["node_token"], node["version"]
    started = trio.current_time()
    reply = await box.request("GET", f"{PATH}?current={version}&wait=0.3", token=token)
    assert (reply.status, reply.json) == (200, {"version": version})
    assert trio.current_time() - started >= 0.3
    for query in ("wait=0.3", f"wait=0.3&current={version}"):
        reply = await box.request(
            "GET", f"{PATH}?{query}", token=token, headers={"If-None-Match": f'"{version}"'}
        )
        assert reply.status == 304


@pytest.mark.parametrize("alone", [False, True], ids=["current", "If-None-Match alone"])
async def test_a_held_poll_is_answered_when_the_version_changes(
    box: Box, node: dict[str, Any], alone: bool
) -> None:
    version = node["version"]
    held_poll = (
        await poll(box, node["node_token"], "wait=100", If_None_Match=f'"{version}"')
        if alone
        else await poll(box, node["node_token"], f"wait=100&current={version}")
    )
    assert await held(box) == 1
    changed = await box.request("PATCH", f"/api/v1/nodes/{node['node_id']}", body={"mtu": 1400})
    reply = await held_poll.reply()
    assert (reply.status, reply.json) == (200, {"version": changed.json["version"]})
    assert reply.json["version"] > version
    assert await held(box) == 0


async def test_a_change_of_another_node_alone_wakes_nobody(
    box: Box, cluster: dict[str, Any], node: dict[str, Any]
) -> None:
    other = await box.enrolled(cluster["id"], "pi-8")
    await poll(box, node["node_token"], f"wait=100&current={node['version']}")
    await box.request("PATCH", f"/api/v1/nodes/{other['node_id']}", body={"mtu": 1400})
    await box.request("PATCH", f"/api/v1/nodes/{node['node_id']}", body={"name": "renamed"})
    await box.enrolled(cluster["id"], "pi-9")
    assert await held(box) == 1
    now = await box.request("GET", PATH, token=node["node_token"])
    assert now.json["version"] == node["version"]


async def test_a_change_of_the_cluster_wakes_every_node_of_it(box: Box, cluster: dict[str, Any]) -> None:
    nodes = [await box.enrolled(cluster["id"], f"pi-{number}") for number in range(3)]
    polls = [await poll(box, each["node_token"], f"wait=100&current={each['version']}") for each in nodes]
    path = f"/api/v1/nodes/{nodes[0]['node_id']}/lighthouse"
    await box.request("PUT", path, body={"public_addresses": ["203.0.113.9:4242"]})
    versions = {(await each.reply()).json["version"] for each in polls}
    assert len(versions) == 1


async def test_a_node_deleted_or_with_a_new_token_is_answered_401_when_it_wakes(
    box: Box, cluster: dict[str, Any]
) -> None:
    for action, path in (("DELETE", ""), ("POST", "/token")):
        node = await box.enrolled(cluster["id"], f"pi-{action}")
        version = (await box.request("GET", PATH, token=node["node_token"])).json["version"]
        held_poll = await poll(box, node["node_token"], f"wait=100&current={version}")
        assert await held(box) == 1
        reply = await box.request(action, f"/api/v1/nodes/{node['node_id']}{path}")
        assert reply.status in (200, 201, 204)
        answer = await held_poll.reply()
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")


async def test_a_third_held_poll_of_a_node_answers_the_oldest(box: Box, node: dict[str, Any]) -> None:
    query = f"wait=100&current={node['version']}"
    oldest = await poll(box, node["node_token"], query)
    await poll(box, node["node_token"], query)
    await poll(box, node["node_token"], query)
    reply = await oldest.reply()
    assert (reply.status, reply.json) == (200, {"version": node["version"]})
    assert await held(box) == 2


async def test_reports_ride_along_and_malformed_ones_are_ignored(box: Box, node: dict[str, Any]) -> None:
    token, version = node["node_token"], node["version"]

    async def ask(**headers: str) -> dict[str, Any]:
        sent = {f"Edgegc-{name.title()}": value for name, value in headers.items()}
        assert (await box.request("GET", PATH, token=token, headers=sent)).status == 200
        shown: dict[str, Any] = (await box.request("GET", f"/api/v1/nodes/{node['node_id']}")).json
        return shown

    assert (await ask())["state"] == "behind"
    shown = await ask(applied=str(version), state="ok", nebula="1.9.3")
    assert (shown["applied_version"], shown["state"], shown["nebula_version"]) == (version, "online", "1.9.3")
    for bad in (
        {"applied": "x"},
        {"applied": "-1"},
        {"applied": "9" * 400},
        {"state": "fine"},
        {"nebula": "x" * 500},
    ):
        shown = await ask(**bad)
        assert (shown["applied_version"], shown["nebula_version"]) == (version, "1.9.3")
    assert (await ask(applied=str(version + 5)))["applied_version"] == version
    assert (await ask(applied=str(version), state="failed"))["state"] == "failed"
    metrics = (await box.request("GET", "/metrics")).body.decode()
    assert "\nedgegc_malformed_reports_total 5\n" in metrics


async def test_past_the_limit_polls_are_not_held_and_the_client_is_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    settings = box_settings(tmp_path / "data", limits={"held_polls": 1})
    async with running_box(tmp_path / "data", settings) as box:
        cluster = await box.cluster()
        first, second = [await box.enrolled(cluster["id"], name) for name in ("pi-1", "pi-2")]
        await poll(box, first["node_token"], f"wait=100&current={first['version']}")
        with trio.fail_after(SOON_S):
            reply = await box.request(
                "GET", f"{PATH}?wait=100&current={second['version']}", token=second["node_token"]
            )
        assert reply.status == 200
        assert int(reply.headers["edgegc-interval"]) > 0


async def test_who_wakes_with_many_others_is_told_to_spread(box: Box, cluster: dict[str, Any]) -> None:
    from edgegc.control import held_polls

    count = held_polls.SPREAD_FROM + 2
    nodes = [await box.enrolled(cluster["id"], f"pi-{number}") for number in range(count)]
    clients = []
    for node in nodes:
        client = await box.client()
        clients.append(client)
        await client.send(
            f"GET {PATH}?wait=100&current={node['version']} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {node['node_token']}\r\n\r\n".encode()
        )
    with trio.fail_after(SOON_S):
        while await held(box) < count:
            await trio.sleep(0.01)
    await box.request("PUT", f"/api/v1/nodes/{nodes[0]['node_id']}/relay")
    replies = [await client.reply() for client in clients]
    # The one that was changed is woken by its own event, before the others.
    assert [reply.headers.get("edgegc-spread") for reply in replies[1:]] == ["1"] * (count - 1)


async def test_a_held_poll_never_delays_shutdown_and_is_answered(tmp_path: Path) -> None:
    async with running_box(tmp_path / "data") as box:
        cluster = await box.cluster()
        node = await box.enrolled(cluster["id"], "pi-7")
        held_poll = await poll(box, node["node_token"], f"wait=100&current={node['version']}")
        started = trio.current_time()
        await box.stop()
        reply = await held_poll.reply()
        assert (reply.status, reply.json) == (200, {"version": node["version"]})
        assert reply.headers["connection"] == "close"
        await box.ended.wait()
        assert trio.current_time() - started < 0.9, "less than the graceful timeout"


async def test_only_nodes_have_a_version(box: Box, cluster: dict[str, Any]) -> None:
    key = await box.key(cluster["id"])
    operator = (await box.made("/api/v1/api-tokens", {"scopes": ["operator"]}))["token"]
    for token in (None, key, operator):
        reply = await box.request("GET", PATH, token=token)
        assert (reply.status, reply.json["code"]) == (403, "forbidden")


async def test_a_wait_that_ends_with_the_client_leaves_nothing_behind(box: Box, node: dict[str, Any]) -> None:
    leaving = await poll(box, node["node_token"], f"wait=100&current={node['version']}")
    assert await held(box) == 1
    await leaving.client.aclose()
    with trio.fail_after(SOON_S):
        while await held(box):
            await trio.sleep(0.01)
