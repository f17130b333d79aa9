"""Uploaded bundles over real sockets: what is taken and refused, the history, and what a node downloads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from edgegc.control import body_cache, upload_desk
from edgegc.model.manifest import signed_text
from edgegc.nebula import bundle
from edgegc.settings import Bundles
from tests import zoo
from tests.box import Box, box_settings, digest_bytes, running_box
from tests.raw_http import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.raw_http import Reply

MIB = 1024 * 1024
PATH = "/api/v1/config/bundle"
UNLIMITED = {"enabled": False}


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running_box(tmp_path / "data", box_settings(tmp_path / "data", limits=UNLIMITED)) as running:
        yield running


async def uploaded_cluster(box: Box, name: str = "field") -> str:
    return str((await box.cluster(name, mode="uploaded"))["id"])


async def upload(box: Box, cluster_id: str, body: bytes, **more: Any) -> Reply:
    headers = {"Content-Type": "application/gzip"}
    return await box.request("POST", f"{PATH}?cluster_id={cluster_id}", body=body, headers=headers, **more)


async def download(box: Box, node: dict[str, Any], **headers: str) -> Reply:
    return await box.request("GET", PATH, token=node["node_token"], headers=headers)


async def history(box: Box, cluster_id: str) -> list[tuple[int, bool]]:
    found = (await box.request("GET", f"/api/v1/bundles?cluster_id={cluster_id}")).json["bundles"]
    return [(each["version"], each["active"]) for each in found]


async def test_a_bundle_is_taken_verbatim_and_signed_for_each_node(box: Box) -> None:
    cluster_id = await uploaded_cluster(box)
    one, two = await box.enrolled(cluster_id, "a"), await box.enrolled(cluster_id, "b")
    assert (await download(box, one)).status == 404
    body = zoo.sized(700_000)
    made = await upload(box, cluster_id, body)
    assert made.status == 201, made.body
    assert set(made.json) == {"version", "digest", "size", "uploaded_at", "active"}
    digest = hashlib.sha256(body).hexdigest()
    assert (made.json["digest"], made.json["size"], made.json["active"]) == (digest, len(body), True)
    version = made.json["version"]
    signatures = set()
    for node in (one, two):
        asked = await box.request("GET", "/api/v1/config/version", token=node["node_token"])
        assert asked.json == {"version": version}
        got = await download(box, node)
        assert (got.status, got.body) == (200, body)
        assert got.headers["content-type"] == "application/gzip"
        assert got.headers["content-length"] == str(len(body))
        assert got.headers["edgegc-digest"] == f"sha256:{digest}"
        assert got.headers["etag"] == f'"{version}-{digest[:16]}"'
        bundle.verify(
            body,
            digest_bytes(got.headers["edgegc-signature"]),
            signers=[digest_bytes(signer) for signer in node["signers"]],
            cluster_id=cluster_id,
            node_id=node["node_id"],
            version=version,
        )
        signatures.add(got.headers["edgegc-signature"])
    assert len(signatures) == 2
    assert signed_text(cluster_id=cluster_id, node_id="x", version=version, digest=digest)


async def test_parts_and_tags_of_a_download_are_those_of_the_whole(box: Box) -> None:
    cluster_id = await uploaded_cluster(box)
    node = await box.enrolled(cluster_id, "a")
    body = zoo.sized(3 * body_cache.PIECE_BYTES + 1000)
    assert (await upload(box, cluster_id, body)).status == 201
    whole = await download(box, node)
    edge = body_cache.PIECE_BYTES
    for begin, end in ((0, 1), (edge - 1, edge + 1), (10, 3 * edge), (edge, 2 * edge), (5, len(body))):
        got = await download(box, node, Range=f"bytes={begin}-{end - 1}")
        assert (got.status, got.body) == (206, body[begin:end])
        assert got.headers["content-range"] == f"bytes {begin}-{end - 1}/{len(body)}"
        assert got.headers["edgegc-signature"] == whole.headers["edgegc-signature"]
    assert (await download(box, node, Range=f"bytes={len(body)}-")).status == 416
    same = await download(box, node, **{"If-None-Match": whole.headers["etag"]})
    assert (same.status, same.body) == (304, b"")
    assert same.headers["edgegc-signature"] == whole.headers["edgegc-signature"]
    changed = await download(box, node, **{"Range": "bytes=0-3", "If-Range": '"other"'})
    assert (changed.status, len(changed.body)) == (200, len(body))
    head = await box.request("HEAD", PATH, token=node["node_token"])
    assert (head.status, head.headers["content-length"]) == (200, str(len(body)))


async def test_history_download_activate_and_delete(box: Box) -> None:
    cluster_id = await uploaded_cluster(box)
    node = await box.enrolled(cluster_id, "a")
    bodies = [zoo.sized(100_000, seed) for seed in range(3)]
    versions = [(await upload(box, cluster_id, body)).json["version"] for body in bodies]
    assert versions == sorted(set(versions))
    assert await history(box, cluster_id) == [(v, v == versions[2]) for v in reversed(versions)]
    where = f"?cluster_id={cluster_id}"
    old = await box.request("GET", f"/api/v1/bundles/{versions[0]}{where}")
    assert (old.status, old.body) == (200, bodies[0])
    again = await box.request("POST", f"/api/v1/bundles/{versions[0]}/activate{where}")
    assert again.status == 201
    newest = again.json["version"]
    assert newest > versions[2]
    assert again.json["digest"] == hashlib.sha256(bodies[0]).hexdigest()
    got = await download(box, node)
    assert (got.body, got.headers["edgegc-version"]) == (bodies[0], str(newest))
    # The content that is active: nothing changes, by whichever way it comes.
    for same in (
        await box.request("POST", f"/api/v1/bundles/{versions[0]}/activate{where}"),
        await upload(box, cluster_id, bodies[0]),
    ):
        assert (same.status, same.json["version"]) == (200, newest)
    for version, status in ((newest, 409), (versions[0], 204), (versions[0], 404), (99, 404), ("x", 404)):
        gone = await box.request("DELETE", f"/api/v1/bundles/{version}{where}")
        assert gone.status == status, version
    # Its content lives on in the version that was made of it.
    assert (await download(box, node)).body == bodies[0]
    for method, path in (("GET", "/1"), ("POST", "/1/activate"), ("GET", "/" + "9" * 30)):
        assert (await box.request(method, f"/api/v1/bundles{path}{where}")).status == 404


async def test_only_the_newest_are_kept_and_never_less_than_the_active_one(tmp_path: Path) -> None:
    settings = box_settings(tmp_path / "data", limits=UNLIMITED)
    kept = type(settings)(
        data=settings.data, api=settings.api, limits=settings.limits, bundles=Bundles(keep=2)
    )
    async with running_box(tmp_path / "data", kept) as box:
        cluster_id = await uploaded_cluster(box)
        versions = [
            (await upload(box, cluster_id, zoo.sized(50_000, seed))).json["version"] for seed in range(4)
        ]
        assert await history(box, cluster_id) == [(versions[3], True), (versions[2], False)]
        gone = await box.request("GET", f"/api/v1/bundles/{versions[0]}?cluster_id={cluster_id}")
        assert gone.status == 404


async def test_a_managed_cluster_has_no_uploaded_bundles(box: Box) -> None:
    cluster_id = (await box.cluster())["id"]
    where = f"?cluster_id={cluster_id}"
    for method, path in (
        ("POST", PATH),
        ("GET", "/api/v1/bundles"),
        ("GET", "/api/v1/bundles/1"),
        ("DELETE", "/api/v1/bundles/1"),
        ("POST", "/api/v1/bundles/1/activate"),
    ):
        reply = await box.request(method, path + where, body=b"x" if method == "POST" else None)
        assert (reply.status, reply.json["code"]) == (409, "conflict"), path


async def test_only_admins_of_the_cluster_upload_and_download_bodies(box: Box) -> None:
    cluster_id, other = await uploaded_cluster(box), await uploaded_cluster(box, "other")
    member = (await box.enrolled(cluster_id, "m"))["node_token"]
    made = await box.made(f"/api/v1/nodes?cluster_id={cluster_id}", {"name": "boss", "role": "admin"})
    admin = made["node_token"]
    assert made["signers"]
    read = (await box.made("/api/v1/api-tokens", {"scopes": [f"cluster:{cluster_id}:read"]}))["token"]
    version = (await upload(box, cluster_id, zoo.bundle(), token=admin)).json["version"]
    for token, uploading, listing, fetching in (
        (admin, 200, 200, 200),
        (member, 403, 403, 403),
        (read, 403, 200, 403),
        ("egn_nobody", 401, 401, 401),
    ):
        assert (await upload(box, cluster_id, zoo.bundle(), token=token)).status == uploading
        for path, status in (("", listing), (f"/{version}", fetching)):
            reply = await box.request("GET", f"/api/v1/bundles{path}?cluster_id={cluster_id}", token=token)
            assert reply.status == status
    assert (await upload(box, other, zoo.bundle(), token=admin)).status == 404


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(box: Box) -> None:
    cluster_id = await uploaded_cluster(box)
    client = await box.client("admin")
    await client.send(
        f"POST {PATH}?cluster_id={cluster_id} HTTP/1.1\r\nHost: x\r\nContent-Length: {11 * MIB}\r\n\r\n".encode()
    )
    reply = await client.reply()
    assert (reply.status, reply.json["code"]) == (413, "payload_too_large")
    assert "10485760" in reply.json["detail"]


async def test_a_body_without_a_length_is_counted_while_it_comes(box: Box) -> None:
    cluster_id = await uploaded_cluster(box)
    client = await box.client("admin")
    await client.send(
        f"POST {PATH}?cluster_id={cluster_id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    chunk = b"10000\r\n" + zoo.sized(70_000)[:65_536] + b"\r\n"
    for _ in range(12 * MIB // 65_536):
        await client.send(chunk)
    reply = await client.reply()
    assert (reply.status, reply.json["code"]) == (413, "payload_too_large")


async def test_an_upload_whose_client_leaves_leaves_nothing(box: Box) -> None:
    cluster_id = await uploaded_cluster(box)
    client = await box.client("admin")
    body = zoo.sized(2 * MIB)
    await client.send(
        f"POST {PATH}?cluster_id={cluster_id} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body[:MIB]
    )
    await client.aclose()
    assert (await upload(box, cluster_id, body)).status == 201
    assert len(await history(box, cluster_id)) == 1


async def test_a_cluster_uploads_only_so_often(tmp_path: Path) -> None:
    async with running_box(tmp_path / "data") as box:
        cluster_id, other = await uploaded_cluster(box), await uploaded_cluster(box, "other")
        for _ in range(upload_desk.PER_MINUTE):
            assert (await upload(box, cluster_id, b"no gzip")).status == 415
        refused = await upload(box, cluster_id, zoo.bundle())
        assert (refused.status, refused.json["code"]) == (429, "rate_limited")
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert (await upload(box, other, zoo.bundle())).status == 201


async def test_the_whole_zoo_is_refused_and_leaves_nothing(box: Box) -> None:
    cluster_id = await uploaded_cluster(box)

    def files() -> set[str]:
        return {path.name for path in box.data.iterdir()}

    before = files()
    for name, (make, status, words) in zoo.ZOO.items():
        if status == 413:
            continue
        reply = await upload(box, cluster_id, make())
        assert reply.status == status, (name, reply.body)
        assert words in reply.json["detail"], name
        assert reply.headers["content-type"] == "application/problem+json"
    assert files() == before
    assert await history(box, cluster_id) == []
    assert (await upload(box, cluster_id, zoo.bundle())).json["version"] == 1
    await RawClient.close_all()
