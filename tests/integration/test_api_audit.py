"""The audit log over HTTP: request ids end to end, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.box import running_box

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_request_is_found_in_the_log_by_its_id_and_failures_by_their_number(tmp_path: Path) -> None:
    async with running_box(tmp_path / "data") as box:
        cluster = await box.cluster()
        member = await box.enrolled(cluster["id"], "pi-7")
        path = f"/api/v1/nodes/{member['node_id']}"
        await box.request("PATCH", path, body={"mtu": 1400}, headers={"X-Request-ID": "find-me"})
        for _ in range(3):
            assert (await box.request("GET", "/api/v1/tenants", token="nonsense")).status == 401
        for _ in range(2):
            assert (await box.request("GET", path, token=member["node_token"])).status == 403
        reply = await box.request("GET", "/api/v1/audit?page_size=500")
        assert reply.json["next_cursor"] is None
        entries = reply.json["audit"]
        (changed,) = [entry for entry in entries if entry["request_id"] == "find-me"]
        assert (changed["action"], changed["target"]) == ("node.update", member["node_id"])
        assert (changed["actor"], changed["source"]) == ("operator:socket", "socket")
        (failed,) = [entry for entry in entries if entry["action"] == "authentication.failed"]
        assert (failed["target"], failed["source"]) == ("malformed token (3 times)", "127.0.0.1")
        (refused,) = [entry for entry in entries if entry["action"] == "request.forbidden"]
        assert refused["target"] == "GET /api/v1/nodes/<node_id> (2 times)"
        assert refused["actor"] == f"node:{member['node_id']}"
        for entry in entries:
            assert member["node_token"] not in str(entry)
        assert (await box.request("GET", "/api/v1/audit", token=member["node_token"])).status == 403
        assert (await box.request("GET", "/api/v1/audit?cursor=x")).status == 400
