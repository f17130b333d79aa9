"""Enrolment: keys, and machines that become nodes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import existing, node_creation
from edgegc.control.credentials import KEY, NODE, mint
from edgegc.control.nodes import public_key_of
from edgegc.control.permissions import cluster_of, require
from edgegc.control.repetition import once
from edgegc.control.views import key_view, overlay_cidr, signer_texts
from edgegc.control.write import new_id
from edgegc.errors import Conflict, Forbidden, NotFound, Unauthorized
from edgegc.model.credential import EnrolmentKey
from edgegc.model.message import DEFAULT_MTU, Enrolled, EnrolmentKeyList, EnrolmentKeyView
from edgegc.store import authorities, clusters, enrolment_keys, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster
    from edgegc.model.credential import Caller
    from edgegc.model.message import Enroll, EnrolmentKeyCreate
    from edgegc.model.node import Node

REPEATABLE_S = 3600
"""An enrolment whose answer was lost can be repeated this long; after that the name is somebody else's."""


async def create_key(
    control: Control, caller: Caller, cluster_id: str | None, request: EnrolmentKeyCreate
) -> EnrolmentKeyView:
    """Make an enrolment key; the view carries it once."""
    found = cluster_of(control, caller, cluster_id)
    node_creation.check_groups(request.groups)
    key_id = new_id()
    text = mint(KEY, key_id)
    digest = control.vault.token_digest(text)

    def job(write: Write) -> EnrolmentKeyView:
        existing.cluster(write.connection, found)
        key = EnrolmentKey(
            id=key_id,
            cluster_id=found,
            label=request.label,
            uses=request.uses,
            used=0,
            groups=request.groups,
            expires_at=write.now + request.expires_in_s,
            revoked_at=None,
            created_at=write.now,
        )
        enrolment_keys.insert(write.connection, key, digest=digest)
        write.audit("enrolment_key.create", key.id)
        return key_view(key, text=text)

    return await control.write(caller, lambda write: once(write, EnrolmentKeyView, job))


async def list_keys(control: Control, caller: Caller, cluster_id: str | None) -> EnrolmentKeyList:
    """Return the cluster's keys that are not revoked, newest first."""
    found = cluster_of(control, caller, cluster_id, "read")
    keys = await control.database.read(lambda connection: enrolment_keys.usable(connection, found))
    return EnrolmentKeyList(enrollment_keys=tuple(key_view(key) for key in keys))


async def revoke_key(control: Control, caller: Caller, key_id: str) -> None:
    """Revoke a key; nodes that enrolled with it stay. NotFound."""
    key = await control.database.read(lambda connection: _listed_key(connection, key_id))
    require(control, caller, None if key is None else key.cluster_id, "admin", what="enrolment key")

    def job(write: Write) -> None:
        if _listed_key(write.connection, key_id) is None:
            raise NotFound("no such enrolment key")
        enrolment_keys.revoke(write.connection, key_id, at=write.now)
        write.audit("enrolment_key.revoke", key_id)

    await control.write(caller, job)


async def enroll(control: Control, caller: Caller, request: Enroll) -> Enrolled:
    """Make a node of the machine that holds the caller's enrolment key.

    Unauthorized: the key is spent, expired or revoked. Conflict: the name is taken, no address is free. Invalid; and
    Unavailable while the clock is wrong. One enrolment may be repeated: see :func:`_repeats`.
    """
    if caller.kind != "enrolment_key":
        raise Forbidden("enrolling takes an enrolment key")
    public_key = public_key_of(request.public_key)
    new_node_id = new_id()

    def make(write: Write, key: EnrolmentKey) -> Enrolled:
        cluster = clusters.get(write.connection, key.cluster_id)
        if cluster is None:
            raise Unauthorized("enrolment key of a cluster that is gone")
        _check_known(write, cluster, request.known_as)
        node = nodes.find(write.connection, cluster.id, request.name)
        repeated = node is not None and _repeats(write, node, key, public_key)
        if not repeated and key.uses is not None and key.used >= key.uses:
            raise Unauthorized("enrolment key that is spent")
        token = mint(NODE, node.id if node is not None and repeated else new_node_id)
        token_digest = control.vault.token_digest(token)
        if node is not None and repeated:
            nodes.set_token(write.connection, node.id, token_digest=token_digest)
            write.changed_node(node.id)
        elif node is not None:
            raise Conflict(f"a node named {request.name!r} already exists")
        else:
            node = node_creation.create(
                write,
                cluster,
                _wanted(write, key, request, public_key),
                node_id=new_node_id,
                token_digest=token_digest,
            )
            # Last: who is refused has then changed nothing, and nobody else's write has to be done again for it.
            enrolment_keys.count_use(write.connection, key.id)
        write.audit("node.enroll", node.id)
        return Enrolled(
            node_id=node.id,
            node_token=token,
            tenant_id=cluster.tenant_id,
            cluster_id=cluster.id,
            cluster_name=cluster.name,
            overlay_ip=overlay_cidr(node.overlay_ip, cluster.network_cidr),
            version=0,
            signers=signer_texts(authorities.signers(write.connection, cluster.id)),
            servers=control.servers,
        )

    def job(write: Write) -> Enrolled:
        key = _usable_key(write, caller.id)
        return once(write, Enrolled, lambda write: make(write, key))

    enrolled = await control.write(caller, job)
    if request.nebula_version is not None:
        control.fleet.runs_nebula(enrolled.node_id, request.nebula_version)
    # Known when the roll has followed.
    return msgspec.structs.replace(enrolled, version=control.roll.effective(enrolled.node_id))


def _listed_key(connection: sqlite3.Connection, key_id: str) -> EnrolmentKey | None:
    stored = enrolment_keys.get(connection, key_id)
    return None if stored is None or stored[0].revoked_at is not None else stored[0]


def _usable_key(write: Write, key_id: str) -> EnrolmentKey:
    stored = enrolment_keys.get(write.connection, key_id)
    if stored is None:
        raise Unauthorized("enrolment key that does not exist")
    key, _ = stored
    if key.revoked_at is not None:
        raise Unauthorized("enrolment key that was revoked")
    if key.expires_at <= write.now:
        raise Unauthorized("enrolment key that has expired")
    return key


def _check_known(write: Write, cluster: Cluster, node_ids: tuple[str, ...]) -> None:
    for node in nodes.get_many(write.connection, node_ids).values() if node_ids else ():
        if node.cluster_id == cluster.id:
            raise Conflict(f"this machine is the node {node.name!r} of the cluster {cluster.name!r} already")


def _repeats(write: Write, node: Node, key: EnrolmentKey, public_key: bytes) -> bool:
    """Whether this is the same machine again, whose first answer was lost on the way.

    Only who holds both the same enrolment key and the same private key can be that machine, and only as long as nobody
    has used the token of the first answer.
    """
    if node.certificate is not None:
        known: bytes | None = node.certificate.public_key
    else:
        known = nodes.enrolled_key(write.connection, node.id)
    return (
        node.enrolment_key_id == key.id
        and known == public_key
        and node.role == "member"
        and node.token_used_at is None
        and 0 <= write.now - node.created_at < REPEATABLE_S
    )


def _wanted(write: Write, key: EnrolmentKey, request: Enroll, public_key: bytes) -> node_creation.Wanted:
    return node_creation.Wanted(
        name=request.name,
        role="member",
        mtu=DEFAULT_MTU if request.mtu is None else request.mtu,
        groups=key.groups,
        overlay_ip=None,
        listen_port=None,
        public_key=public_key,
        enrolment_key_id=key.id,
        enrolled_at=write.now,
        nebula_version=request.nebula_version,
    )
