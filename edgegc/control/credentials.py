"""Credentials: from a token to a caller. Tokens are stored only as keyed digests.

Knows no HTTP: what a failure looks like from outside is the API's business, and it always looks the same.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from edgegc.errors import Unauthorized, Unavailable
from edgegc.model.credential import Caller
from edgegc.store import enrolment_keys, nodes

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.roll import Roll, RollEntry
    from edgegc.control.write import Write

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
    return f"{prefix}_{record_id.replace('-', '')}_{secrets.token_urlsafe(SECRET_BYTES)}"


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


def node_entry(roll: Roll, node_id: str, digest: bytes) -> RollEntry:
    """Return what is known of the node whose token has this digest. Unauthorized, with the reason for the log only."""
    entry = roll.entry(node_id)
    if entry is None:
        raise Unauthorized("node token of a node that does not exist")
    if not hmac.compare_digest(entry.token_digest, digest):
        raise Unauthorized("node token with a wrong or replaced secret")
    return entry


async def _node(control: Control, node_id: str, digest: bytes, source: str, request_id: str) -> Caller:
    entry = node_entry(control.roll, node_id, digest)
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
