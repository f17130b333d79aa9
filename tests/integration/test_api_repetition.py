"""Requests sent again with the same Idempotency-Key: answered as the first time, and nothing is made twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.box import Box, running_box

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.raw_http import Reply

KEY = "a-key-that-nobody-guesses"


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path / "data") as running:
        yield running


async def post(box: Box, path: str, body: Any, *, key: str = KEY, token: str | None = None) -> Reply:
    return await box.request("POST", path, body=body, token=token, headers={"Idempotency-Key": key})


async def test_every_route_that_creates_answers_a_repeated_request_as_the_first_time(box: Box) -> None:
    cluster = await box.cluster()
    here = f"?cluster_id={cluster['id']}"
    network = {"network_cidr": "10.9.0.0/16", "provide_lighthouse": True, "lighthouse_port": 44242}
    requests: list[tuple[str, str, Any]] = [
        ("/api/v1/tenants", "tenants", {"name": "acme"}),
        ("/api/v1/clusters", "clusters", {"tenant_id": cluster["tenant_id"], "name": "two"} | network),
        (f"/api/v1/nodes{here}", "nodes", {"name": "pi-1"}),
        (f"/api/v1/nodes/batch{here}", "nodes", {"nodes": [{"name": "pi-2"}, {"name": "pi-3"}]}),
        (f"/api/v1/enrollment-keys{here}", "enrollment_keys", {"uses": 2}),
        ("/api/v1/api-tokens", "api_tokens", {"scopes": ["metrics"]}),
    ]
    for path, plural, body in requests:
        first = await post(box, path, body)
        assert first.status == 201, first.body
        listing = path.replace("/batch", "")
        count = len((await box.request("GET", listing)).json[plural])
        again = await post(box, path, body)
        assert (again.status, again.json) == (201, first.json)
        assert len((await box.request("GET", listing)).json[plural]) == count
        fresh = await post(box, path, body, key="another")
        assert fresh.status == 409 or fresh.json != first.json
        audited = (await box.request("GET", "/api/v1/audit?page_size=500")).json["audit"]
        made = [entry for entry in audited if entry["target"] == first.json.get("id", "-")]
        assert len(made) <= 1


async def test_the_same_key_with_another_body_is_a_conflict(box: Box) -> None:
    await post(box, "/api/v1/tenants", {"name": "one"})
    reply = await post(box, "/api/v1/tenants", {"name": "two"})
    assert (reply.status, reply.json["code"]) == (409, "conflict")
    assert reply.json["detail"].startswith("Idempotency-Key: ")
    assert [each["name"] for each in (await box.request("GET", "/api/v1/tenants")).json["tenants"]] == ["one"]


async def test_a_key_belongs_to_its_caller_and_its_path(box: Box) -> None:
    first = await box.cluster("home")
    second = await box.cluster("office")
    boss = await box.admin(first["id"])
    other = await box.admin(second["id"])
    paths = [f"/api/v1/nodes?cluster_id={each['id']}" for each in (first, second)]
    made = [(await post(box, path, {"name": "pi-1"})).json["id"] for path in paths]
    made += [
        (await post(box, "/api/v1/nodes", {"name": "pi-2"}, token=each["node_token"])).json["id"]
        for each in (boss, other)
    ]
    assert len(set(made)) == 4


async def test_a_refused_request_is_not_remembered(box: Box) -> None:
    cluster = await box.cluster()
    path = f"/api/v1/nodes?cluster_id={cluster['id']}"
    taken = await box.made(path, {"name": "pi-1"})
    assert (await post(box, path, {"name": "pi-1"})).status == 409
    assert (await box.request("DELETE", f"/api/v1/nodes/{taken['id']}")).status == 204
    assert (await post(box, path, {"name": "pi-1"})).status == 201


async def test_a_repeated_request_still_needs_its_permission(box: Box) -> None:
    cluster = await box.cluster()
    boss = await box.admin(cluster["id"])
    assert (await post(box, "/api/v1/nodes", {"name": "pi-1"}, token=boss["node_token"])).status == 201
    await box.request("PATCH", f"/api/v1/nodes/{boss['id']}", body={"role": "member"})
    assert (await post(box, "/api/v1/nodes", {"name": "pi-1"}, token=boss["node_token"])).status == 403


async def test_of_many_equal_requests_at_once_one_makes_and_all_get_its_answer(box: Box) -> None:
    cluster = await box.cluster()
    path = f"/api/v1/nodes?cluster_id={cluster['id']}"
    answers: list[Reply] = []

    async def ask() -> None:
        client = await box.client("admin")
        answers.append(
            await client.request("POST", path, body={"name": "pi-1"}, headers={"Idempotency-Key": KEY})
        )

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert {reply.status for reply in answers} == {201}
    assert len({reply.json["node_token"] for reply in answers}) == 1
    assert (await box.request("GET", path)).json["total"] == 1


async def test_neither_the_key_nor_the_answer_is_in_the_database(box: Box) -> None:
    cluster = await box.cluster()
    made = (await post(box, f"/api/v1/nodes?cluster_id={cluster['id']}", {"name": "pi-1"})).json
    with closing(sqlite3.connect(f"file:{box.data}/edgegc.db?mode=ro", uri=True)) as connection:
        dump = "\n".join(connection.iterdump())
        (answer,) = connection.execute("SELECT answer FROM kept_answers").fetchone()
    for secret in (KEY, made["node_token"], KEY.encode().hex(), made["node_token"].encode().hex()):
        assert secret not in dump
        assert secret.upper() not in dump
    assert made["id"].encode() not in answer


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ä"])
async def test_a_key_that_is_none_is_refused(box: Box, key: str) -> None:
    reply = await post(box, "/api/v1/tenants", {"name": "acme"}, key=key)
    assert (reply.status, "Idempotency-Key" in reply.json["detail"]) == (400, True)
