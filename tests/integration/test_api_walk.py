"""Every path and method of the API, a line each: its success, and each error that it may answer, all of them provoked.

408, 429, 500 and 503 are what any path may answer; they are provoked where they come from: bodies, limits, bugs, the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from edgegc.settings import Nebula
from tests import zoo
from tests.box import UNKNOWN_ID, Box, box_settings, public_key, running_box

if TYPE_CHECKING:
    from pathlib import Path

    from tests.raw_http import Reply

ANYWHERE = {408, 429, 500, 503}
TOO_LONG_BYTES = 11 * 1024 * 1024
READ, ONE, WRITE, OWN = "400 401 403", "400 401 403 404", "400 401 403 404 413 415", "400 401 403 413 415"
HOME, FIELD, NOBODYS = "cluster_id={home}", "cluster_id={field}", f"cluster_id={UNKNOWN_ID}"
ONCE = {"Idempotency-Key": "this-walk"}
GZIP = {"Content-Type": "application/gzip"}
POLICY = {"inbound": [{"port": "any", "proto": "any", "host": "any"}], "outbound": []}


@dataclass(frozen=True)
class Row:
    """``who``: whose token. ``made``: what the answer's id (or ``keep``) is called in the paths after it. ``errors``: the
    statuses; what provokes one other than in the general way is in ``others``: fields of this row that then differ.
    ``elsewhere``: an error that another test provokes.
    """

    method: str
    path: str
    who: str
    status: int
    errors: str = ""
    body: Any = None
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    made: str = ""
    keep: str = "id"
    others: dict[int, dict[str, Any]] = field(default_factory=dict)
    elsewhere: int = 0


ROWS = (
    Row("GET", "/health/live", "nobody", 200),
    Row("GET", "/health/ready", "nobody", 200),
    Row("GET", "/api/v1/version", "nobody", 200),
    Row("GET", "/openapi.json", "nobody", 200),
    Row("GET", "/docs", "nobody", 200),
    Row("GET", "/metrics", "operator", 200, READ, headers={"X-Forwarded-For": "192.0.2.1"}),
    # The node's own calls
    Row(
        "POST",
        "/api/v1/enroll",
        "key",
        201,
        f"{OWN} 409",
        body={"name": "walker", "public_key": "{key_a}"},
        made="walker",
        keep="node_token",
        others={409: {"body": {"name": "walker", "public_key": "{key_b}"}}, 403: {"who": "operator"}},
    ),
    Row("GET", "/api/v1/config/version", "walker", 200, READ),
    Row(
        "GET",
        "/api/v1/config/bundle",
        "walker",
        200,
        f"{ONE} 416",
        others={404: {"who": "keyless"}, 416: {"headers": {"Range": "bytes=99999999-"}}},
    ),
    Row("POST", "/api/v1/report", "walker", 204, OWN, body={"applied_version": 1, "state": "ok"}),
    Row("GET", "/api/v1/routes", "walker", 200, READ),
    Row(
        "PUT",
        "/api/v1/routes",
        "walker",
        200,
        f"{OWN} 409",
        body={"routes": ["10.20.0.0/16"]},
        others={409: {"body": {"routes": ["10.30.0.0/16"]}}},
    ),
    Row("GET", "/api/v1/routes/cluster", "walker", 200, ONE),
    Row("GET", "/api/v1/topology", "walker", 200, ONE),
    Row(
        "POST",
        "/api/v1/certificate",
        "walker",
        200,
        f"{OWN} 409",
        body={"public_key": "{key_c}"},
        others={409: {"who": "uploaded"}},
    ),
    # Nodes
    Row(
        "POST",
        "/api/v1/nodes",
        "operator",
        201,
        f"{WRITE} 409",
        body={"name": "pi-1"},
        query=HOME,
        made="node_id",
        others={409: {}},
    ),
    Row("GET", "/api/v1/nodes", "operator", 200, ONE, query=HOME),
    Row(
        "POST",
        "/api/v1/nodes/batch",
        "operator",
        201,
        f"{WRITE} 409",
        body={"nodes": [{"name": "pi-2"}, {"name": "pi-3"}]},
        query=HOME,
        others={409: {}},
    ),
    Row("GET", "/api/v1/nodes/{node_id}", "operator", 200, ONE),
    Row(
        "PATCH",
        "/api/v1/nodes/{node_id}",
        "operator",
        200,
        f"{WRITE} 409",
        body={"groups": ["servers"]},
        others={409: {"body": {"name": "pi-2"}}},
    ),
    Row("PATCH", "/api/v1/nodes/{node_id}/mtu", "operator", 200, WRITE, body={"mtu": 1400}),
    Row("POST", "/api/v1/nodes/{node_id}/token", "operator", 200, ONE),
    Row(
        "PUT",
        "/api/v1/nodes/{node_id}/lighthouse",
        "operator",
        200,
        f"{WRITE} 409",
        body={"public_addresses": ["203.0.113.9:4242"]},
        others={409: {"path": "/api/v1/nodes/{uploaded_id}/lighthouse"}},
    ),
    Row("DELETE", "/api/v1/nodes/{node_id}/lighthouse", "operator", 204, ONE),
    Row(
        "PUT",
        "/api/v1/nodes/{node_id}/relay",
        "operator",
        200,
        f"{ONE} 409",
        others={409: {"path": "/api/v1/nodes/{uploaded_id}/relay"}},
    ),
    Row("DELETE", "/api/v1/nodes/{node_id}/relay", "operator", 204, ONE),
    Row(
        "PUT",
        "/api/v1/nodes/{node_id}/routes",
        "operator",
        200,
        f"{WRITE} 409",
        body={"routes": ["10.40.0.0/16"]},
        others={409: {"body": {"routes": ["10.30.0.0/16"]}}},
    ),
    Row("DELETE", "/api/v1/nodes/{node_id}", "operator", 204, ONE),
    Row("GET", "/api/v1/rollout", "operator", 200, ONE, query=HOME),
    # What a cluster's admin settles
    Row("GET", "/api/v1/policy", "operator", 200, f"{ONE} 409", query=HOME, others={409: {"query": FIELD}}),
    Row(
        "PUT",
        "/api/v1/policy",
        "operator",
        200,
        f"{WRITE} 409",
        body=POLICY,
        query=HOME,
        others={409: {"query": FIELD}},
    ),
    Row(
        "POST",
        "/api/v1/enrollment-keys",
        "operator",
        201,
        f"{WRITE} 409",
        headers=ONCE,
        others={409: {"body": {"label": "another"}}},
        body={"label": "walk"},
        query=HOME,
        made="key_id",
    ),
    Row("GET", "/api/v1/enrollment-keys", "operator", 200, ONE, query=HOME),
    Row("DELETE", "/api/v1/enrollment-keys/{key_id}", "operator", 204, ONE),
    Row(
        "POST",
        "/api/v1/config/bundle",
        "operator",
        201,
        f"{WRITE} 409",
        body=zoo.bundle(),
        query=FIELD,
        headers=GZIP,
        made="version",
        keep="version",
        others={409: {"query": HOME}},
    ),
    Row("GET", "/api/v1/bundles", "operator", 200, f"{ONE} 409", query=FIELD, others={409: {"query": HOME}}),
    Row(
        "GET",
        "/api/v1/bundles/{version}",
        "operator",
        200,
        f"{ONE} 409 416",
        query=FIELD,
        others={409: {"query": HOME}, 416: {"headers": {"Range": "bytes=99999999-"}}},
    ),
    Row(
        "POST",
        "/api/v1/bundles/{version}/activate",
        "operator",
        200,
        f"{ONE} 409",
        query=FIELD,
        others={409: {"query": HOME}},
    ),
    Row(
        "DELETE",
        "/api/v1/bundles/{old_version}",
        "operator",
        204,
        f"{ONE} 409",
        query=FIELD,
        others={409: {"path": "/api/v1/bundles/{version}"}},
    ),
    # The operator
    Row(
        "POST",
        "/api/v1/tenants",
        "operator",
        201,
        f"{OWN} 409",
        body={"name": "acme"},
        made="tenant_id",
        others={409: {}},
    ),
    Row("GET", "/api/v1/tenants", "operator", 200, READ),
    Row("GET", "/api/v1/tenants/{tenant_id}", "operator", 200, ONE),
    Row(
        "PATCH",
        "/api/v1/tenants/{tenant_id}",
        "operator",
        200,
        f"{WRITE} 409",
        body={"name": "acme-2"},
        others={409: {"body": {"name": "home-owner"}}},
    ),
    Row(
        "POST",
        "/api/v1/clusters",
        "operator",
        201,
        f"{WRITE} 409",
        body={"tenant_id": "{tenant_id}", "name": "third", "network_cidr": "10.44.0.0/16"},
        made="cluster_id",
        others={
            404: {"body": {"tenant_id": UNKNOWN_ID, "name": "x", "network_cidr": "10.44.0.0/16"}},
            409: {},
        },
    ),
    Row("GET", "/api/v1/clusters", "operator", 200, READ),
    Row("GET", "/api/v1/clusters/{cluster_id}", "operator", 200, ONE),
    Row(
        "PATCH",
        "/api/v1/clusters/{cluster_id}",
        "operator",
        200,
        f"{WRITE} 409",
        body={"name": "fourth"},
        others={409: {"path": "/api/v1/clusters/{field}", "body": {"provide_lighthouse": True}}},
    ),
    Row(
        "GET",
        "/api/v1/clusters/{cluster_id}/ca/rotation",
        "operator",
        200,
        f"{ONE} 409",
        others={409: {"path": "/api/v1/clusters/{field}/ca/rotation"}},
    ),
    Row(
        "POST",
        "/api/v1/clusters/{cluster_id}/ca/rotation",
        "operator",
        200,
        f"{WRITE} 409",
        body={"step": "prepare"},
        others={409: {"body": {"step": "retire"}}},
    ),
    Row(
        "DELETE",
        "/api/v1/clusters/{cluster_id}",
        "operator",
        204,
        f"{ONE} 409",
        others={409: {"path": "/api/v1/clusters/{home}"}},
    ),
    Row(
        "DELETE",
        "/api/v1/tenants/{tenant_id}",
        "operator",
        204,
        f"{ONE} 409",
        others={409: {"path": "/api/v1/tenants/{owner}"}},
    ),
    Row(
        "POST",
        "/api/v1/api-tokens",
        "operator",
        201,
        f"{WRITE} 409",
        headers=ONCE,
        body={"scopes": ["metrics"]},
        made="token_id",
        others={
            404: {"body": {"scopes": [f"cluster:{UNKNOWN_ID}:read"]}, "headers": {}},
            409: {"body": {"scopes": ["operator"]}},
        },
    ),
    Row("GET", "/api/v1/api-tokens", "operator", 200, READ),
    Row("DELETE", "/api/v1/api-tokens/{token_id}", "operator", 204, ONE),
    Row("GET", "/api/v1/lighthouses", "operator", 200, READ),
    Row("POST", "/api/v1/lighthouses/{home}/restart", "operator", 202, ONE),
    Row("POST", "/api/v1/lighthouses/{home}/stop", "operator", 202, ONE),
    Row("GET", "/api/v1/resources", "operator", 200, READ),
    Row("GET", "/api/v1/audit", "operator", 200, READ),
    Row("POST", "/api/v1/maintenance/backup", "operator", 201, READ, made="name", keep="name"),
    Row("GET", "/api/v1/maintenance/backups", "operator", 200, READ),
    Row(
        "GET",
        "/api/v1/maintenance/backups/{name}",
        "operator",
        200,
        f"{ONE} 416",
        others={416: {"headers": {"Range": "bytes=99999999-"}}},
    ),
    # Only a wrong clock conflicts: tested with one that is a fake.
    Row("POST", "/api/v1/maintenance/clock", "operator", 200, READ, elsewhere=409),
    Row("POST", "/api/v1/maintenance/checkpoint", "operator", 200, READ),
    Row("POST", "/api/v1/maintenance/compact", "operator", 200, READ),
    Row("POST", "/api/v1/maintenance/verify", "operator", 200, READ),
)


class Walk:
    """A box, and what is known of it under the names that the rows use."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.known: dict[str, Any] = {}

    async def prepare(self) -> None:
        """Make what the rows need beside what they make themselves."""
        box, known = self.box, self.known
        home = await box.cluster(provide_lighthouse=True, lighthouse_port=45_991)
        uploaded = await box.cluster("field", mode="uploaded")
        known |= {"home": home["id"], "owner": home["tenant_id"], "field": uploaded["id"]}
        known |= {name: public_key() for name in ("key_a", "key_b", "key_c")}
        known["key"] = await box.key(home["id"], uses=None)
        known["operator"] = (await box.made("/api/v1/api-tokens", {"scopes": ["operator"]}))["token"]
        for name, cluster_id in (
            ("keyless", home["id"]),
            ("uploaded", uploaded["id"]),
            ("rival", home["id"]),
        ):
            node = await box.made(f"/api/v1/nodes?cluster_id={cluster_id}", {"name": name})
            known |= {name: node["node_token"], f"{name}_id": node["id"]}
        routes = {"routes": ["10.30.0.0/16"]}
        await box.request("PUT", f"/api/v1/nodes/{known['rival_id']}/routes", body=routes)
        old = await box.made(
            f"/api/v1/config/bundle?cluster_id={uploaded['id']}",
            zoo.with_files(config_yml=b"lighthouse:\n  interval: 11\n"),
            headers=GZIP,
        )
        known["old_version"] = old["version"]

    async def send(self, row: Row, **changes: Any) -> Reply:
        """Send what a row says, but for what ``changes`` say; over TCP, unless nobody sends it."""
        given = {**row.__dict__, **changes}
        path = self.filled(given["path"])
        if given["query"]:
            path += "?" + self.filled(given["query"])
        who = given["who"]
        token = None if who == "nobody" else self.known.get(who, who)
        return await self.box.request(
            given["method"],
            path,
            token=token,
            over="tcp",
            body=self.filled(given["body"]),
            headers=given["headers"],
        )

    async def refused(self, row: Row, status: int) -> Reply:
        """Provoke an error."""
        changes: dict[str, Any]
        match status:
            case _ if status in row.others:
                changes = row.others[status]
            case 400:
                changes = {"query": f"{row.query}&nothing=1" if row.query else "nothing=1"}
            case 401:
                changes = {"who": "egn_wrong"}
            case 403:
                changes = {"who": "key"}
            case 404 if "{" in row.path:
                start, _, rest = row.path.partition("{")
                unknown = "999999" if "version" in row.path else UNKNOWN_ID
                changes = {"path": start + unknown + rest.partition("}")[2]}
            case 404:
                changes = {"query": NOBODYS}
            case 413:
                changes = {"headers": {**row.headers, "Content-Length": str(TOO_LONG_BYTES)}, "body": b""}
            case 415:
                changes = {"headers": {"Content-Type": "text/plain"}, "body": b"words"}
            case _:
                raise AssertionError(f"{row.method} {row.path}: the row must say what provokes {status}")
        return await self.send(row, **changes)

    def filled(self, value: Any) -> Any:
        """Put what is known in where a string says ``{name}``."""
        if isinstance(value, str):
            for name, known in self.known.items():
                value = value.replace("{" + name + "}", str(known))
            return value
        if isinstance(value, dict):
            return {name: self.filled(inner) for name, inner in value.items()}
        return [self.filled(inner) for inner in value] if isinstance(value, list) else value


def documented(path: str) -> str:
    """Return a row's path as the document has it."""
    return path.replace("{home}", "{cluster_id}").replace("{old_version}", "{version}")


async def test_every_path_answers_with_its_success_and_with_each_of_its_errors(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(
        box_settings(tmp_path / "data", limits={"enabled": False}), nebula=Nebula(path=tmp_path / "no-nebula")
    )
    async with running_box(tmp_path / "data", settings) as box:
        walk = Walk(box)
        await walk.prepare()
        found = (await box.request("GET", "/openapi.json")).json["paths"]
        listed = {(row.method, documented(row.path)) for row in ROWS}
        assert listed == {(method.upper(), path) for path in found for method in found[path]}
        wrong = []
        for row in ROWS:
            name = f"{row.method} {row.path}"
            declared = found[documented(row.path)][row.method.lower()]["responses"]
            errors = {int(status) for status in row.errors.split()}
            if errors != {int(status) for status in declared if int(status) >= 400} - ANYWHERE - {
                row.elsewhere
            }:
                wrong.append(f"{name}: declares {' '.join(declared)}")
            reply = await walk.send(row)
            if reply.status != row.status or str(row.status) not in declared:
                wrong.append(f"{name}: {reply.status} {reply.body!r}")
                continue
            if row.made:
                walk.known[row.made] = reply.json[row.keep]
            for status in sorted(errors):
                refused = await walk.refused(row, status)
                problem = refused.headers.get("content-type") == "application/problem+json"
                if refused.status != status or not problem or refused.json["status"] != status:
                    wrong.append(f"{name}: {refused.status} instead of {status}: {refused.body!r}")
                if refused.headers.get("x-request-id") != refused.json.get("request_id"):
                    wrong.append(f"{name}: {status} without its request id")
        assert not wrong, "\n".join(wrong)


async def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    async with running_box(
        tmp_path / "data", box_settings(tmp_path / "data", limits={"enabled": False})
    ) as box:
        found = (await box.request("GET", "/openapi.json")).json["paths"]
        # To the router it is a node like any other, which there never is: 404 is as right.
        del found["/api/v1/nodes/batch"]
        for path, methods in found.items():
            real = path.replace("{version}", "7").replace("{name}", "x").replace("{", "").replace("}", "")
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {one.upper() for one in methods}:
                refused = await box.request(method, real)
                assert (refused.status, refused.json["code"]) == (405, "method_not_allowed"), (method, path)
                allowed = set(refused.headers["allow"].split(", ")) - {"HEAD", "OPTIONS"}
                assert allowed == {one.upper() for one in methods}, path
