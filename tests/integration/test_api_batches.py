"""Batches of nodes over HTTP: what they answer, and how a wrong item is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.box import box_settings, public_key, running_box

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_batch_is_answered_like_as_many_nodes(tmp_path: Path) -> None:
    async with running_box(tmp_path / "data") as box:
        cluster = await box.cluster()
        path = f"/api/v1/nodes/batch?cluster_id={cluster['id']}"
        items = [{"name": f"pi-{n}", "mtu": 1400, "public_key": public_key()} for n in range(3)]
        made = (await box.made(path, {"nodes": items}))["nodes"]
        for node in made:
            shown = (await box.request("GET", f"/api/v1/nodes/{node['id']}")).json
            assert node == shown | {"node_token": node["node_token"]}
            polled = await box.request("GET", "/api/v1/config/version", token=node["node_token"])
            assert polled.json == {"version": node["version"]}


@pytest.mark.parametrize(
    ("items", "status", "detail"),
    [
        ([], 400, "nodes: must have at least 1 items"),
        ([{"name": "a"}] * 1001, 400, "nodes: must have at most 1000 items"),
        ([{"name": "a"}, {"name": "b", "mtu": 9}], 400, "nodes[1].mtu: must be at least 1280"),
        ([{"name": "a"}, {"nom": "b"}], 400, "nodes[1]: unknown field 'nom'"),
        (
            [{"name": "a"}, {"name": "a"}],
            409,
            "nodes[1].name: 'a' is the name of nodes[0] too; no node was made",
        ),
    ],
)
async def test_a_wrong_item_is_told_by_index_and_field(
    items: list[dict[str, object]], status: int, detail: str, tmp_path: Path
) -> None:
    async with running_box(tmp_path / "data") as box:
        cluster = await box.cluster()
        reply = await box.request(
            "POST", f"/api/v1/nodes/batch?cluster_id={cluster['id']}", body={"nodes": items}
        )
        assert (reply.status, reply.json["detail"]) == (status, detail)
        assert (await box.request("GET", f"/api/v1/nodes?cluster_id={cluster['id']}")).json["total"] == 0


async def test_a_thousand_keyed_nodes_fit_the_default_limit_of_a_body(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with running_box(data, box_settings(data, limits={"json_body_bytes": 1024 * 1024})) as box:
        cluster = await box.cluster()
        key = public_key()
        items = [{"name": f"{n:063}", "groups": ["a" * 63] * 1, "public_key": key} for n in range(1000)]
        made = await box.made(f"/api/v1/nodes/batch?cluster_id={cluster['id']}", {"nodes": items})
        assert len(made["nodes"]) == 1000
