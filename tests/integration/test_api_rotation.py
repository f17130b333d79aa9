"""The rotation of a cluster's authority over HTTP and on the command line, against a whole daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.box import UNKNOWN_ID, Box, running_box

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path / "data") as running:
        yield running


async def test_a_rotation_over_http_is_refused_while_nodes_are_missing_and_can_be_forced(box: Box) -> None:
    cluster = await box.cluster()
    path = f"/api/v1/clusters/{cluster['id']}/ca/rotation"
    before = await box.request("GET", path)
    assert before.status == 200
    assert before.json == {
        "phase": "none",
        "old_fingerprint": cluster["ca"]["fingerprint"],
        "new_fingerprint": None,
        "waiting_for": [],
        "ready": True,
    }
    node = await box.enrolled(cluster["id"], "one")
    prepared = await box.request("POST", path, body={"step": "prepare"})
    assert prepared.status == 200
    assert prepared.json["phase"] == "prepared"
    assert prepared.json["waiting_for"] == [{"id": node["node_id"], "name": "one"}]
    refused = await box.request("POST", path, body={"step": "issue"})
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    assert "waiting for one" in refused.json["detail"]
    for step, phase in (("issue", "issued"), ("retire", "none")):
        forced = await box.request("POST", path, body={"step": step, "force": True})
        assert (forced.status, forced.json["phase"]) == (200, phase)
    assert (await box.request("GET", path)).json["old_fingerprint"] == prepared.json["new_fingerprint"]


async def test_what_is_wrong_with_a_rotation_is_said(box: Box) -> None:
    cluster = await box.cluster()
    path = f"/api/v1/clusters/{cluster['id']}/ca/rotation"
    assert (await box.request("POST", path, body={"step": "restart"})).status == 400
    assert (await box.request("POST", path, body={})).status == 400
    assert (await box.request("POST", path, body={"step": "retire"})).status == 409
    assert (await box.request("GET", f"/api/v1/clusters/{UNKNOWN_ID}/ca/rotation")).status == 404
    node = await box.admin(cluster["id"])
    assert (await box.request("GET", path, token=node["node_token"])).status == 403
