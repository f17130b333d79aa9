"""Requests sent again with the same Idempotency-Key: answered as the first time, and nothing is made twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edgegc.api import operation
from edgegc.api.app import create_app
from tests import zoo
from tests.box import UNKNOWN_ID, Box, box_settings, public_key, running_box
from tests.control_plane import control_plane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgegc.api.operation import Operation
    from tests.raw_http import Reply

KEY = "a-key-that-nobody-guesses"


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    settings = box_settings(tmp_path / "data", limits={"enabled": False})
    async with running_box(tmp_path / "data", settings) as running:
        yield running


async def post(box: Box, path: str, body: Any, *, key: str = KEY, token: str | None = None) -> Reply:
    headers = {"Idempotency-Key": key}
    if isinstance(body, bytes):
        headers["Content-Type"] = "application/gzip"
    return await box.request("POST", path, body=body, token=token, headers=headers)


async def declared() -> list[tuple[str, str, Operation]]:
    async with control_plane() as plane:
        app = create_app(plane.control)
        return [(method, rule.rule, found) for rule, method, found in operation.operations(app)]


async def test_all_that_creates_and_nothing_else_says_that_it_takes_a_key() -> None:
    for method, rule, found in await declared():
        creates = method == "POST" and 201 in found.gives
        assert ("Idempotency-Key" in found.headers) == creates, rule


async def test_every_route_that_creates_answers_a_repeated_request_as_the_first_time(box: Box) -> None:
    cluster = await box.cluster()
    here = f"?cluster_id={cluster['id']}"
    field = f"?cluster_id={(await box.cluster('field', mode='uploaded'))['id']}"
    network = {"network_cidr": "10.9.0.0/16", "provide_lighthouse": True, "lighthouse_port": 44242}
    key = await box.key(cluster["id"])
    machine = {"name": "pi-0", "public_key": public_key()}
    # Path, where what it makes is listed and under which name, body, whose token, answer of the same with another key
    requests: list[tuple[str, str, str, Any, str | None, int]] = [
        ("/api/v1/tenants", "tenants", "tenants", {"name": "acme"}, None, 409),
        (
            "/api/v1/clusters",
            "clusters",
            "clusters",
            {"tenant_id": cluster["tenant_id"], "name": "two"} | network,
            None,
            409,
        ),
        ("/api/v1/enroll", f"nodes{here}", "nodes", machine, key, 201),
        (f"/api/v1/nodes{here}", f"nodes{here}", "nodes", {"name": "pi-1"}, None, 409),
        (
            f"/api/v1/nodes/batch{here}",
            f"nodes{here}",
            "nodes",
            {"nodes": [{"name": "pi-2"}, {"name": "pi-3"}]},
            None,
            409,
        ),
        (
            f"/api/v1/enrollment-keys{here}",
            f"enrollment-keys{here}",
            "enrollment_keys",
            {"uses": 2},
            None,
            201,
        ),
        ("/api/v1/api-tokens", "api-tokens", "api_tokens", {"scopes": ["metrics"]}, None, 201),
        (f"/api/v1/config/bundle{field}", f"bundles{field}", "bundles", zoo.sized(50_000, 1), None, 200),
        # Another body, so a target that is spelt otherwise: a key belongs to both.
        (f"/api/v1/config/bundle{field}&", f"bundles{field}", "bundles", zoo.sized(50_000, 2), None, 200),
        (f"/api/v1/bundles/1/activate{field}", f"bundles{field}", "bundles", None, None, 200),
        ("/api/v1/maintenance/backup", "maintenance/backups", "backups", None, None, 201),
    ]

    async def listed(listing: str, plural: str) -> list[Any]:
        return list((await box.request("GET", f"/api/v1/{listing}")).json[plural])

    for path, listing, plural, body, token, other in requests:
        first = await post(box, path, body, token=token)
        assert first.status == 201, first.body
        before = await listed(listing, plural)
        again = await post(box, path, body, token=token)
        assert (again.status, again.json) == (201, first.json), path
        assert await listed(listing, plural) == before
        fresh = await post(box, path, body, key="another", token=token)
        assert fresh.status == other, (path, fresh.body)
        assert fresh.json != first.json or fresh.status == 200
        audited = (await box.request("GET", "/api/v1/audit?page_size=500")).json["audit"]
        made = [entry for entry in audited if entry["target"] == first.json.get("id", "-")]
        assert len(made) <= 1
    takes = {rule for _, rule, found in await declared() if "Idempotency-Key" in found.headers}
    assert takes == {path.partition("?")[0].replace("/1/", "/<version>/") for path, _, _, _, _, _ in requests}


async def test_a_key_where_nothing_is_made_is_refused_and_not_ignored(box: Box) -> None:
    for method, rule, found in await declared():
        if found.who == "open" or "Idempotency-Key" in found.headers:
            continue
        path = rule.replace("<version>", "1")
        for part in [part for part in rule.split("/") if part.startswith("<")]:
            path = path.replace(part, UNKNOWN_ID)
        reply = await box.request(method, path, headers={"Idempotency-Key": KEY})
        said = reply.status == 400 and "Idempotency-Key" in reply.json["detail"]
        assert said == (method != "GET"), (method, rule, reply.status)


async def test_an_upload_sent_again_does_not_bring_back_what_was_replaced_meanwhile(box: Box) -> None:
    field = f"?cluster_id={(await box.cluster('field', mode='uploaded'))['id']}"
    path, mine, theirs = f"/api/v1/config/bundle{field}", zoo.sized(50_000, 1), zoo.sized(50_000, 2)
    assert (await post(box, path, mine)).json["version"] == 1
    assert (await post(box, path, theirs, key="another")).json["version"] == 2
    again = await post(box, path, mine)
    assert (again.status, again.json["version"]) == (201, 1)
    kept = (await box.request("GET", f"/api/v1/bundles{field}")).json["bundles"]
    assert [(each["version"], each["active"]) for each in kept] == [(2, True), (1, False)]
    refused = await post(box, path, theirs)
    assert (refused.status, refused.json["detail"][:17]) == (409, "Idempotency-Key: ")


async def test_of_equal_uploads_and_of_equal_backups_at_once_one_makes_and_all_get_its_answer(
    box: Box,
) -> None:
    field = f"?cluster_id={(await box.cluster('field', mode='uploaded'))['id']}"
    for path, body in (
        (f"/api/v1/config/bundle{field}", zoo.sized(900_000)),
        ("/api/v1/maintenance/backup", None),
    ):
        answers: list[Reply] = []

        async def ask(path: str = path, body: bytes | None = body, answers: list[Reply] = answers) -> None:
            client = await box.client("admin")
            headers = {"Idempotency-Key": KEY, "Content-Type": "application/gzip"}
            answers.append(await client.request("POST", path, body=body, headers=headers))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert [reply.status for reply in answers] == [201] * 4
        assert len({reply.body for reply in answers}) == 1
    assert len((await box.request("GET", f"/api/v1/bundles{field}")).json["bundles"]) == 1
    assert len((await box.request("GET", "/api/v1/maintenance/backups")).json["backups"]) == 1
    with closing(sqlite3.connect(f"file:{box.data}/edgegc.db?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT complete FROM bundle_bodies").fetchall() == [(1,)]


async def test_an_enrolment_sent_again_still_needs_a_key_that_is_good(box: Box) -> None:
    cluster = await box.cluster()
    key = await box.key(cluster["id"])
    machine = {"name": "pi-0", "public_key": public_key()}
    first = await post(box, "/api/v1/enroll", machine, token=key)
    # The node's token has been used since: without the header this would be a machine of a name that is taken.
    await box.request("GET", "/api/v1/config/version", token=first.json["node_token"])
    assert (await post(box, "/api/v1/enroll", machine, token=key)).json == first.json
    assert (await post(box, "/api/v1/enroll", machine, token=key, key="another")).status in (401, 409)
    (shown,) = (await box.request("GET", f"/api/v1/enrollment-keys?cluster_id={cluster['id']}")).json[
        "enrollment_keys"
    ]
    await box.request("DELETE", f"/api/v1/enrollment-keys/{shown['id']}")
    assert (await post(box, "/api/v1/enroll", machine, token=key)).status == 401


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
