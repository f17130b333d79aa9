"""Uploaded clusters: what their nodes get, and everything that there is none of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import UNSET

from edgegc.control import certificates, clusters, enrolment, nodes, topology
from edgegc.errors import Conflict, Unauthorized
from edgegc.model import message
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UPLOADED = {"mode": "uploaded"}


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with control_plane(cluster=UPLOADED) as made:
        yield made


async def test_an_uploaded_cluster_has_a_signer_and_no_authority(plane: Plane) -> None:
    seen = await clusters.get(plane.control, OPERATOR, plane.cluster_id)
    assert (seen.mode, seen.ca, seen.version) == ("uploaded", None, 0)
    enrolled = await enrolment.enroll(
        plane.control, await plane.key(), message.Enroll(name="a", public_key=new_public_key())
    )
    assert len(enrolled.signers) == 1
    assert (enrolled.overlay_ip, enrolled.version) == (None, 0)


async def test_a_node_has_neither_address_nor_certificate_and_its_answer_names_the_signers(
    plane: Plane,
) -> None:
    made = await plane.add_node("a", keyed=False, groups=("lab",))
    assert (made.overlay_ip, made.certificate, made.version) == (None, None, 0)
    assert isinstance(made.signers, tuple)
    assert len(made.signers) == 1
    shown = await plane.node(made.id)
    assert (shown.node_token, shown.signers) == (UNSET, UNSET)


async def test_the_same_machine_may_repeat_its_enrolment_and_another_may_not(plane: Plane) -> None:
    key, public_key = await plane.key(uses=1), new_public_key()
    first = await enrolment.enroll(plane.control, key, message.Enroll(name="a", public_key=public_key))
    again = await enrolment.enroll(plane.control, key, message.Enroll(name="a", public_key=public_key))
    assert again.node_id == first.node_id
    assert again.node_token != first.node_token
    with pytest.raises(Unauthorized):
        await enrolment.enroll(plane.control, key, message.Enroll(name="a", public_key=new_public_key()))


@pytest.mark.parametrize("fields", [{"overlay_ip": "10.42.0.9"}, {"public_key": new_public_key()}])
async def test_what_only_a_rendered_node_has_is_refused_by_name(plane: Plane, fields: dict[str, Any]) -> None:
    (field,) = fields
    with pytest.raises(Conflict, match=rf"^{field}: .*'uploaded'"):
        await plane.add_node("a", keyed=False, **fields)


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("overlay_ip", lambda p, n: p.patch(n, overlay_ip="10.42.0.9")),
        (
            "lighthouse",
            lambda p, n: nodes.set_lighthouse(
                p.control, OPERATOR, n, message.LighthouseSet(public_addresses=("203.0.113.9:1",))
            ),
        ),
        ("lighthouse", lambda p, n: nodes.unset_lighthouse(p.control, OPERATOR, n)),
        ("relay", lambda p, n: nodes.set_relay(p.control, OPERATOR, n)),
        ("relay", lambda p, n: nodes.unset_relay(p.control, OPERATOR, n)),
        ("routes", lambda p, n: nodes.set_routes(p.control, OPERATOR, n, message.Routes(routes=()))),
        (
            "provide_lighthouse",
            lambda p, n: clusters.update(
                p.control, OPERATOR, p.cluster_id, message.ClusterUpdate(provide_lighthouse=True)
            ),
        ),
        ("provide_lighthouse", lambda p, n: p.add_cluster("b", **UPLOADED, provide_lighthouse=True)),
    ],
)
async def test_what_edgegc_would_have_to_render_is_a_conflict(plane: Plane, what: str, call: Any) -> None:
    node = await plane.add_node("a", keyed=False)
    with pytest.raises(Conflict, match=rf"^{what}: .*'uploaded'"):
        await call(plane, node.id)
    assert plane.effective(node.id) == [0]


async def test_a_node_of_an_uploaded_cluster_gets_no_certificate_and_announces_nothing(plane: Plane) -> None:
    caller = await plane.caller((await plane.add_node("a", keyed=False)).node_token)
    with pytest.raises(Conflict, match=r"^certificate: "):
        await certificates.issue(
            plane.control, caller, message.CertificateRequest(public_key=new_public_key())
        )
    with pytest.raises(Conflict, match=r"^routes: "):
        await topology.set_own_routes(plane.control, caller, message.Routes(routes=("10.9.0.0/16",)))
    assert (await topology.own_routes(plane.control, caller)).routes == ()


async def test_its_own_settings_change_and_nobodys_version_moves(plane: Plane) -> None:
    node = await plane.add_node("a", keyed=False)
    changed = await plane.patch(node.id, name="b", mtu=1400, groups=("x",), listen_port=4242)
    assert (changed.name, changed.mtu, changed.version) == ("b", 1400, 0)
    await nodes.delete(plane.control, OPERATOR, node.id)
    seen = await clusters.get(plane.control, OPERATOR, plane.cluster_id)
    assert (seen.version, seen.nodes) == (0, 0)
