"""TENANT_ISOLATION over HTTP: what belongs to another tenant is answered exactly as if it were not there.

That nobody changes anything of another tenant's is held by ``test_api_permissions.py``, for every endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgegc.api import operation
from edgegc.api.app import create_app
from tests import zoo
from tests.box import UNKNOWN_ID, Box, box_settings, public_key, running_box
from tests.control_plane import control_plane

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.api.operation import Operation
    from tests.raw_http import Reply

UNKNOWN_VERSION = "4000000"
BODIES: dict[str, Any] = {
    "NodeCreate": {"name": "new"},
    "NodeBatch": {"nodes": [{"name": "new"}]},
    "NodeUpdate": {"mtu": 1400},
    "MtuUpdate": {"mtu": 1400},
    "LighthouseSet": {"public_addresses": ["203.0.113.9:4242"]},
    "Routes": {"routes": ["192.168.7.0/24"]},
    "Policy": {"inbound": [], "outbound": []},
    "EnrolmentKeyCreate": {},
    "CaRotationStep": {"step": "prepare"},
    "ClusterUpdate": {"supersede_grace_s": 60},
    "TenantUpdate": {"name": "new"},
}
"""A body that is good, by the struct that a route takes."""


async def operations() -> list[tuple[str, str, Operation]]:
    async with control_plane() as plane:
        app = create_app(plane.control)
        return [(method, rule.rule, found) for rule, method, found in operation.operations(app)]


class Tenant:
    """A tenant's cluster, ids of what is in it, words that only it knows, and its credentials but the operator's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.words: set[str] = set()

    async def make(self, box: Box, mode: str, network: str, *, bundles: int = 1) -> None:
        cluster = await box.cluster(f"{self.name}-cluster", mode=mode, network_cidr=network)
        here = f"?cluster_id={cluster['id']}"
        node = await box.enrolled(cluster["id"], f"{self.name}-node")
        role = {"name": f"{self.name}-admin", "role": "admin"}
        admin = await box.made(f"/api/v1/nodes{here}", role)
        label = {"label": f"{self.name}-key"}
        key = await box.made(f"/api/v1/enrollment-keys{here}", label)
        scopes = {level: f"cluster:{cluster['id']}:{level}" for level in ("admin", "read")}
        made = {
            level: await box.made("/api/v1/api-tokens", {"scopes": [scope]})
            for level, scope in scopes.items()
        }
        self.tokens = {
            "member": node["node_token"],
            "admin node": admin["node_token"],
            "admin token": made["admin"]["token"],
            "read token": made["read"]["token"],
            "enrolment key": key["key"],
        }
        self.ids = {
            "cluster_id": cluster["id"],
            "tenant_id": cluster["tenant_id"],
            "node_id": node["node_id"],
            "key_id": key["id"],
            "token_id": made["read"]["id"],
            "version": str(bundles),
            "name": "edgegc-20260101T000000Z.db",
        }
        self.words = {*self.ids.values(), f"{self.name}-", admin["id"]}
        self.words -= {self.ids["version"], self.ids["name"]}
        for number in range(bundles if mode == "uploaded" else 0):
            body = zoo.with_files(**{"notes_txt": f"{self.name}, {number}".encode()})
            headers = {"Content-Type": "application/gzip"}
            made_bundle = await box.made(f"/api/v1/config/bundle{here}", body, headers=headers)
            assert made_bundle["version"] == number + 1
            self.words.add(made_bundle["digest"])


async def ask(
    box: Box, method: str, rule: str, found: Operation, ids: dict[str, str], token: str, *, named: bool
) -> Reply:
    """Send a request about what ``ids`` name; ``named`` says whether the cluster is named where it may be."""
    path = rule
    for part in [part for part in rule.split("/") if part.startswith("<")]:
        path = path.replace(part, ids[part[1:-1].rpartition(":")[2]])
    if named and found.query is not None and "cluster_id" in found.query.__struct_fields__:
        path += f"?cluster_id={ids['cluster_id']}"
    body: Any = None
    headers = {"X-Forwarded-For": "192.0.2.1"}
    if isinstance(found.takes, str):
        body, headers["Content-Type"] = b"\x1f\x8b", found.takes
    elif found.takes is not None:
        body = BODIES.get(found.takes.__name__, {"public_key": public_key()})
    return await box.request(method, path, over="tcp", token=token, body=body, headers=headers)


def names_something(rule: str, found: Operation) -> bool:
    """Whether a route takes an id of a tenant's anything."""
    named = {part[1:-1].rpartition(":")[2] for part in rule.split("/") if part.startswith("<")}
    in_query = found.query is not None and "cluster_id" in found.query.__struct_fields__
    return in_query or bool(named & {"cluster_id", "tenant_id", "node_id", "key_id", "token_id"})


@pytest.mark.parametrize("mode", ["managed", "uploaded"])
async def test_what_is_another_tenants_is_answered_as_what_is_not_there(tmp_path: Path, mode: str) -> None:
    settings = box_settings(tmp_path / "data", limits={"enabled": False})
    async with running_box(tmp_path / "data", settings) as box:
        mine, theirs = Tenant("mine"), Tenant("theirs")
        await mine.make(box, mode, "10.42.0.0/16")
        await theirs.make(box, mode, "10.43.0.0/16", bundles=2)
        nobodys = dict.fromkeys(theirs.ids, UNKNOWN_ID) | {
            "version": UNKNOWN_VERSION,
            "name": theirs.ids["name"],
        }
        wrong: list[tuple[str, str, str, Any]] = []
        asked = 0
        for method, rule, found in await operations():
            if found.who == "open" or not names_something(rule, found):
                continue
            for kind, token in mine.tokens.items():
                about_theirs = await ask(box, method, rule, found, theirs.ids, token, named=True)
                about_nobodys = await ask(box, method, rule, found, nobodys, token, named=True)
                asked += 1
                said = [(reply.status, reply.json["detail"]) for reply in (about_theirs, about_nobodys)]
                if about_theirs.status not in (403, 404) or said[0] != said[1]:
                    wrong.append((method, rule, kind, said))
        assert asked > 100
        assert wrong == []


@pytest.mark.parametrize("mode", ["managed", "uploaded"])
async def test_nothing_that_a_tenant_can_read_speaks_of_another(tmp_path: Path, mode: str) -> None:
    settings = box_settings(tmp_path / "data", limits={"enabled": False})
    async with running_box(tmp_path / "data", settings) as box:
        mine, theirs = Tenant("mine"), Tenant("theirs")
        await mine.make(box, mode, "10.42.0.0/16")
        await theirs.make(box, mode, "10.43.0.0/16", bundles=2)
        read = 0
        for method, rule, found in await operations():
            if method != "GET" or found.who == "open":
                continue
            for kind, token in mine.tokens.items():
                for ids, named in ((mine.ids, True), (mine.ids, False), (theirs.ids, False)):
                    reply = await ask(box, method, rule, found, ids, token, named=named)
                    read += reply.status == 200
                    text = f"{reply.headers} {reply.body!r}"
                    assert not [word for word in theirs.words if word in text], (rule, kind)
        assert read > 20
