"""Requests to our API as raw bytes, complete with head and body: what a plan of the load generator carries.

Knows the API's paths and bodies, and nothing of connections or of plans. A ``token`` of None leaves the header out.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping
from gzip import GzipFile
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from edgegc.model import message

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

Query = Mapping[str, str | int | float | None]

KEY_BYTES: Final = 32
"""Of an X25519 public key. Any such bytes are one; that some are of low order chance will not find out."""
SECRET_BYTES: Final = 32
"""Of the secret part of a token."""
PEM_LABEL: Final = "NEBULA X25519 PUBLIC KEY"
PAYLOAD: Final = "payload.bin"
"""The file that gives an uploaded bundle its size; nodes ignore it."""
CONFIG: Final = b"pki: {ca: ca.crt, cert: host.crt, key: host.key}\nlighthouse: {am_lighthouse: false}\n"
TAR_BLOCK_BYTES: Final = 512


def request(
    method: str,
    path: str,
    *,
    token: str | None = None,
    query: Query | None = None,
    body: bytes | msgspec.Struct | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a request. A Struct is sent as JSON; ``query`` leaves out what is None."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    target = f"{path}?{urlencode(given)}" if given else path
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    content = b""
    if body is not None:
        if isinstance(body, bytes):
            content, kind = body, "application/gzip"
        else:
            content, kind = msgspec.json.encode(body), "application/json"
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "\r\n"]).encode() + content


# A node's own calls


def version(
    token: str | None,
    *,
    current: int | None = None,
    wait_s: float | None = None,
    known: int | None = None,
    applied: int | None = None,
) -> bytes:
    """Return a version check. ``known`` goes into ``If-None-Match``, ``applied`` is reported along."""
    headers = {}
    if known is not None:
        headers["If-None-Match"] = f'"{known}"'
    if applied is not None:
        headers |= {"Edgegc-Applied": str(applied), "Edgegc-State": "ok"}
    query = {"current": current, "wait": wait_s}
    return request("GET", "/api/v1/config/version", token=token, query=query, headers=headers)


def bundle(token: str) -> bytes:
    """Return a download of a node's bundle."""
    return request("GET", "/api/v1/config/bundle", token=token)


def topology(token: str) -> bytes:
    """Return a node's question for the topology."""
    return request("GET", "/api/v1/topology", token=token)


def report(token: str, *, applied: int) -> bytes:
    """Return a node's report that all is well."""
    return request(
        "POST", "/api/v1/report", token=token, body=message.Report(applied_version=applied, state="ok")
    )


def enroll(key: str, *, name: str, public_key: str) -> bytes:
    """Return the enrolment of a node with an enrolment key."""
    return request("POST", "/api/v1/enroll", token=key, body=message.Enroll(name=name, public_key=public_key))


# An administrator's calls


def node_create(token: str, cluster_id: str, node: message.NodeCreate) -> bytes:
    """Return the creation of one node."""
    return request("POST", "/api/v1/nodes", token=token, query={"cluster_id": cluster_id}, body=node)


def node_batch(token: str, cluster_id: str, nodes: Iterable[message.NodeCreate]) -> bytes:
    """Return the creation of many nodes at once."""
    body = message.NodeBatch(nodes=tuple(nodes))
    return request("POST", "/api/v1/nodes/batch", token=token, query={"cluster_id": cluster_id}, body=body)


def node_get(token: str, node_id: str) -> bytes:
    """Return the question for one node."""
    return request("GET", f"/api/v1/nodes/{node_id}", token=token)


def node_list(token: str, cluster_id: str, *, page: int, page_size: int) -> bytes:
    """Return the question for one page of nodes."""
    query: Query = {"cluster_id": cluster_id, "page": page, "page_size": page_size}
    return request("GET", "/api/v1/nodes", token=token, query=query)


def node_update(token: str, node_id: str, change: message.NodeUpdate) -> bytes:
    """Return the change of one node."""
    return request("PATCH", f"/api/v1/nodes/{node_id}", token=token, body=change)


def node_delete(token: str, node_id: str) -> bytes:
    """Return the deletion of one node."""
    return request("DELETE", f"/api/v1/nodes/{node_id}", token=token)


# What goes into them


def public_key(chance: random.Random) -> str:
    """Return the public key (PEM) of a node whose private key nobody has."""
    encoded = base64.b64encode(chance.randbytes(KEY_BYTES)).decode()
    return f"-----BEGIN {PEM_LABEL}-----\n{encoded}\n-----END {PEM_LABEL}-----\n"


def new_nodes(
    chance: random.Random, count: int, *, prefix: str, keys: bool
) -> tuple[message.NodeCreate, ...]:
    """Return ``count`` nodes to create, named ``PREFIX-00000`` and on, each with a public key of its own or none."""
    return tuple(
        message.NodeCreate(name=f"{prefix}-{i:05}", public_key=public_key(chance) if keys else None)
        for i in range(count)
    )


def unknown_token(chance: random.Random) -> str:
    """Return a token in a node's form, of a node that nobody knows."""
    return _token(UUID(bytes=chance.randbytes(16), version=4).hex, chance)


def wrong_secret(token: str, chance: random.Random) -> str:
    """Return a token of the same node whose secret is another one."""
    return _token(token.split("_")[1], chance)


def _token(identity: str, chance: random.Random) -> str:
    secret = base64.urlsafe_b64encode(chance.randbytes(SECRET_BYTES)).rstrip(b"=").decode()
    return f"egn_{identity}_{secret}"


def uploaded_bundle(authorities: bytes, *, size: int, chance: random.Random) -> bytes:
    """Return a bundle for an uploaded cluster that has ``size`` bytes, but for a few (at most a tar block more or less).

    ``authorities`` is a ``ca.crt``. Most of it is noise, which gzip does not make smaller.
    """
    bare = len(_archive({"config.yml": CONFIG, "ca.crt": authorities, PAYLOAD: b""}))
    noise = max(0, size - bare - _stored_overhead(size))
    return _archive({"config.yml": CONFIG, "ca.crt": authorities, PAYLOAD: chance.randbytes(noise)})


def authorities_of(rendered: bytes) -> bytes:
    """Return the ``ca.crt`` of a bundle that a managed cluster's node has downloaded."""
    with tarfile.open(fileobj=io.BytesIO(rendered), mode="r:gz") as archive:
        found = archive.extractfile("ca.crt")
        assert found is not None
        return found.read()


def _stored_overhead(size: int) -> int:
    # Deflate stores what it can't shrink in blocks of at most 64 KiB with 5 bytes before each; in practice smaller ones.
    return TAR_BLOCK_BYTES + size // 16_384 * 5


def _archive(files: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with (
        GzipFile(fileobj=written, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()
