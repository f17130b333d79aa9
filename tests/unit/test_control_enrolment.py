"""Enrolment: what a key allows, how often, and the one enrolment that may be repeated."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from edgegc.control import bundles, enrolment, nodes
from edgegc.errors import Conflict, Forbidden, Invalid, NotFound, Unauthorized
from edgegc.model import message
from edgegc.model.manifest import Server
from edgegc.nebula import bundle, certificate
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key

if TYPE_CHECKING:
    from edgegc.model.credential import Caller


async def enroll(plane: Plane, caller: Caller, name: str, **changes: Any) -> message.Enrolled:
    changes.setdefault("public_key", new_public_key())
    return await enrolment.enroll(plane.control, caller, message.Enroll(name=name, **changes))


async def test_an_enrolled_machine_can_fetch_and_verify_its_bundle() -> None:
    servers = (Server(url="https://192.0.2.1:8443", pin="ab" * 32),)
    async with control_plane(servers=servers) as plane:
        caller = await plane.key(groups=("edge",))
        enrolled = await enroll(plane, caller, "pi-1", mtu=1400, nebula_version="1.9.3")
        node = await plane.node(enrolled.node_id)
        assert (node.name, node.role, node.mtu, node.groups) == ("pi-1", "member", 1400, ("edge",))
        assert node.nebula_version == "1.9.3"
        assert enrolled.overlay_ip == node.overlay_ip == "10.42.0.2/16"
        assert enrolled.servers == servers
        signed = await bundles.node_bundle(plane.control, await plane.caller(enrolled.node_token))
        bundle.verify(
            signed.body,
            base64.b64decode(signed.signature),
            signers=bundle.parse_signers(enrolled.signers),
            cluster_id=enrolled.cluster_id,
            node_id=enrolled.node_id,
            version=enrolled.version,
        )
        unpacked = bundle.read(signed.body)
        assert unpacked.manifest.version == enrolled.version == signed.version
        host = certificate.parse_pem(unpacked.files[bundle.CERTIFICATE].decode())
        authorities = certificate.parse_bundle_pem(unpacked.files[bundle.AUTHORITIES].decode())
        certificate.verify(host, authorities=authorities, at=plane.clock.at)
        assert (host.details.name, host.details.groups) == ("pi-1", ("edge",))


async def test_a_key_makes_as_many_nodes_as_it_has_uses() -> None:
    async with control_plane() as plane:
        caller = await plane.key(uses=2)
        await enroll(plane, caller, "a")
        await enroll(plane, caller, "b")
        with pytest.raises(Unauthorized, match="spent"):
            await enroll(plane, caller, "c")


async def test_a_refused_enrolment_uses_nothing_up() -> None:
    async with control_plane() as plane:
        await plane.add_node("taken")
        caller = await plane.key()
        with pytest.raises(Conflict, match=r"^a node named 'taken' already exists$"):
            await enroll(plane, caller, "taken")
        with pytest.raises(Invalid, match=r"^public_key: "):
            await enroll(plane, caller, "a", public_key="rubbish")
        await enroll(plane, caller, "a")


async def test_an_unlimited_key_is_never_spent() -> None:
    async with control_plane() as plane:
        caller = await plane.key(uses=None)
        for number in range(20):
            await enroll(plane, caller, f"n{number}")


async def test_an_expired_and_a_revoked_key_are_refused() -> None:
    async with control_plane() as plane:
        caller = await plane.key(expires_in_s=60)
        plane.clock.at += 60
        with pytest.raises(Unauthorized, match="expired"):
            await enroll(plane, caller, "a")
        caller = await plane.key()
        await enrolment.revoke_key(plane.control, OPERATOR, caller.id)
        with pytest.raises(Unauthorized, match="revoked"):
            await enroll(plane, caller, "a")
        with pytest.raises(NotFound):
            await enrolment.revoke_key(plane.control, OPERATOR, caller.id)


async def test_only_an_enrolment_key_enrols() -> None:
    async with control_plane() as plane:
        with pytest.raises(Forbidden):
            await enroll(plane, OPERATOR, "a")


async def test_a_lost_answer_can_be_asked_for_again_with_a_spent_key() -> None:
    async with control_plane() as plane:
        caller = await plane.key()
        public_key = new_public_key()
        first = await enroll(plane, caller, "a", public_key=public_key)
        again = await enroll(plane, caller, "a", public_key=public_key)
        assert again.node_id == first.node_id
        assert again.node_token != first.node_token
        assert again.version == first.version
        with pytest.raises(Unauthorized):
            await plane.caller(first.node_token)
        await plane.caller(again.node_token)
        listed = await enrolment.list_keys(plane.control, OPERATOR, plane.cluster_id)
        assert [key.used for key in listed.enrollment_keys] == [1]


async def _no_longer_the_same(plane: Plane, first: message.Enrolled, reason: str) -> dict[str, Any]:
    match reason:
        case "token used":
            await plane.caller(first.node_token)
        case "an hour later":
            plane.clock.at += 3600
        case "now an admin":
            await plane.patch(first.node_id, role="admin")
        case "another public key":
            return {"public_key": new_public_key()}
        case "another name":
            return {"name": "b"}
        case _:
            pytest.fail(reason)
    return {}


@pytest.mark.parametrize(
    "reason", ["token used", "an hour later", "now an admin", "another public key", "another name"]
)
async def test_nothing_but_the_same_enrolment_is_repeated(reason: str) -> None:
    async with control_plane() as plane:
        caller = await plane.key()
        request = {"name": "a", "public_key": new_public_key()}
        first = await enroll(plane, caller, **request)
        changes = await _no_longer_the_same(plane, first, reason)
        with pytest.raises(Unauthorized, match="spent"):
            await enroll(plane, caller, **(request | changes))


async def test_another_key_does_not_repeat_an_enrolment() -> None:
    async with control_plane() as plane:
        public_key = new_public_key()
        await enroll(plane, await plane.key(), "a", public_key=public_key)
        with pytest.raises(Conflict):
            await enroll(plane, await plane.key(), "a", public_key=public_key)


async def test_a_node_outlives_the_key_that_it_came_with() -> None:
    async with control_plane() as plane:
        caller = await plane.key()
        enrolled = await enroll(plane, caller, "a")
        await enrolment.revoke_key(plane.control, OPERATOR, caller.id)
        assert (await plane.node(enrolled.node_id)).name == "a"


async def test_keys_are_listed_without_their_secret_and_not_when_revoked() -> None:
    async with control_plane() as plane:
        kept, revoked = await plane.key(label="shelf 3", uses=None), await plane.key()
        await enrolment.revoke_key(plane.control, OPERATOR, revoked.id)
        (listed,) = (await enrolment.list_keys(plane.control, OPERATOR, plane.cluster_id)).enrollment_keys
    assert (listed.id, listed.label, listed.uses) == (kept.id, "shelf 3", None)
    assert not isinstance(listed.key, str)


async def test_the_name_of_a_deleted_node_is_free_again() -> None:
    async with control_plane() as plane:
        caller = await plane.key(uses=2)
        first = await enroll(plane, caller, "a")
        await nodes.delete(plane.control, OPERATOR, first.node_id)
        second = await enroll(plane, caller, "a")
        assert second.node_id != first.node_id
        assert second.overlay_ip != first.overlay_ip
