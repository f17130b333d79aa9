"""The OpenAPI 3.1 document, made from the declarations beside the handlers and the structs that they decode.

Pure and slow (some milliseconds): who serves it keeps it. Loaded only when somebody asks.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from werkzeug.routing import IntegerConverter

import edgegc
from edgegc.api import operation, problem
from edgegc.api.operation import (
    JSON,
    PROBLEM_JSON,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    Content,
    Given,
    Operation,
)
from edgegc.model.message import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quart import Quart
    from werkzeug.routing import Rule

Json = dict[str, Any]

SCHEMAS: Final = "#/components/schemas/"
REF_TEMPLATE: Final = SCHEMAS + "{name}"
NO_ID: Final = frozenset({"request_id"})
"""Fields whose name ends like an id and which are none of ours."""
UUID_FIELD: Final = re.compile(r"(^|_)id$")
TIME_FIELD: Final = re.compile(r"(_at|_after|^at|^since)$")

DESCRIPTION: Final = """\
edgegc runs Nebula overlay networks from a small box.

Bodies are JSON in UTF-8, `snake_case`; times are RFC 3339 in UTC; ids are UUIDs. What a request says and its path does not
know is an error. Lists answer `next_cursor`: null at the end.

Every status of 400 and above is `application/problem+json` (RFC 9457) with a `code` for programs and a `detail` that names the
field and the limit. Every answer carries `X-Request-ID`; the log has it too. An id of another tenant or cluster is 404.

The admin Unix socket serves the same API and needs no token: who can open it is the operator. With a token that is for more
than one cluster, paths about "the cluster" take `cluster_id`.
"""

SCHEMES: Final[dict[str, Json]] = {
    "node_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "egn_…",
        "description": "A node's own token: it polls, downloads and reports. With the role `admin` it administers its cluster.",
    },
    "enrolment_key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "egk_…",
        "description": "Makes a machine a node, and nothing else.",
    },
    "api_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "ega_…",
        "description": "What its scopes say: `operator`, `cluster:<id>:admin`, `cluster:<id>:read`, `metrics`.",
    },
}
SECURITY: Final[Mapping[operation.Who, list[dict[str, list[str]]]]] = {
    "open": [],
    "metrics": [{}, {"api_token": []}],
    "enrolment key": [{"enrolment_key": []}],
    "node": [{"node_token": []}],
    "cluster reader": [{"api_token": []}, {"node_token": []}],
    "cluster admin": [{"api_token": []}, {"node_token": []}],
    "operator": [{"api_token": []}],
}
WHO: Final[Mapping[operation.Who, str]] = {
    "open": "Anybody may.",
    "metrics": "Without a token from the box itself; else with one that has the scope `metrics` or `operator`.",
    "enrolment key": "With an enrolment key.",
    "node": "With a node's own token.",
    "cluster reader": "With the scope `cluster:<id>:read` or more, or as a node with the role `admin`.",
    "cluster admin": "With the scope `cluster:<id>:admin` or `operator`, or as a node with the role `admin`.",
    "operator": "With the scope `operator`, or over the admin socket.",
}
DETAILS: Final[Mapping[int, str]] = {
    400: "name: must have at least 1 characters",
    401: problem.UNAUTHORIZED_DETAIL,
    403: "only the operator may do this",
    404: "no such node",
    408: "the body did not arrive: 512 bytes of 1024",
    409: "a node named 'pi-7' already exists",
    413: "the body has 2097152 bytes; the limit is 1048576",
    415: "the body must be JSON with Content-Type application/json, not text/plain",
    416: "there are 4096 bytes, the range bytes=9000- lies beyond them",
    429: "too many requests",
    500: problem.INTERNAL_DETAIL,
    503: "the store is stopping",
}
"""What the example of each status says."""
STATUS_HEADERS: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

AN_ID: Final = "0b9f6c1e-52a7-4d0e-9a53-3a8f6d2c7e41"
PUBLIC_KEY: Final = (
    "-----BEGIN NEBULA X25519 PUBLIC KEY-----\n"
    "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n"
    "-----END NEBULA X25519 PUBLIC KEY-----\n"
)
EXAMPLES: Final[Mapping[str, Any]] = {
    "allowed_routes": ["10.0.0.0/8", "192.168.0.0/16"],
    "api": "v1",
    "checks": {"store": "ok", "clock": "ok"},
    "cluster_name": "home",
    "code": "conflict",
    "commit": "3f1c9a7",
    "cpu_percent": 1.5,
    "error": None,
    "fingerprint": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "groups": ["servers"],
    "key": "egk_0b9f6c1e52a74d0e9a533a8f6d2c7e41_" + "x" * 43,
    "label": "made for the workshop",
    "last_error": None,
    "lighthouse_public_addresses": ["203.0.113.9:4242"],
    "listen_port": 4242,
    "log_tail": [],
    "name": "pi-7",
    "nebula_version": "1.9.3",
    "network_cidr": "10.42.0.0/16",
    "next_cursor": None,
    "node_token": "egn_0b9f6c1e52a74d0e9a533a8f6d2c7e41_" + "x" * 43,
    "overlay_ip": "10.42.0.7",
    "pin": None,
    "platform": "linux-aarch64",
    "public_addresses": ["203.0.113.9:4242"],
    "public_key": PUBLIC_KEY,
    "python": "3.11.2",
    "request_id": "3f1c9a7be2d04c55",
    "routes": ["10.20.0.0/16"],
    "scopes": ["operator"],
    "series": {"daemon.rss_bytes": [[1795429800, 50331648]]},
    "signers": ["hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="],
    "status": "ok",
    "title": "Conflict",
    "token": "ega_0b9f6c1e52a74d0e9a533a8f6d2c7e41_" + "x" * 43,
    "type": "about:blank",
    "url": "https://203.0.113.9:8443",
    "version": 7,
}
"""A value per field name: fields of one name mean one thing. What is not here is made from the field's schema; a test holds
that every example is valid.
"""


def document(app: Quart) -> Json:
    """Return the whole document. :raises LookupError: a route has no declaration."""
    routes = list(operation.operations(app))
    schemas = _schemas(one for _, _, one in routes)
    paths: dict[str, Json] = {}
    tags: dict[str, None] = {}
    statuses: set[int] = set()
    for rule, method, found in routes:
        tags[found.tag] = None
        path = re.sub(r"<(?:[^:<>]*:)?([^<>]*)>", r"{\1}", rule.rule)
        refused = [status for status in operation.refusals(found, rule) if status not in found.gives]
        statuses.update(refused)
        paths.setdefault(path, {})[method.lower()] = _operation(rule, found, refused, schemas)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "edgegc",
            "summary": "Ground control for Nebula overlay networks on small boxes",
            "description": DESCRIPTION,
            "version": edgegc.__version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in tags],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {_response_name(status): _refusal(status) for status in sorted(statuses)},
            "headers": {name: _header(header) for name, header in RESPONSE_HEADERS.items()},
            "securitySchemes": SCHEMES,
        },
    }


def example_of(schema: Json, schemas: Mapping[str, Json], *, name: str = "") -> Any:
    """Return a value that a schema of the document describes; ``name`` is the field's that has it."""
    if name in EXAMPLES and _fits(EXAMPLES[name], schema):
        return EXAMPLES[name]
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].removeprefix(SCHEMAS)], schemas)
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], schemas, name=name)
    if schema.get("default") is not None:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            required = schema.get("required", [])
            return {
                field: example_of(inner, schemas, name=field)
                for field, inner in schema.get("properties", {}).items()
                if field in required or field in EXAMPLES or not required
            }
        case "array":
            return [example_of(schema["items"], schemas, name=name)] if schema.get("items") else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "null":
            return None
    return {"uuid": AN_ID, "date-time": "2026-11-23T10:30:00Z"}.get(schema.get("format", ""), "text")


def _fits(value: object, schema: Json) -> bool:
    if "anyOf" in schema:
        return any(_fits(value, member) for member in schema["anyOf"])
    if isinstance(value, list) and not all(_fits(item, schema.get("items") or {}) for item in value):
        return False
    kinds = {
        str: "string",
        list: "array",
        dict: "object",
        int: "integer",
        type(None): "null",
        float: "number",
    }
    return schema.get("type") == kinds[type(value)] and value in schema.get("enum", [value])


def _schemas(operations: Iterator[Operation]) -> dict[str, Json]:
    kinds: dict[type[msgspec.Struct], None] = {Problem: None}
    for one in operations:
        if isinstance(one.takes, type):
            kinds[one.takes] = None
        for given in one.gives.values():
            kind = given.kind if isinstance(given, Content) else given
            if isinstance(kind, type):
                kinds[kind] = None
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REF_TEMPLATE)
    for schema in schemas.values():
        _complete(schema)
    return dict(sorted(schemas.items()))


def _complete(schema: Any, name: str = "") -> None:
    """Add what the structs' types don't say to a schema, in place: formats that follow from names; and write patterns and
    prose as other readers expect them.
    """
    if isinstance(schema, list):
        for member in schema:
            _complete(member, name)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "string":
        if UUID_FIELD.search(name) and name not in NO_ID:
            schema.setdefault("format", "uuid")
        elif TIME_FIELD.search(name):
            schema.setdefault("format", "date-time")
    if "pattern" in schema:
        # Python's `$` would let a line feed pass; ECMA's, which JSON Schema means, does not, and knows no `\Z`.
        schema["pattern"] = schema["pattern"].replace(r"\Z", "$")
    if "description" in schema:
        schema["description"] = _plain(schema["description"])
    if schema.get("required") == []:
        del schema["required"]
    members = schema.get("prefixItems", ())
    if members and all(member == members[0] for member in members):
        # Says the same of a pair of numbers, and is read right by more.
        schema["items"] = schema.pop("prefixItems")[0]
    for field, inner in schema.get("properties", {}).items():
        _complete(inner, field)
    for key in ("anyOf", "items", "prefixItems", "additionalProperties"):
        _complete(schema.get(key), name)


def _plain(text: str) -> str:
    return re.sub(r":[a-z:]+:`~?([^`]*)`", r"`\1`", text.replace("``", "`")).strip()


def _operation(rule: Rule, found: Operation, refused: list[int], schemas: Mapping[str, Json]) -> Json:
    made: Json = {"operationId": rule.endpoint, "summary": found.summary, "tags": [found.tag]}
    who = WHO[found.who]
    made["description"] = f"{found.says}\n\n{who}" if found.says else who
    made["security"] = SECURITY[found.who]
    if parameters := [*_in_path(rule), *_in_query(found), *_in_headers(found)]:
        made["parameters"] = parameters
    if found.takes is not None:
        made["requestBody"] = {"required": True, "content": _content(found.takes, schemas)}
    made["responses"] = {
        **{str(status): _response(status, given, schemas) for status, given in found.gives.items()},
        **{str(status): {"$ref": f"#/components/responses/{_response_name(status)}"} for status in refused},
    }
    made["responses"] = dict(sorted(made["responses"].items()))
    return made


def _in_path(rule: Rule) -> Iterator[Json]:
    for name in re.findall(r"<(?:[^:<>]*:)?([^<>]*)>", rule.rule):
        schema: Json = {"type": "string"}
        example: Any = name
        if isinstance(rule._converters[name], IntegerConverter):
            schema, example = {"type": "integer", "minimum": 0}, 7
        elif UUID_FIELD.search(name):
            schema, example = {"type": "string", "format": "uuid"}, AN_ID
        yield {"name": name, "in": "path", "required": True, "schema": schema, "example": example}


def _in_query(found: Operation) -> Iterator[Json]:
    if found.query is None:
        return
    _, made = msgspec.json.schema_components([found.query], ref_template=REF_TEMPLATE)
    schema = made[found.query.__name__]
    _complete(schema)
    for name, inner in schema["properties"].items():
        given = inner
        if "anyOf" in inner:
            # Null is how we write that it is not there; a query string has no null.
            members = [member for member in inner["anyOf"] if member.get("type") != "null"]
            given = members[0] if len(members) == 1 else {"anyOf": members}
        if inner.get("default") is not None:
            given = {**given, "default": inner["default"]}
        yield {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": given}


def _in_headers(found: Operation) -> Iterator[Json]:
    for name in found.headers:
        header = REQUEST_HEADERS[name]
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "description": header.says,
            "schema": dict(header.schema),
            "example": header.example,
        }


def _content(kind: type[msgspec.Struct] | str, schemas: Mapping[str, Json]) -> Json:
    if isinstance(kind, type):
        ref = {"$ref": REF_TEMPLATE.format(name=kind.__name__)}
        return {JSON: {"schema": ref, "example": example_of(ref, schemas)}}
    media = kind.partition(";")[0]
    return {media: {"schema": {"type": "string"} if media.startswith("text/") else {}}}


def _response(status: int, given: Given, schemas: Mapping[str, Json]) -> Json:
    content = given if isinstance(given, Content) else Content(kind=given)
    made: Json = {
        "description": content.says or HTTPStatus(status).phrase,
        "headers": _headers("X-Request-ID", *content.headers),
    }
    if content.kind is not None:
        made["content"] = _content(content.kind, schemas)
    return made


def _response_name(status: int) -> str:
    return re.sub(r"[^A-Za-z]", "", HTTPStatus(status).phrase.title())


def _refusal(status: int) -> Json:
    said = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": problem.CODE.get(status, "invalid_request"),
        "detail": DETAILS.get(status, HTTPStatus(status).phrase),
        "request_id": EXAMPLES["request_id"],
    }
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _headers("X-Request-ID", *STATUS_HEADERS.get(status, ())),
        "content": {PROBLEM_JSON: {"schema": {"$ref": SCHEMAS + "Problem"}, "example": said}},
    }


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _header(header: operation.Header) -> Json:
    return {"description": header.says, "schema": dict(header.schema), "example": header.example}
