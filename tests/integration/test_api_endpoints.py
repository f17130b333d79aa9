"""Every endpoint, against a whole daemon over real sockets: what it answers, and what it answers to what is wrong."""

from __future__ import annotations

import gzip
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from edgegc import errors
from edgegc.api import codec
from edgegc.control import tenants
from edgegc.nebula import bundle
from tests.box import UNKNOWN_ID, Box, digest_bytes, public_key, running_box

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.raw_http import Reply


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path / "data") as running:
        yield running


def is_problem(reply: Reply, status: int, code: str, *words: str) -> None:
    """Assert that a reply is the problem it should be, with words that its detail must have."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["code"] == code
    assert reply.json["status"] == status
    assert reply.json["request_id"] == reply.headers["x-request-id"]
    assert set(reply.json) == {"type", "title", "status", "code", "detail", "request_id"}
    for word in words:
        assert word in reply.json["detail"]


# Open


async def test_a_host_that_can_be_no_domain_name_is_no_reason_to_fail(box: Box) -> None:
    client = await box.client()
    await client.send(b"GET /health/live HTTP/1.1\r\nhost: " + b"a" * 70 + b".example\r\n\r\n")
    assert (await client.reply()).status == 200
    await client.aclose()


async def test_health_and_version_need_no_token(box: Box) -> None:
    live = await box.request("GET", "/health/live", over="tcp")
    assert (live.status, live.body) == (200, b'{"status":"ok"}')
    ready = await box.request("GET", "/health/ready", over="tcp")
    assert ready.status == 200
    assert ready.json["status"] in ("ok", "degraded")
    assert ready.json["checks"]["store"] == "ok"
    version = await box.request("GET", "/api/v1/version", over="tcp")
    assert set(version.json) == {"version", "commit", "python", "platform", "api"}
    assert version.json["api"] == "v1"
    assert version.headers["content-type"] == "application/json"


async def test_an_unavailable_box_says_so_with_503(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgegc.control.health import Health

    found = Health.report

    def report(self: Health) -> Any:
        self.set("clock", "the clock is before the build", level="unavailable")
        return found(self)

    monkeypatch.setattr(Health, "report", report)
    ready = await box.request("GET", "/health/ready", over="tcp")
    assert (ready.status, ready.json["status"]) == (503, "unavailable")


async def test_metrics_tell_of_clusters_nodes_and_the_process(box: Box) -> None:
    cluster = await box.cluster('with "quotes"'.replace('"', "").replace(" ", "-"))
    node = await box.enrolled(cluster["id"], "pi-7")
    await box.request(
        "GET",
        "/api/v1/config/version",
        token=node["node_token"],
        headers={"Edgegc-Applied": str(node["version"])},
    )
    await box.made(f"/api/v1/nodes?cluster_id={cluster['id']}", {"name": "keyless"})
    assert b"edgegc_backup_age_seconds" not in (await box.request("GET", "/metrics")).body
    await box.made("/api/v1/maintenance/backup", None)
    reply = await box.request("GET", "/metrics", over="tcp")
    assert reply.status == 200
    families = {f.name: f for f in text_string_to_metric_families(reply.body.decode())}
    labels = {"cluster": cluster["name"], "node_id": node["node_id"], "node": "pi-7"}

    def value(name: str, **wanted: str) -> float:
        (found,) = [s.value for s in families[name].samples if wanted.items() <= s.labels.items()]
        return float(found)

    assert value("edgegc_node_online", **labels) == 1
    assert value("edgegc_node_behind", **labels) == 0
    assert value("edgegc_node_behind", node="keyless") == 0
    assert 0 <= value("edgegc_backup_age_seconds") < 3600
    assert value("edgegc_node_applied_version", **labels) == node["version"]
    assert value("edgegc_node_certificate_seconds_left", **labels) > 179 * 86_400
    assert value("edgegc_cluster_nodes", cluster=cluster["name"], state="online") == 1
    assert value("edgegc_cluster_version", cluster=cluster["name"]) >= 1
    assert value("edgegc_health", check="store") == 1
    assert value("process_resident_memory_bytes") > 1_000_000
    assert value("edgegc_database_writes") > 0
    assert value("edgegc_http_connections") >= 1
    assert value("edgegc_http_requests", route="/api/v1/enroll", status="201") == 1
    assert "edgegc_http_request_duration_seconds" in families


async def test_metrics_are_for_this_box_its_socket_and_those_with_a_scope(box: Box) -> None:
    through_a_proxy = {"X-Forwarded-For": "198.51.100.7"}
    assert (await box.request("GET", "/metrics", over="tcp")).status == 200
    assert (await box.request("GET", "/metrics", over="admin")).status == 200
    is_problem(await box.request("GET", "/metrics", over="tcp", headers=through_a_proxy), 401, "unauthorized")
    is_problem(
        await box.request("GET", "/metrics", over="tcp", headers={"Forwarded": "for=198.51.100.7"}),
        401,
        "unauthorized",
    )
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    for scope, status in (("metrics", 200), ("operator", 200), (f"cluster:{cluster['id']}:admin", 403)):
        token = (await box.made("/api/v1/api-tokens", {"scopes": [scope]}))["token"]
        reply = await box.request("GET", "/metrics", token=token, headers=through_a_proxy)
        assert reply.status == status
    reply = await box.request("GET", "/metrics", token=node["node_token"], headers=through_a_proxy)
    is_problem(reply, 403, "forbidden")


# Errors that are nobody's in particular


async def test_an_unknown_path_and_method_are_problems(box: Box) -> None:
    is_problem(await box.request("GET", "/api/v1/nothing", over="tcp"), 404, "not_found")
    is_problem(await box.request("GET", "/api/v1/nodes/", over="tcp"), 404, "not_found")
    reply = await box.request("PUT", "/api/v1/enroll", over="tcp", body={})
    is_problem(reply, 405, "method_not_allowed", "PUT")
    assert reply.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "word"),
    [
        (b"{", {}, 400, "invalid_request", "not valid JSON"),
        (b"", {}, 400, "invalid_request", "empty"),
        (b'{"name":"x","color":1}', {}, 400, "invalid_request", "'color'"),
        (b'{"name":7}', {}, 400, "invalid_request", "name"),
        (b'{"name":"\xff"}', {}, 400, "invalid_request", "not valid JSON"),
        (b'{"name":"x"}', {"Content-Type": "text/plain"}, 415, "unsupported_media_type", "text/plain"),
        (b'{"name":"x"}', {"Content-Type": ""}, 415, "unsupported_media_type", "application/json"),
        (
            gzip.compress(b'{"name":"x"}', mtime=0),
            {"Content-Encoding": "gzip"},
            415,
            "unsupported_media_type",
            "compressed",
        ),
        (b" " * 100_001, {}, 413, "payload_too_large", "100000"),
    ],
)
async def test_a_bad_body_is_a_problem_that_names_what_is_wrong(
    box: Box, body: bytes, headers: dict[str, str], status: int, code: str, word: str
) -> None:
    reply = await box.request("POST", "/api/v1/tenants", body=body, headers=headers)
    is_problem(reply, status, code, word)
    assert (await box.request("GET", "/api/v1/tenants")).json["tenants"] == []


async def test_a_chunked_body_without_end_is_refused_at_the_limit(box: Box) -> None:
    client = await box.client("admin")
    await client.send(
        b"POST /api/v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                try:
                    while True:
                        await client.send(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(send)
            is_problem(await client.reply(), 413, "payload_too_large")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", [b"", b"a b", b"\xc3\xa9", b"x:99999", b"[::1", b"a@b/c"])
async def test_no_host_is_a_crash(box: Box, host: bytes) -> None:
    client = await box.client()
    await client.send(b"GET /api/v1/version HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/%00",
        "/%ff%fe",
        "/;x",
        "/#x",
        "/a\\b",
        "/api/v1/tenants/%00",
        "/api/v1/nodes/%ed%a0%80",
        "/api/v1/nodes/a%0d%0ab",
    ],
)
async def test_no_path_is_a_crash_nor_anything_but_not_found(box: Box, target: str) -> None:
    is_problem(await box.request("GET", target), 404, "not_found")


async def test_no_header_is_a_crash(box: Box) -> None:
    odd = dict.fromkeys(("Content-Type", "Range", "If-None-Match", "X-Request-ID", "Edgegc-Applied"), "\xff")
    assert (await box.request("GET", "/api/v1/version", over="tcp", headers=odd)).status == 200


async def test_all_authentication_failures_look_the_same(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    token = node["node_token"]
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    headers: list[dict[str, str]] = [
        {},
        {"Authorization": f"Bearer {wrong}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        {"Authorization": f"Bearer egn_{'0' * 32}_{'A' * 43}"},
        {"Authorization": f"Bearer egk_{'0' * 32}_{'A' * 43}"},
        {"Authorization": f"Bearer ega_{'0' * 32}_{'A' * 43}"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Bearer \xff\xfe"},
    ]
    seen = set()
    for each in headers:
        reply = await box.request("GET", "/api/v1/config/version", over="tcp", headers=each)
        is_problem(reply, 401, "unauthorized")
        assert reply.headers["www-authenticate"].startswith("Bearer")
        seen.add(reply.json["detail"])
    assert len(seen) == 1
    good = await box.request(
        "GET", "/api/v1/config/version", over="tcp", headers={"authorization": f"bearer  {token}"}
    )
    assert good.status == 200


async def test_unknown_query_parameters_are_refused(box: Box) -> None:
    is_problem(await box.request("GET", "/api/v1/tenants?pgae=1"), 400, "invalid_request", "pgae")
    is_problem(
        await box.request("GET", "/api/v1/resources?step_s=1&step_s=2"),
        400,
        "invalid_request",
        "step_s",
        "2 times",
    )


async def test_a_body_that_does_not_arrive_is_a_problem(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "BODY_PROGRESS_S", 0.2)
    client = await box.client("admin")
    await client.send(
        b"POST /api/v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    is_problem(await client.reply(), 408, "invalid_request", "1 bytes of 100")
    assert await client.closed()


async def test_an_error_that_comes_in_a_group_is_answered_as_itself(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_a_nursery(*args: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise errors.Conflict("taken")

    monkeypatch.setattr(tenants, "list_", in_a_nursery)
    is_problem(await box.request("GET", "/api/v1/tenants"), 409, "conflict", "taken")


async def test_a_bug_is_an_internal_error_outside_and_a_traceback_in_the_log(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def bug(*args: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(tenants, "list_", bug)
    reply = await box.request("GET", "/api/v1/tenants", headers={"X-Request-ID": "find-me"})
    is_problem(reply, 500, "internal")
    assert "secret detail" not in reply.body.decode()
    (record,) = [record for record in caplog.records if record.message == "internal error"]
    assert vars(record)["request_id"] == "find-me"
    assert "secret detail" in caplog.text
    assert (await box.request("GET", "/health/live")).status == 200


async def test_no_token_ever_reaches_the_log(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    wrong = node["node_token"][:-4] + "AAAA"
    await box.request("GET", "/api/v1/config/version", token=node["node_token"])
    await box.request("GET", "/api/v1/config/version", token=wrong)
    assert "authentication failed" in caplog.text
    for token in (node["node_token"], wrong):
        assert token[40:] not in caplog.text


# Operator


async def test_tenants_are_made_listed_shown_and_renamed(box: Box) -> None:
    made = await box.made("/api/v1/tenants", {"name": "acme"})
    assert made["created_at"].endswith("Z")
    assert (await box.request("GET", "/api/v1/tenants")).json == {"tenants": [made], "next_cursor": None}
    path = f"/api/v1/tenants/{made['id']}"
    assert (await box.request("GET", path)).json == made
    renamed = await box.request("PATCH", path, body={"name": "acme-2"})
    assert renamed.json == {**made, "name": "acme-2"}
    is_problem(
        await box.request("POST", "/api/v1/tenants", body={"name": "acme-2"}), 409, "conflict", "acme-2"
    )
    is_problem(await box.request("GET", f"/api/v1/tenants/{UNKNOWN_ID}"), 404, "not_found")
    is_problem(
        await box.request("PATCH", f"/api/v1/tenants/{UNKNOWN_ID}", body={"name": "x"}), 404, "not_found"
    )
    is_problem(await box.request("GET", "/api/v1/tenants/not-an-id"), 404, "not_found")


async def test_clusters_are_made_listed_shown_and_changed(box: Box) -> None:
    cluster = await box.cluster()
    assert cluster["network_cidr"] == "10.42.0.0/16"
    assert cluster["ca"]["phase"] == "none"
    assert (await box.request("GET", "/api/v1/clusters")).json["clusters"] == [cluster]
    path = f"/api/v1/clusters/{cluster['id']}"
    assert (await box.request("GET", path)).json == cluster
    changed = await box.request("PATCH", path, body={"supersede_grace_s": 5})
    assert changed.json["supersede_grace_s"] == 5
    body = {"tenant_id": cluster["tenant_id"], "name": "home", "network_cidr": "10.43.0.0/16"}
    is_problem(await box.request("POST", "/api/v1/clusters", body=body), 409, "conflict", "home")
    for field, value, word in (
        ("network_cidr", "10.43.0.0", "network_cidr"),
        ("network_cidr", "nonsense", "network_cidr"),
        ("certificate_lifetime_s", 1, "certificate_lifetime_s"),
        ("lighthouse_public_addresses", ["x"], "lighthouse_public_addresses"),
        ("allowed_routes", ["10.0.0.0/99"], "allowed_routes"),
        ("mode", "magic", "mode"),
    ):
        reply = await box.request("POST", "/api/v1/clusters", body={**body, "name": "other", field: value})
        is_problem(reply, 400, "invalid_request", word)
    for field in ("tenant_id", "mode", "network_cidr"):
        is_problem(await box.request("PATCH", path, body={field: "x"}), 400, "invalid_request", field)
    unknown = {**body, "name": "other", "tenant_id": UNKNOWN_ID}
    reply = await box.request("POST", "/api/v1/clusters", body=unknown)
    assert reply.status in (400, 404)
    is_problem(await box.request("GET", f"/api/v1/clusters/{UNKNOWN_ID}"), 404, "not_found")


async def test_api_tokens_are_shown_once_and_stop_when_revoked(box: Box) -> None:
    made = await box.made("/api/v1/api-tokens", {"scopes": ["operator"], "label": "ci"})
    assert (await box.request("GET", "/api/v1/clusters", token=made["token"])).status == 200
    listed = (await box.request("GET", "/api/v1/api-tokens")).json["api_tokens"]
    assert [token["id"] for token in listed] == [made["id"]]
    assert "token" not in listed[0]
    path = f"/api/v1/api-tokens/{made['id']}"
    assert (await box.request("DELETE", path)).status == 204
    is_problem(await box.request("GET", "/api/v1/clusters", token=made["token"]), 401, "unauthorized")
    is_problem(await box.request("DELETE", path), 404, "not_found")
    is_problem(
        await box.request("POST", "/api/v1/api-tokens", body={"scopes": ["root"]}),
        400,
        "invalid_request",
        "scopes",
    )


async def test_what_is_the_operators_is_forbidden_to_others(box: Box) -> None:
    cluster = await box.cluster()
    admin = (await box.admin(cluster["id"]))["node_token"]
    scope = f"cluster:{cluster['id']}:admin"
    token = (await box.made("/api/v1/api-tokens", {"scopes": [scope]}))["token"]
    for method, path, body in (
        ("GET", "/api/v1/tenants", None),
        ("POST", "/api/v1/tenants", {"name": "x"}),
        ("POST", "/api/v1/api-tokens", {"scopes": ["operator"]}),
        ("GET", "/api/v1/lighthouses", None),
        ("POST", f"/api/v1/lighthouses/{cluster['id']}/restart", None),
        ("GET", "/api/v1/resources", None),
    ):
        for credential in (admin, token):
            is_problem(await box.request(method, path, token=credential, body=body), 403, "forbidden")


async def test_lighthouses_and_resources_are_listed(box: Box) -> None:
    cluster = await box.cluster()
    assert (await box.request("GET", "/api/v1/lighthouses")).json == {"lighthouses": [], "next_cursor": None}
    for action in ("restart", "stop"):
        is_problem(await box.request("POST", f"/api/v1/lighthouses/{UNKNOWN_ID}/{action}"), 404, "not_found")
        is_problem(
            await box.request("POST", f"/api/v1/lighthouses/{cluster['id']}/{action}"), 404, "not_found"
        )
    resources = await box.request("GET", "/api/v1/resources?window_s=60&step_s=5")
    assert resources.json["step_s"] == 5
    is_problem(await box.request("GET", "/api/v1/resources?step_s=0"), 400, "invalid_request", "step_s")


# Cluster admin


async def test_nodes_are_made_shown_changed_and_deleted(box: Box) -> None:
    cluster = await box.cluster()
    of = f"?cluster_id={cluster['id']}"
    made = await box.made(
        f"/api/v1/nodes{of}", {"name": "pi-7", "groups": ["cam"], "public_key": public_key()}
    )
    token = made.pop("node_token")
    assert token.startswith("egn_")
    assert made["overlay_ip"].endswith("/16")
    path = f"/api/v1/nodes/{made['id']}"
    shown = (await box.request("GET", path)).json
    assert shown == made
    changed = await box.request("PATCH", path, body={"mtu": 1400, "listen_port": 4242})
    assert (changed.json["mtu"], changed.json["listen_port"]) == (1400, 4242)
    assert changed.json["version"] > made["version"]
    assert (await box.request("PATCH", f"{path}/mtu", body={"mtu": 1500})).json["mtu"] == 1500
    is_problem(await box.request("PATCH", path, body={"mtu": 1}), 400, "invalid_request", "mtu", "1280")
    is_problem(await box.request("PATCH", path, body={"id": "x"}), 400, "invalid_request", "'id'")
    duplicate = {"name": "pi-7", "public_key": public_key()}
    is_problem(await box.request("POST", f"/api/v1/nodes{of}", body=duplicate), 409, "conflict", "pi-7")
    same_address = {"name": "other", "overlay_ip": made["overlay_ip"].partition("/")[0]}
    is_problem(await box.request("POST", f"/api/v1/nodes{of}", body=same_address), 409, "conflict")
    for bad in ("10.99.0.1", "10.42.0.0", "nonsense"):
        reply = await box.request("POST", f"/api/v1/nodes{of}", body={"name": "other", "overlay_ip": bad})
        is_problem(reply, 400, "invalid_request", "overlay_ip")
    reply = await box.request("POST", f"/api/v1/nodes{of}", body={"name": "other", "public_key": "nonsense"})
    is_problem(reply, 400, "invalid_request", "public_key")
    rotated = (await box.request("POST", f"{path}/token")).json["node_token"]
    is_problem(await box.request("GET", "/api/v1/config/version", token=token), 401, "unauthorized")
    assert (await box.request("GET", "/api/v1/config/version", token=rotated)).status == 200
    assert (await box.request("DELETE", path)).status == 204
    is_problem(await box.request("GET", "/api/v1/config/version", token=rotated), 401, "unauthorized")
    for method, at, body in (
        ("GET", path, None),
        ("PATCH", path, {"mtu": 1400}),
        ("DELETE", path, None),
        ("POST", f"{path}/token", None),
        ("PUT", f"{path}/relay", None),
        ("PUT", f"{path}/routes", {"routes": []}),
    ):
        is_problem(await box.request(method, at, body=body), 404, "not_found")


async def test_nodes_are_listed_in_pages_with_filters(box: Box) -> None:
    cluster = await box.cluster()
    of = f"cluster_id={cluster['id']}"
    for number in range(5):
        await box.made(
            f"/api/v1/nodes?{of}", {"name": f"pi-{number}", "groups": ["even"] if number % 2 == 0 else []}
        )
    page = (await box.request("GET", f"/api/v1/nodes?{of}&page_size=2&page=2")).json
    assert [node["name"] for node in page["nodes"]] == ["pi-2", "pi-3"]
    assert (page["total"], page["page"], page["page_size"]) == (5, 2, 2)
    names: list[str] = []
    cursor = ""
    while True:
        part = (await box.request("GET", f"/api/v1/nodes?{of}&page_size=2{cursor}")).json
        names += [node["name"] for node in part["nodes"]]
        if part["next_cursor"] is None:
            break
        cursor = f"&cursor={part['next_cursor']}"
    assert names == [f"pi-{number}" for number in range(5)]
    even = (await box.request("GET", f"/api/v1/nodes?{of}&group=even&sort=-name")).json
    assert [node["name"] for node in even["nodes"]] == ["pi-4", "pi-2", "pi-0"]
    assert (await box.request("GET", f"/api/v1/nodes?{of}&state=offline&name=pi-")).json["total"] == 5
    for bad, word in (
        ("page=0", "page"),
        ("page_size=501", "page_size"),
        ("sort=color", "sort"),
        ("role=root", "role"),
        ("cursor=nonsense", "cursor"),
        ("page=9999999999999999999999", "page"),
    ):
        is_problem(await box.request("GET", f"/api/v1/nodes?{of}&{bad}"), 400, "invalid_request", word)


async def test_the_operator_must_name_the_cluster_and_a_foreign_one_does_not_exist(box: Box) -> None:
    mine = await box.cluster("mine")
    theirs = await box.cluster("theirs")
    foreign = await box.enrolled(theirs["id"], "secret")
    boss = (await box.admin(mine["id"]))["node_token"]
    for path in ("nodes", "enrollment-keys", "topology", "routes/cluster", "rollout", "policy"):
        is_problem(await box.request("GET", f"/api/v1/{path}"), 400, "invalid_request", "cluster_id")
        is_problem(await box.request("GET", f"/api/v1/{path}?cluster_id={UNKNOWN_ID}"), 404, "not_found")
        reply = await box.request("GET", f"/api/v1/{path}?cluster_id={theirs['id']}", token=boss)
        is_problem(reply, 404, "not_found")
    for method, body in (("GET", None), ("PATCH", {"mtu": 1400}), ("DELETE", None)):
        path = f"/api/v1/nodes/{foreign['node_id']}"
        is_problem(await box.request(method, path, token=boss, body=body), 404, "not_found")


async def test_a_member_may_not_administer_and_a_reader_may_not_write(box: Box) -> None:
    cluster = await box.cluster()
    member = await box.enrolled(cluster["id"], "pi-7")
    of = f"?cluster_id={cluster['id']}"
    reader = (await box.made("/api/v1/api-tokens", {"scopes": [f"cluster:{cluster['id']}:read"]}))["token"]
    assert (await box.request("GET", f"/api/v1/nodes{of}", token=reader)).status == 200
    for token in (member["node_token"], reader):
        is_problem(
            await box.request("POST", f"/api/v1/nodes{of}", token=token, body={"name": "x"}), 403, "forbidden"
        )
        path = f"/api/v1/nodes/{member['node_id']}"
        is_problem(await box.request("DELETE", path, token=token), 403, "forbidden")
    key = await box.key(cluster["id"])
    is_problem(await box.request("GET", f"/api/v1/nodes{of}", token=key), 403, "forbidden")


async def test_the_policy_is_shown_previewed_replaced_and_refused_by_rule_and_field(box: Box) -> None:
    cluster = await box.cluster()
    of = f"?cluster_id={cluster['id']}"
    anybody = {"port": "any", "proto": "any", "host": "any"}
    shown = await box.request("GET", f"/api/v1/policy{of}")
    assert (shown.status, shown.json) == (200, {"inbound": [anybody], "outbound": [anybody]})
    node = await box.enrolled(cluster["id"], "pi-7")
    wanted = {"inbound": [{"port": 22, "proto": "tcp", "groups": ["ops"]}], "outbound": [anybody]}
    preview = await box.request("PUT", f"/api/v1/policy{of}&dry_run=true", body=wanted)
    assert preview.json["nodes"] == [{"id": node["node_id"], "name": "pi-7"}]
    assert preview.json["signed_again"] == []
    assert (await box.request("GET", f"/api/v1/policy{of}")).json == shown.json
    kept = await box.request("PUT", f"/api/v1/policy{of}", body=wanted)
    assert (kept.status, kept.json) == (200, preview.json)
    assert kept.json["inbound"] == [{"port": "22", "proto": "tcp", "groups": ["ops"]}]
    polled = await box.request("GET", "/api/v1/config/version", token=node["node_token"])
    assert polled.json["version"] > node["version"]
    for rule, words in (
        ({"port": "x", "proto": "tcp", "host": "any"}, "inbound[1].port: 'x' is no port"),
        ({"port": 70000, "proto": "tcp", "host": "any"}, "inbound[1].port: "),
        ({"port": True, "proto": "tcp", "host": "any"}, "inbound[1].port: "),
        ({"port": 1, "proto": "sctp", "host": "any"}, "inbound[1].proto: "),
        ({"port": 1, "proto": "tcp", "cidr": "10.0.0.0/33"}, "inbound[1].cidr: "),
        ({"port": 1, "proto": "tcp", "groups": ["a b"]}, "inbound[1].groups[0]: "),
        ({"port": 1, "proto": "tcp", "hosts": "any"}, "inbound[1]: unknown field 'hosts'"),
        ({"proto": "tcp", "host": "any"}, "inbound[1]: port is required"),
    ):
        body = {"inbound": [anybody, rule], "outbound": []}
        is_problem(await box.request("PUT", f"/api/v1/policy{of}", body=body), 400, "invalid_request", words)
    too_many = {"inbound": [], "outbound": [anybody] * 257}
    reply = await box.request("PUT", f"/api/v1/policy{of}", body=too_many)
    is_problem(reply, 400, "invalid_request", "outbound: must have at most 256 items")
    reply = await box.request("PUT", f"/api/v1/policy{of}&dry_run=perhaps", body=wanted)
    is_problem(reply, 400, "invalid_request", "dry_run")
    is_problem(await box.request("PUT", "/api/v1/policy", body=wanted), 400, "invalid_request", "cluster_id")


async def test_lighthouse_and_relay_are_set_and_unset(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    path = f"/api/v1/nodes/{node['node_id']}"
    body = {"public_addresses": ["203.0.113.9:4243"]}
    shown = (await box.request("PUT", f"{path}/lighthouse", body=body)).json
    assert (shown["is_lighthouse"], shown["public_addresses"], shown["listen_port"]) == (
        True,
        ["203.0.113.9:4243"],
        4243,
    )
    assert (await box.request("PUT", f"{path}/relay")).json["is_relay"] is True
    topology = (await box.request("GET", f"/api/v1/topology?cluster_id={cluster['id']}")).json
    assert [entry["name"] for entry in topology["lighthouses"]] == ["pi-7"]
    assert (await box.request("DELETE", f"{path}/lighthouse")).status == 204
    assert (await box.request("DELETE", f"{path}/relay")).status == 204
    shown = (await box.request("GET", path)).json
    assert (shown["is_lighthouse"], shown["is_relay"]) == (False, False)
    for bad in ([], ["nonsense"], ["203.0.113.9"], ["203.0.113.9:0"]):
        reply = await box.request("PUT", f"{path}/lighthouse", body={"public_addresses": bad})
        is_problem(reply, 400, "invalid_request", "public_addresses")


async def test_enrolment_keys_are_limited_listed_without_the_secret_and_revoked(box: Box) -> None:
    cluster = await box.cluster()
    of = f"?cluster_id={cluster['id']}"
    made = await box.made(f"/api/v1/enrollment-keys{of}", {"uses": 1, "groups": ["cam"], "label": "van"})
    listed = (await box.request("GET", f"/api/v1/enrollment-keys{of}")).json["enrollment_keys"]
    key = made.pop("key")
    assert listed == [made]
    path = f"/api/v1/enrollment-keys/{made['id']}"
    assert (await box.request("DELETE", path)).status == 204
    body = {"name": "pi-7", "public_key": public_key()}
    is_problem(await box.request("POST", "/api/v1/enroll", token=key, body=body), 401, "unauthorized")
    is_problem(await box.request("DELETE", path), 404, "not_found")
    for field, value in (("uses", 0), ("expires_in_s", 0), ("groups", ["a b"])):
        reply = await box.request("POST", f"/api/v1/enrollment-keys{of}", body={field: value})
        is_problem(reply, 400, "invalid_request", field)


async def test_the_rollout_counts_every_node_once(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    await box.made(f"/api/v1/nodes?cluster_id={cluster['id']}", {"name": "never-seen"})
    report = {"applied_version": 0, "state": "ok"}
    assert (await box.request("POST", "/api/v1/report", token=node["node_token"], body=report)).status == 204
    rollout = (await box.request("GET", f"/api/v1/rollout?cluster_id={cluster['id']}")).json
    assert rollout["nodes"] == {"total": 2, "online": 0, "behind": 1, "failed": 0, "offline": 1}
    assert "pi-7" in [entry["name"] for entry in rollout["behind"]]


# A node's own calls


async def test_enrolment_gives_a_node_all_it_needs_once(box: Box) -> None:
    cluster = await box.cluster()
    key = await box.key(cluster["id"])
    body = {"name": "pi-7", "public_key": public_key(), "mtu": 1350, "nebula_version": "1.9.3"}
    reply = await box.request("POST", "/api/v1/enroll", token=key, body=body)
    assert reply.status == 201
    node = reply.json
    assert set(node) == {
        "node_id", "node_token", "tenant_id", "cluster_id", "cluster_name", "overlay_ip", "version", "signers", "servers",
    }  # fmt: skip
    assert node["cluster_id"] == cluster["id"]
    assert node["servers"] == [{"url": f"http://127.0.0.1:{box.port}", "pin": None}]
    assert len(digest_bytes(node["signers"][0])) == 32
    shown = (await box.request("GET", f"/api/v1/nodes/{node['node_id']}")).json
    assert (shown["role"], shown["mtu"], shown["nebula_version"]) == ("member", 1350, "1.9.3")
    # The answer was lost: the same machine asks again, and no use is counted twice.
    again = await box.request("POST", "/api/v1/enroll", token=key, body=body)
    assert again.status == 201
    assert again.json["node_id"] == node["node_id"]
    other = {**body, "name": "pi-8", "public_key": public_key()}
    is_problem(await box.request("POST", "/api/v1/enroll", token=key, body=other), 401, "unauthorized")


async def test_enrolment_refuses_what_is_wrong(box: Box) -> None:
    cluster = await box.cluster()
    await box.enrolled(cluster["id"], "pi-7")
    key = await box.key(cluster["id"], uses=None)
    taken = {"name": "pi-7", "public_key": public_key()}
    is_problem(await box.request("POST", "/api/v1/enroll", token=key, body=taken), 409, "conflict", "pi-7")
    for field, value in (("name", "a b"), ("public_key", "nonsense"), ("mtu", 100), ("role", "admin")):
        body = {"name": "pi-8", "public_key": public_key(), field: value}
        is_problem(
            await box.request("POST", "/api/v1/enroll", token=key, body=body), 400, "invalid_request", field
        )
    node = await box.enrolled(cluster["id"], "pi-9")
    body = {"name": "pi-8", "public_key": public_key()}
    is_problem(
        await box.request("POST", "/api/v1/enroll", token=node["node_token"], body=body), 403, "forbidden"
    )


async def test_an_address_range_that_is_full_is_a_conflict_that_names_it(box: Box) -> None:
    cluster = await box.cluster(network_cidr="10.42.0.0/30")
    path = f"/api/v1/nodes?cluster_id={cluster['id']}"
    await box.made(path, {"name": "only"})
    is_problem(await box.request("POST", path, body={"name": "late"}), 409, "conflict", "10.42.0.0/30")


async def test_a_bundle_is_complete_signed_and_named_by_its_digest(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    token = node["node_token"]
    reply = await box.request("GET", "/api/v1/config/bundle", token=token)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/gzip")
    digest = hashlib.sha256(reply.body).hexdigest()
    assert reply.headers["edgegc-digest"] == f"sha256:{digest}"
    assert reply.headers["edgegc-version"] == str(node["version"])
    tag = f'"{node["version"]}-{digest[:16]}"'
    assert reply.headers["etag"] == tag
    bundle.verify(
        reply.body,
        digest_bytes(reply.headers["edgegc-signature"]),
        signers=[digest_bytes(signer) for signer in node["signers"]],
        cluster_id=cluster["id"],
        node_id=node["node_id"],
        version=node["version"],
    )
    for condition in ({"If-None-Match": tag}, {"If-None-Match": f'"x", W/{tag}'}, {"If-None-Match": "*"}):
        unchanged = await box.request("GET", "/api/v1/config/bundle", token=token, headers=condition)
        assert (unchanged.status, unchanged.headers["etag"]) == (304, tag)
        assert unchanged.headers["edgegc-signature"] == reply.headers["edgegc-signature"]
        assert "content-type" not in unchanged.headers
    path = f"/api/v1/config/bundle?current_version={node['version']}"
    assert (await box.request("GET", path, token=token)).status == 304
    older = f"/api/v1/config/bundle?current_version={node['version'] - 1}"
    assert (await box.request("GET", older, token=token)).status == 200
    is_problem(
        await box.request("GET", "/api/v1/config/bundle?current_version=x", token=token),
        400,
        "invalid_request",
        "current_version",
    )


async def test_a_bundle_can_be_had_in_parts(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    token = node["node_token"]
    whole = await box.request("GET", "/api/v1/config/bundle", token=token)
    size = len(whole.body)

    async def ask(**headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await box.request("GET", "/api/v1/config/bundle", token=token, headers=named)

    first = await ask(Range="bytes=0-99")
    assert (first.status, first.headers["content-range"]) == (206, f"bytes 0-99/{size}")
    rest = await ask(Range="bytes=100-", If_Range=whole.headers["etag"])
    assert first.body + rest.body == whole.body
    for name in ("etag", "edgegc-digest", "edgegc-signature", "edgegc-version"):
        assert rest.headers[name] == whole.headers[name]
    assert (await ask(Range="bytes=-10")).body == whole.body[-10:]
    assert (await ask(Range="bytes=0-0,5-6")).body == whole.body
    other = await ask(Range="bytes=100-", If_Range='"another"')
    assert (other.status, other.body) == (200, whole.body)
    beyond = await ask(Range=f"bytes={size}-")
    is_problem(beyond, 416, "invalid_request", str(size))
    assert beyond.headers["content-range"] == f"bytes */{size}"


async def test_a_node_without_a_key_has_no_bundle_until_it_sends_one(box: Box) -> None:
    cluster = await box.cluster()
    made = await box.made(f"/api/v1/nodes?cluster_id={cluster['id']}", {"name": "bare"})
    token = made["node_token"]
    assert (await box.request("GET", "/api/v1/config/version", token=token)).json == {"version": 0}
    is_problem(await box.request("GET", "/api/v1/config/bundle", token=token), 404, "not_found")
    issued = await box.request("POST", "/api/v1/certificate", token=token, body={"public_key": public_key()})
    assert issued.status == 200
    assert set(issued.json) == {"version", "fingerprint", "not_after"}
    assert (await box.request("GET", "/api/v1/config/bundle", token=token)).status == 200
    reply = await box.request("POST", "/api/v1/certificate", token=token, body={"public_key": "nonsense"})
    is_problem(reply, 400, "invalid_request", "public_key")


async def test_a_report_shows_on_the_node(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    body = {"applied_version": 0, "state": "failed", "error": "no lighthouse", "nebula_version": "1.9.3"}
    assert (await box.request("POST", "/api/v1/report", token=node["node_token"], body=body)).status == 204
    shown = (await box.request("GET", f"/api/v1/nodes/{node['node_id']}")).json
    assert (shown["state"], shown["error"], shown["nebula_version"]) == ("failed", "no lighthouse", "1.9.3")
    for field, value in (
        ("state", "fine"),
        ("applied_version", -1),
        ("applied_version", 2**70),
        ("error", "x" * 3000),
    ):
        reply = await box.request(
            "POST", "/api/v1/report", token=node["node_token"], body={**body, field: value}
        )
        is_problem(reply, 400, "invalid_request", field)
    is_problem(await box.request("POST", "/api/v1/report", body=body), 403, "forbidden")


async def test_own_routes_are_bounded_and_the_clusters_are_read_by_everybody(box: Box) -> None:
    cluster = await box.cluster(allowed_routes=["10.0.0.0/8"])
    node = await box.enrolled(cluster["id"], "pi-7")
    other = await box.enrolled(cluster["id"], "pi-8")
    token = node["node_token"]
    routes = {"routes": ["10.20.0.0/16"]}
    assert (await box.request("PUT", "/api/v1/routes", token=token, body=routes)).json == routes
    assert (await box.request("GET", "/api/v1/routes", token=token)).json == routes
    entry = {"node_id": node["node_id"], "name": "pi-7", **routes}
    listed = await box.request("GET", "/api/v1/routes/cluster", token=other["node_token"])
    assert listed.json == {"routes": [entry]}
    topology = await box.request("GET", "/api/v1/topology", token=other["node_token"])
    assert topology.json["routes"] == [entry]
    reply = await box.request("PUT", "/api/v1/routes", token=token, body={"routes": ["192.168.5.0/24"]})
    is_problem(reply, 403, "forbidden", "192.168.5.0/24")
    for bad, word in (
        ("10.20.0.0/99", "10.20.0.0/99"),
        ("nonsense", "nonsense"),
        ("0.0.0.0/0", "default route"),
        ("10.42.3.0/24", "10.42.3.0/24"),
    ):
        reply = await box.request("PUT", "/api/v1/routes", token=token, body={"routes": [bad]})
        is_problem(reply, 400, "invalid_request", word)
    same = await box.request("PUT", "/api/v1/routes", token=other["node_token"], body=routes)
    is_problem(same, 409, "conflict", "10.20.0.0/16")
    path = f"/api/v1/nodes/{other['node_id']}/routes"
    assert (await box.request("PUT", path, body={"routes": ["192.168.5.0/24"]})).json["routes"] == [
        "192.168.5.0/24"
    ]


async def test_the_topology_has_an_etag(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    token = node["node_token"]
    first = await box.request("GET", "/api/v1/topology", token=token)
    assert set(first.json) == {"cluster_id", "version", "lighthouses", "relays", "routes"}
    condition = {"If-None-Match": first.headers["etag"]}
    assert (await box.request("GET", "/api/v1/topology", token=token, headers=condition)).status == 304
    await box.request("PUT", f"/api/v1/nodes/{node['node_id']}/relay")
    relayed = await box.request("GET", "/api/v1/topology", token=token, headers=condition)
    condition = {"If-None-Match": relayed.headers["etag"]}
    await box.request("PATCH", f"/api/v1/nodes/{node['node_id']}", body={"name": "renamed"})
    changed = await box.request("GET", "/api/v1/topology", token=token, headers=condition)
    assert (changed.status, len(changed.json["relays"])) == (200, 1)
