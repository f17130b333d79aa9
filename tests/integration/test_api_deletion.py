"""Deleting tenants and clusters over HTTP."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests import zoo
from tests.box import UNKNOWN_ID, Box, running_box

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path / "data") as running:
        yield running


async def test_a_cluster_and_its_tenant_go_when_asked_to_cascade(box: Box) -> None:
    cluster = await box.cluster()
    node = await box.enrolled(cluster["id"], "pi-7")
    for path in (f"/api/v1/clusters/{cluster['id']}", f"/api/v1/tenants/{cluster['tenant_id']}"):
        for query in ("", "?cascade=false"):
            refused = await box.request("DELETE", path + query)
            assert (refused.status, refused.json["code"]) == (409, "conflict")
            assert refused.json["unless"] == "cascade"
        assert (await box.request("DELETE", f"{path}?cascade=perhaps")).status == 400
        assert (await box.request("DELETE", f"{path}?casade=true")).status == 400
    reply = await box.request("DELETE", f"/api/v1/clusters/{cluster['id']}?cascade=true")
    assert (reply.status, reply.body) == (204, b"")
    assert (await box.request("GET", f"/api/v1/clusters/{cluster['id']}")).status == 404
    assert (await box.request("GET", "/api/v1/config/version", token=node["node_token"])).status == 401
    assert (await box.request("DELETE", f"/api/v1/tenants/{cluster['tenant_id']}")).status == 204
    assert (await box.request("GET", "/api/v1/tenants")).json["tenants"] == []


@pytest.mark.parametrize("path", ["/api/v1/clusters/", "/api/v1/tenants/"])
async def test_what_is_not_there_can_not_be_deleted(box: Box, path: str) -> None:
    assert (await box.request("DELETE", path + UNKNOWN_ID)).status == 404


@pytest.mark.parametrize("field", ["tenant_id", "mode", "network_cidr"])
async def test_what_no_patch_can_change_is_refused_with_that_reason(box: Box, field: str) -> None:
    cluster = await box.cluster()
    reply = await box.request("PATCH", f"/api/v1/clusters/{cluster['id']}", body={field: cluster[field]})
    assert (reply.status, reply.json["detail"]) == (400, f"{field}: can't be changed")


async def test_an_uploaded_cluster_goes_with_its_nodes_and_all_of_its_bundles(box: Box) -> None:
    cluster = await box.cluster(mode="uploaded")
    node = await box.enrolled(cluster["id"], "pi-7")
    uploading = f"/api/v1/config/bundle?cluster_id={cluster['id']}"
    for size in (40_000, 50_000):
        headers = {"Content-Type": "application/gzip"}
        reply = await box.request("POST", uploading, body=zoo.sized(size), headers=headers)
        assert reply.status == 201, reply.body
    again = f"/api/v1/bundles/{reply.json['version'] - 1}/activate?cluster_id={cluster['id']}"
    assert (await box.request("POST", again)).status in (200, 201)
    assert (await box.request("DELETE", f"/api/v1/clusters/{cluster['id']}?cascade=true")).status == 204
    assert (await box.request("GET", "/api/v1/config/bundle", token=node["node_token"])).status == 401
    with closing(sqlite3.connect(f"file:{box.data}/edgegc.db?mode=ro", uri=True)) as connection:
        for table in ("bundles", "bundle_bodies", "nodes", "signers"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (0,), table
