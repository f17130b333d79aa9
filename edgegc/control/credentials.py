"""Credentials: from a token to a caller, and what a caller may. Tokens are stored only as keyed digests.

Knows no HTTP: what a failure looks like from outside is the API's business, and it always looks the same.
"""

from __future__ import annotations

import hmac
import re
import secrets
import uuid
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgegc.errors import Forbidden, Invalid, NotFound, Unauthorized, Unavailable
from edgegc.model.credential import Caller
from edgegc.store import enrolment_keys, nodes

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.write import Write

Need = Literal["member", "read", "admin"]
"""What a call needs in a cluster: what any node of it may, reading like an administrator, or administration."""

NODE, KEY, TOKEN = "egn", "egk", "ega"

SECRET_BYTES = 32
"""256 random bits: guessing is hopeless, so a fast keyed hash suffices where passwords would need a slow one."""

_FORM = re.compile(r"(egn|egk|ega)_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")


class Parts(NamedTuple):
    """A token's kind, and the id of the record that it belongs to."""

    prefix: str
    id: str


def mint(prefix: str, record_id: str) -> str:
    """Return a new token for a record."""
    return f"{prefix}_{uuid.UUID(record_id).hex}_{secrets.token_urlsafe(SECRET_BYTES)}"


def parse(token: str) -> Parts:
    """Return what a token says of itself; Unauthorized when it has not the form of one."""
    match = _FORM.fullmatch(token)
    if match is None:
        raise Unauthorized("malformed token")
    h = match[2]
    return Parts(match[1], f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}")


async def authenticate(control: Control, token: str, *, source: str, request_id: str) -> Caller:
    """Return who presents ``token`` (without ``Bearer``). Unauthorized, with the reason for the log only.

    Node and API tokens are looked up in the roll, without SQL; only the first use of a node's token waits for a write.
    """
    prefix, record_id = parse(token)
    digest = control.vault.token_digest(token)
    match prefix:
        case "egn":
            return await _node(control, record_id, digest, source, request_id)
        case "ega":
            return _api_token(control, record_id, digest, source, request_id)
        case _:
            return await _enrolment_key(control, record_id, digest, source, request_id)


def socket_caller(request_id: str) -> Caller:
    """Return the caller behind the admin socket: who can open it is the operator."""
    return Caller(kind="operator", id="socket", source="socket", request_id=request_id)


def system_caller() -> Caller:
    """Return the caller of what edgegc does by itself."""
    return Caller(kind="system", id="edgegc", source="local")


def operator_only(caller: Caller) -> None:
    """Raise Forbidden unless the caller is the operator."""
    if caller.kind not in ("operator", "system"):
        raise Forbidden("only the operator may do this")


def node_only(caller: Caller) -> str:
    """Return the node id of a node's own call; Forbidden for anybody else."""
    if caller.node_id is None:
        raise Forbidden("only a node may do this, with its own token")
    return caller.node_id


def may_read_metrics(caller: Caller) -> bool:
    """Whether the caller may see ``/metrics``."""
    return caller.kind == "operator" or "metrics" in caller.scopes


def cluster_of(control: Control, caller: Caller, cluster_id: str | None, need: Need = "admin") -> str:
    """Return the id of the cluster that a call is about, when the caller may do what it ``need``s there.

    Invalid when it must be named and is not, NotFound when the caller may not know of it, Forbidden.
    """
    match caller.kind:
        case "operator" | "system":
            if cluster_id is None:
                raise Invalid("cluster_id: missing; name the cluster, as in ?cluster_id=…")
            if control.roll.cluster(cluster_id) is None:
                raise NotFound("no such cluster")
            return cluster_id
        case "node":
            if caller.cluster_id is None or cluster_id not in (None, caller.cluster_id):
                raise NotFound("no such cluster")
            if need != "member" and caller.role != "admin":
                raise Forbidden("only a node whose role is admin may do this")
            return caller.cluster_id
        case "token":
            return _cluster_of_token(control, caller, cluster_id, need)
        case "enrolment_key":
            raise Forbidden("an enrolment key can only enrol")


def require(control: Control, caller: Caller, cluster_id: str | None, need: Need, *, what: str) -> str:
    """As :func:`cluster_of`, for a record found by its own id: whose cluster the caller may not know of is not there.

    ``cluster_id`` is the record's, None when there is no such record; ``what`` it would be, for the sentence.
    """
    if caller.kind == "enrolment_key":
        raise Forbidden("an enrolment key can only enrol")
    try:
        if cluster_id is not None:
            return cluster_of(control, caller, cluster_id, need)
    except NotFound:
        pass
    raise NotFound(f"no such {what}")


async def _node(control: Control, node_id: str, digest: bytes, source: str, request_id: str) -> Caller:
    entry = control.roll.entry(node_id)
    if entry is None:
        raise Unauthorized("node token of a node that does not exist")
    if not hmac.compare_digest(entry.token_digest, digest):
        raise Unauthorized("node token with a wrong or replaced secret")
    caller = Caller(
        kind="node",
        id=node_id,
        cluster_id=entry.cluster_id,
        node_id=node_id,
        role=entry.role,
        source=source,
        request_id=request_id,
    )
    if not entry.token_used:
        await _mark_used(control, caller, node_id, digest)
    control.fleet.seen(node_id)
    return caller


async def _mark_used(control: Control, caller: Caller, node_id: str, digest: bytes) -> None:
    """Store the first use of a node's token before it is answered: from now on an enrolment can't be repeated."""

    def job(write: Write) -> None:
        if nodes.mark_token_used(write.connection, node_id, token_digest=digest, at=write.now):
            write.changed_node(node_id)
            write.audit("node.first_contact", node_id)

    try:
        await control.write(caller, job)
    except Unavailable:
        # A full disk must not keep nodes from their configuration; the next call tries again.
        return
    entry = control.roll.entry(node_id)
    if entry is None or not hmac.compare_digest(entry.token_digest, digest):
        raise Unauthorized("node token that was replaced just now")


def _api_token(control: Control, token_id: str, digest: bytes, source: str, request_id: str) -> Caller:
    entry = control.roll.token(token_id)
    if entry is None:
        raise Unauthorized("API token that does not exist")
    if not hmac.compare_digest(entry.digest, digest):
        raise Unauthorized("API token with a wrong secret")
    if entry.expires_at is not None and entry.expires_at <= control.clock.now():
        raise Unauthorized("API token that has expired")
    control.token_uses.note(token_id, control.clock.now())
    return Caller(
        kind="operator" if "operator" in entry.scopes else "token",
        id=token_id,
        scopes=entry.scopes,
        source=source,
        request_id=request_id,
    )


async def _enrolment_key(
    control: Control, key_id: str, digest: bytes, source: str, request_id: str
) -> Caller:
    found = await control.database.read(lambda connection: enrolment_keys.get(connection, key_id))
    if found is None:
        raise Unauthorized("enrolment key that does not exist")
    key, stored = found
    if not hmac.compare_digest(stored, digest):
        raise Unauthorized("enrolment key with a wrong secret")
    return Caller(
        kind="enrolment_key", id=key_id, cluster_id=key.cluster_id, source=source, request_id=request_id
    )


def _cluster_of_token(control: Control, caller: Caller, cluster_id: str | None, need: Need) -> str:
    levels = _levels(caller.scopes)
    if cluster_id is None:
        if not levels:
            raise Forbidden("this token is for no cluster")
        if len(levels) > 1:
            raise Invalid("cluster_id: missing; this token is for several clusters")
        (cluster_id,) = levels
    level = levels.get(cluster_id)
    if level is None or control.roll.cluster(cluster_id) is None:
        raise NotFound("no such cluster")
    if need == "admin" and level != "admin":
        raise Forbidden("this token may only read")
    return cluster_id


def _levels(scopes: tuple[str, ...]) -> dict[str, str]:
    """Return what a token may in which cluster: ``read`` or ``admin``, by cluster id."""
    levels: dict[str, str] = {}
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        cluster_id, _, level = rest.partition(":")
        if kind == "cluster" and levels.get(cluster_id) != "admin":
            levels[cluster_id] = level
    return levels
