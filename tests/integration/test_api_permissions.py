"""Every endpoint against every kind of credential: who may not is refused, and nothing has changed afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from msgspec import inspect

from edgegc.api import operation
from edgegc.api.app import create_app
from edgegc.control.credentials import mint
from tests.box import UNKNOWN_ID, Box, box_settings, public_key, running_box
from tests.control_plane import control_plane

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.api.operation import Operation

GIVEN: dict[str, Any] = {
    "name": "somebody",
    "network_cidr": "10.77.0.0/16",
    "scopes": ["metrics"],
    "public_addresses": ["203.0.113.9:4242"],
    "step": "prepare",
    "applied_version": 0,
    "state": "ok",
    "mtu": 1400,
}
"""Values for fields that must be there, where not just any value of their type will do."""

MAY: dict[str, frozenset[str]] = {
    "operator": frozenset(),
    "cluster admin": frozenset({"admin node", "admin token"}),
    "cluster reader": frozenset({"admin node", "admin token", "read token"}),
    "node": frozenset({"member", "admin node"}),
    "enrolment key": frozenset({"key"}),
    "metrics": frozenset({"metrics token"}),
}
"""Who may what beside the operator, by the declaration of a route."""

READ_BY_ADMINS = {"/api/v1/topology", "/api/v1/routes/cluster"}
"""What a node may ask for itself, and who reads the cluster, too."""
READ_TOO = {"/api/v1/enrollment-keys"}
"""Reads among what is an admin's: they change nothing and show no secret."""


def sample(kind: Any) -> Any:
    """Return the least body of a kind that decodes."""
    found = inspect.type_info(kind) if isinstance(kind, type) else kind
    while isinstance(found, inspect.Metadata):
        found = found.type
    match found:
        case inspect.StructType():
            return {
                field.encode_name: GIVEN.get(field.encode_name, sample(field.type))
                for field in found.fields
                if field.required
            }
        case inspect.StrType():
            return "x"
        case inspect.IntType() | inspect.FloatType():
            return found.ge if found.ge is not None else 1
        case inspect.BoolType():
            return False
        case inspect.LiteralType():
            return found.values[0]
        case inspect.VarTupleType() | inspect.ListType():
            return [sample(found.item_type)] if found.min_length else []
        case inspect.UnionType():
            return sample(found.types[0])
        case _:
            return None


async def operations() -> list[tuple[str, str, Operation]]:
    async with control_plane() as plane:
        app = create_app(plane.control)
        return [(method, rule.rule, found) for rule, method, found in operation.operations(app)]


class World:
    """A box with two clusters, and a credential of every kind."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.ids: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.none: dict[str, str | None] = {}

    async def make(self) -> None:
        box = self.box
        home = await box.cluster("home")
        other = await box.cluster("other", network_cidr="10.43.0.0/16")
        member = await box.enrolled(home["id"], "member")
        admin = await box.admin(home["id"])
        target = await box.enrolled(home["id"], "target")
        self.key = await box.key(home["id"], uses=5)
        keys = await box.request("GET", f"/api/v1/enrollment-keys?cluster_id={home['id']}")

        async def token(*scopes: str) -> str:
            made = await box.made("/api/v1/api-tokens", {"scopes": list(scopes)})
            self.ids["token_id"] = made["id"]
            return str(made["token"])

        self.tokens = {
            "member": member["node_token"],
            "admin node": admin["node_token"],
            "admin token": await token(f"cluster:{home['id']}:admin"),
            "read token": await token(f"cluster:{home['id']}:read"),
            "metrics token": await token("metrics"),
            "key": self.key,
            "foreign admin token": await token(f"cluster:{other['id']}:admin"),
            "foreign member": (await box.enrolled(other["id"], "m"))["node_token"],
            "foreign admin node": (await box.admin(other["id"]))["node_token"],
            "foreign key": await box.key(other["id"], uses=5),
        }
        revoked = await box.made("/api/v1/api-tokens", {"scopes": ["operator"]})
        assert (await box.request("DELETE", f"/api/v1/api-tokens/{revoked['id']}")).status == 204
        self.none = {
            "nothing": None,
            "no token": "rubbish",
            "made up": mint("egn", UNKNOWN_ID),
            "wrong secret": f"{member['node_token'][:-4]}AAAA",
            "revoked": revoked["token"],
        }
        self.ids |= {
            "cluster_id": home["id"],
            "tenant_id": home["tenant_id"],
            "node_id": target["node_id"],
            "key_id": keys.json["enrollment_keys"][0]["id"],
            "version": "1",
            "name": "edgegc-20260101T000000Z.db",
        }

    async def ask(self, method: str, rule: str, found: Operation, token: str | None) -> int:
        path = rule
        for name in [part[1:-1] for part in rule.split("/") if part.startswith("<")]:
            path = path.replace(f"<{name}>", self.ids[name.rpartition(":")[2]])
        if found.query is not None and "cluster_id" in found.query.__struct_fields__:
            path += f"?cluster_id={self.ids['cluster_id']}"
        body: Any = None
        headers = {}
        if isinstance(found.takes, str):
            body, headers = b"\x1f\x8b", {"Content-Type": found.takes}
        elif found.takes is not None:
            body = sample(found.takes)
            for name in ("tenant_id", "cluster_id"):
                if name in body:
                    body[name] = self.ids[name]
            if "public_key" in body:
                body["public_key"] = public_key()
        # A header as from a proxy, or whoever asks from this machine may read the metrics.
        headers["X-Forwarded-For"] = "192.0.2.1"
        reply = await self.box.request(method, path, over="tcp", token=token, body=body, headers=headers)
        return reply.status

    async def state(self) -> dict[str, Any]:
        """Return all that an operator sees of what may be changed."""
        found: dict[str, Any] = {}
        for path in ("tenants", "clusters", "api-tokens"):
            found[path] = (await self.box.request("GET", f"/api/v1/{path}")).json
        for path in ("nodes", "enrollment-keys", "policy", "routes/cluster"):
            for cluster in found["clusters"]["clusters"]:
                reply = await self.box.request("GET", f"/api/v1/{path}?cluster_id={cluster['id']}")
                found[path, cluster["id"]] = reply.json
        for each in found["api-tokens"]["api_tokens"]:
            del each["last_used_at"]
        for (path, _), page in ((key, page) for key, page in found.items() if isinstance(key, tuple)):
            for node in page["nodes"] if path == "nodes" else ():
                for name in (
                    "last_seen_at",
                    "enrolled_at",
                    "state",
                    "applied_version",
                    "error",
                    "updated_at",
                ):
                    del node[name]
        return found


def may(who: str, rule: str, method: str, kind: str) -> bool:
    allowed = MAY[who]
    if rule in READ_BY_ADMINS or (rule in READ_TOO and method == "GET"):
        allowed |= MAY["cluster reader"]
    return kind in allowed


async def test_every_endpoint_refuses_everybody_who_may_not_and_changes_nothing(tmp_path: Path) -> None:
    """TENANT_ISOLATION, and who may what."""
    every = await operations()
    assert len(every) > 50
    settings = box_settings(tmp_path / "data", limits={"enabled": False})
    async with running_box(tmp_path / "data", settings) as box:
        world = World(box)
        await world.make()
        before = await world.state()
        wrong: list[tuple[str, str, str, int]] = []
        for method, rule, found in every:
            if found.who == "open":
                continue
            for kind, token in world.none.items():
                status = await world.ask(method, rule, found, token)
                if status != 401:
                    wrong.append((method, rule, kind, status))
            for kind, token in world.tokens.items():
                if kind.startswith("foreign") and found.who in ("node", "enrolment key"):
                    continue  # It asks about its own cluster, and is told of that.
                if may(found.who, rule, method, kind):
                    continue
                status = await world.ask(method, rule, found, token)
                if status not in (403, 404):
                    wrong.append((method, rule, kind, status))
        assert wrong == []
        assert await world.state() == before


async def test_every_endpoint_that_reads_answers_those_who_may(tmp_path: Path) -> None:
    settings = box_settings(tmp_path / "data", limits={"enabled": False})
    async with running_box(tmp_path / "data", settings) as box:
        world = World(box)
        await world.make()
        for method, rule, found in await operations():
            if method != "GET" or found.who == "open":
                continue
            for kind, token in world.tokens.items():
                if may(found.who, rule, method, kind):
                    assert await world.ask(method, rule, found, token) not in (401, 403), (rule, kind)


async def test_an_api_token_says_when_it_was_last_used_and_ends_when_it_expires(tmp_path: Path) -> None:
    async with running_box(tmp_path / "data") as box:
        made = await box.made("/api/v1/api-tokens", {"scopes": ["operator"], "expires_in_s": 2})
        assert made["last_used_at"] is None
        assert (await box.request("GET", "/api/v1/tenants", token=made["token"])).status == 200
        (shown,) = (await box.request("GET", "/api/v1/api-tokens")).json["api_tokens"]
        assert shown["last_used_at"] is not None
        assert shown["expires_at"] == made["expires_at"]
        assert "token" not in shown
        with trio.fail_after(20):
            while (await box.request("GET", "/api/v1/tenants", token=made["token"])).status == 200:
                await trio.sleep(0.1)
        reply = await box.request("GET", "/api/v1/tenants", token=made["token"])
        assert (reply.status, reply.json["code"]) == (401, "unauthorized")
