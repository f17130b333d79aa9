"""Limits and compression, against a whole daemon over real sockets."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from edgegc.control.credentials import mint
from tests.box import UNKNOWN_ID, box_settings, public_key, running_box

if TYPE_CHECKING:
    from pathlib import Path

PROXIED = {"trusted_proxies": ("127.0.0.0/8",)}


async def test_a_node_that_asks_too_often_is_told_when_to_come_back_and_its_neighbour_is_not(
    tmp_path: Path,
) -> None:
    async with running_box(
        tmp_path / "data", box_settings(tmp_path / "data", limits={"node_rate": 0.1, "node_burst": 5})
    ) as box:
        cluster = await box.cluster()
        busy, calm = [(await box.enrolled(cluster["id"], name))["node_token"] for name in ("a", "b")]
        for _ in range(5):
            assert (await box.request("GET", "/api/v1/config/version", token=busy)).status == 200
        refused = await box.request("GET", "/api/v1/config/version", token=busy)
        assert (refused.status, refused.json["code"]) == (429, "rate_limited")
        assert refused.json["detail"] == "too many requests of this node"
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert (await box.request("GET", "/api/v1/config/version", token=calm)).status == 200
        metrics = (await box.request("GET", "/metrics")).body.decode()
        assert 'edgegc_http_rate_limited_total{limit="node"} 1' in metrics


async def test_enrolments_of_an_address_are_limited_and_no_use_of_the_key_is_lost(tmp_path: Path) -> None:
    async with running_box(
        tmp_path / "data",
        box_settings(tmp_path / "data", limits={"enrolment_rate": 0.01, "enrolment_burst": 10}),
    ) as box:
        cluster = await box.cluster()
        key = await box.key(cluster["id"], uses=100)
        for number in range(10):
            body = {"name": f"pi-{number}", "public_key": public_key()}
            await box.made("/api/v1/enroll", body, token=key)
        body = {"name": "pi-10", "public_key": public_key()}
        refused = await box.request("POST", "/api/v1/enroll", body=body, token=key)
        assert (refused.status, "retry-after" in refused.headers) == (429, True)
        keys = (await box.request("GET", f"/api/v1/enrollment-keys?cluster_id={cluster['id']}")).json
        assert keys["enrollment_keys"][0]["used"] == 10


async def test_who_guesses_is_kept_away_and_who_has_a_good_token_at_the_same_address_is_not(
    tmp_path: Path,
) -> None:
    settings = box_settings(tmp_path / "data", api=PROXIED)
    async with running_box(tmp_path / "data", settings) as box:
        cluster = await box.cluster()
        good = (await box.enrolled(cluster["id"], "pi-7"))["node_token"]
        guess = mint("egn", UNKNOWN_ID)

        async def ask(token: str | None, source: str) -> int:
            reply = await box.request(
                "GET", "/api/v1/topology", over="tcp", token=token, headers={"X-Forwarded-For": source}
            )
            if reply.status == 429:
                assert reply.json["detail"] == "too many failed authentications from this address"
                assert 1 <= int(reply.headers["retry-after"]) <= 60
            return reply.status

        assert [await ask(guess, "192.0.2.1") for _ in range(10)] == [401] * 10
        assert await ask(guess, "192.0.2.1") == 429
        assert await ask("malformed", "192.0.2.1") == 429
        # A header that a client wrote itself, in front of the one that the proxy wrote.
        assert await ask(guess, "192.0.2.9, 192.0.2.1") == 429
        assert await ask(good, "192.0.2.1") == 200
        assert await ask(None, "192.0.2.1") == 401
        assert await ask(guess, "192.0.2.2") == 401
        assert [await ask(guess, f"2001:db8::{n}") for n in range(1, 12)] == [401] * 10 + [429]
        assert await ask(guess, "2001:db8:0:1::1") == 401
        metrics = (await box.request("GET", "/metrics")).body.decode()
        assert "edgegc_http_blocked_addresses 2" in metrics


async def test_who_is_no_trusted_proxy_can_t_speak_for_others(tmp_path: Path) -> None:
    async with running_box(tmp_path / "data") as box:
        guess = mint("ega", UNKNOWN_ID)
        statuses = [
            (
                await box.request(
                    "GET", "/api/v1/tenants", token=guess, headers={"X-Forwarded-For": f"192.0.2.{number}"}
                )
            ).status
            for number in range(11)
        ]
        assert statuses == [401] * 10 + [429]


async def test_with_limits_off_nobody_is_refused(tmp_path: Path) -> None:
    settings = box_settings(tmp_path / "data", limits={"enabled": False})
    async with running_box(tmp_path / "data", settings) as box:
        guess = mint("egk", UNKNOWN_ID)
        for _ in range(60):
            assert (await box.request("GET", "/api/v1/topology", token=guess)).status == 401


async def test_long_json_is_gzipped_for_whom_asks_and_nothing_else_is(tmp_path: Path) -> None:
    async with running_box(tmp_path / "data") as box:
        cluster = await box.cluster()
        of = f"?cluster_id={cluster['id']}"
        node = await box.enrolled(cluster["id"], "pi-7")
        asks = {"Accept-Encoding": "br;q=1, gzip;q=0.8"}
        short = await box.request("GET", f"/api/v1/nodes{of}", headers=asks)
        assert "content-encoding" not in short.headers
        for number in range(10):
            await box.made(f"/api/v1/nodes{of}", {"name": f"node-{number}"})
        plain = await box.request("GET", f"/api/v1/nodes{of}")
        packed = await box.request("GET", f"/api/v1/nodes{of}", headers=asks)
        assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["content-type"] == "application/json"
        assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body)
        assert gzip.decompress(packed.body) == plain.body

        routes = [f"192.168.{number}.0/24" for number in range(100)]
        await box.request("PUT", f"/api/v1/nodes/{node['node_id']}/routes", body={"routes": routes})
        topology = await box.request("GET", f"/api/v1/topology{of}", headers=asks)
        assert topology.headers["content-encoding"] == "gzip"
        assert topology.headers["etag"].startswith('W/"')
        again = {"If-None-Match": topology.headers["etag"]} | asks
        assert (await box.request("GET", f"/api/v1/topology{of}", headers=again)).status == 304
        bundle = await box.request("GET", "/api/v1/config/bundle", token=node["node_token"], headers=asks)
        assert "content-encoding" not in bundle.headers
        head = await box.request("HEAD", f"/api/v1/nodes{of}", headers=asks)
        assert head.headers["content-encoding"] == "gzip"
