"""Who may do what: every kind of caller against every kind of call; what is another tenant's is not there.

That no endpoint is forgotten is held by ``test_tenant_isolation.py``, which walks the table of routes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from edgegc.control import (
    bundles,
    callers,
    certificates,
    clusters,
    enrolment,
    lighthouses,
    node_batches,
    nodes,
    policies,
    rollout,
    tenants,
    tokens,
    topology,
    uploads,
)
from edgegc.errors import Conflict, Error, Forbidden, Invalid, NotFound, Unauthorized
from edgegc.model import message
from tests.control_plane import OPERATOR, Plane, control_plane, new_public_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.model.credential import Caller

Call = "Callable[[Control, Caller, str | None, str], Awaitable[Any]]"


class _Unread:
    """A body that must not be read before it is known who sends it, and for which cluster."""

    def __aiter__(self) -> _Unread:
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError


READS: dict[str, Any] = {
    "nodes.list": lambda c, w, cluster, node: nodes.list_(c, w, cluster, message.NodeQuery()),
    "nodes.get": lambda c, w, cluster, node: nodes.get(c, w, node),
    "keys.list": lambda c, w, cluster, node: enrolment.list_keys(c, w, cluster),
    "policy.get": lambda c, w, cluster, node: policies.get(c, w, cluster),
    "rollout": lambda c, w, cluster, node: rollout.rollout(c, w, cluster),
    "bundles.list": lambda c, w, cluster, node: uploads.list_(c, w, cluster),
}
WRITES: dict[str, Any] = {
    "nodes.create": lambda c, w, cluster, node: nodes.create(c, w, cluster, message.NodeCreate(name="new")),
    "nodes.batch": lambda c, w, cluster, node: node_batches.create(
        c, w, cluster, message.NodeBatch(nodes=(message.NodeCreate(name="one"),))
    ),
    "nodes.update": lambda c, w, cluster, node: nodes.update(c, w, node, message.NodeUpdate(mtu=1400)),
    "nodes.token": lambda c, w, cluster, node: nodes.rotate_token(c, w, node),
    "nodes.lighthouse": lambda c, w, cluster, node: nodes.set_lighthouse(
        c, w, node, message.LighthouseSet(public_addresses=("203.0.113.9:1",))
    ),
    "nodes.no_lighthouse": lambda c, w, cluster, node: nodes.unset_lighthouse(c, w, node),
    "nodes.relay": lambda c, w, cluster, node: nodes.set_relay(c, w, node),
    "nodes.no_relay": lambda c, w, cluster, node: nodes.unset_relay(c, w, node),
    "nodes.routes": lambda c, w, cluster, node: nodes.set_routes(c, w, node, message.Routes(routes=())),
    "keys.create": lambda c, w, cluster, node: enrolment.create_key(
        c, w, cluster, message.EnrolmentKeyCreate()
    ),
    "policy.put": lambda c, w, cluster, node: policies.put(
        c, w, cluster, message.Policy(inbound=(), outbound=())
    ),
    "policy.preview": lambda c, w, cluster, node: policies.preview(
        c, w, cluster, message.Policy(inbound=(), outbound=())
    ),
    "bundles.upload": lambda c, w, cluster, node: uploads.receive(c, w, cluster, _Unread(), length=None),
    "bundles.get": lambda c, w, cluster, node: uploads.get(c, w, cluster, 1),
    "bundles.delete": lambda c, w, cluster, node: uploads.delete(c, w, cluster, 1),
    "bundles.activate": lambda c, w, cluster, node: uploads.activate(c, w, cluster, 1),
    "nodes.delete": lambda c, w, cluster, node: nodes.delete(c, w, node),
}
MEMBERS: dict[str, Any] = {
    "topology": lambda c, w, cluster, node: topology.cluster_topology(c, w, cluster),
    "routes": lambda c, w, cluster, node: topology.cluster_routes(c, w, cluster),
}
NODES_OWN: dict[str, Any] = {
    "bundle": lambda c, w, cluster, node: bundles.node_bundle(c, w),
    "own_routes": lambda c, w, cluster, node: topology.own_routes(c, w),
    "set_own_routes": lambda c, w, cluster, node: topology.set_own_routes(c, w, message.Routes(routes=())),
    "certificate": lambda c, w, cluster, node: certificates.issue(
        c, w, message.CertificateRequest(public_key=new_public_key())
    ),
}
OPERATORS: dict[str, Any] = {
    "tenants.create": lambda c, w, cluster, node: tenants.create(c, w, message.TenantCreate(name="t")),
    "tenants.list": lambda c, w, cluster, node: tenants.list_(c, w),
    "clusters.list": lambda c, w, cluster, node: clusters.list_(c, w),
    "clusters.get": lambda c, w, cluster, node: clusters.get(c, w, cluster),
    "clusters.update": lambda c, w, cluster, node: clusters.update(c, w, cluster, message.ClusterUpdate()),
    "tokens.list": lambda c, w, cluster, node: tokens.list_(c, w),
    "tokens.create": lambda c, w, cluster, node: tokens.create(
        c, w, message.ApiTokenCreate(scopes=("metrics",))
    ),
    "lighthouses.list": lambda c, w, cluster, node: lighthouses.list_(c, w),
}
IN_CLUSTER = READS | WRITES | MEMBERS
ALL = IN_CLUSTER | NODES_OWN | OPERATORS


async def _callers(plane: Plane) -> dict[str, Caller]:
    member = await plane.add_node("member")
    admin = await plane.add_node("admin", role="admin")

    async def holder(*scopes: str) -> Caller:
        made = await tokens.create(plane.control, OPERATOR, message.ApiTokenCreate(scopes=scopes))
        return await plane.caller(made.token)

    return {
        "operator": OPERATOR,
        "operator token": await holder("operator"),
        "member": await plane.caller(member.node_token),
        "admin node": await plane.caller(admin.node_token),
        "admin token": await holder(f"cluster:{plane.cluster_id}:admin"),
        "read token": await holder(f"cluster:{plane.cluster_id}:read"),
        "metrics token": await holder("metrics"),
        "enrolment key": await plane.key(),
    }


MAY: dict[str, dict[str, Any]] = {
    "operator": IN_CLUSTER | OPERATORS,
    "operator token": IN_CLUSTER | OPERATORS,
    "member": MEMBERS | NODES_OWN,
    "admin node": IN_CLUSTER | NODES_OWN,
    "admin token": IN_CLUSTER,
    "read token": READS | MEMBERS,
    "metrics token": {},
    "enrolment key": {},
}


@pytest.mark.parametrize("kind", MAY)
async def test_each_kind_of_caller_may_exactly_what_the_contract_says(kind: str) -> None:
    async with control_plane() as plane:
        caller = (await _callers(plane))[kind]
        target = await plane.add_node("target")
        allowed = set()
        for name, call in ALL.items():
            try:
                await call(plane.control, caller, plane.cluster_id, target.id)
            except (Forbidden, NotFound):
                continue
            except Conflict:
                # This cluster has no bundles to upload; who may not is not even told that.
                assert name.startswith("bundles.")
            allowed.add(name)
        assert allowed == set(MAY[kind])


@pytest.mark.parametrize("kind", ["member", "admin node", "admin token", "read token", "metrics token"])
async def test_what_belongs_to_another_cluster_is_not_there(kind: str) -> None:
    async with control_plane() as plane:
        caller = (await _callers(plane))[kind]
        foreign = await plane.add_cluster("foreign")
        target = await plane.add_node("target", cluster_id=foreign.id)
        for name, call in IN_CLUSTER.items():
            with pytest.raises(NotFound, match=r"^no such (cluster|node)$"):
                await call(plane.control, caller, foreign.id, target.id)
            with pytest.raises(NotFound):
                await call(plane.control, caller, "no-such-id", "no-such-id")
            assert name


async def test_a_foreign_enrolment_key_can_not_be_revoked() -> None:
    async with control_plane() as plane:
        callers = await _callers(plane)
        foreign = await plane.add_cluster("foreign")
        key = await enrolment.create_key(plane.control, OPERATOR, foreign.id, message.EnrolmentKeyCreate())
        for kind in ("admin node", "admin token"):
            with pytest.raises(NotFound, match=r"^no such enrolment key$"):
                await enrolment.revoke_key(plane.control, callers[kind], key.id)


async def test_the_operator_has_to_name_the_cluster() -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match=r"^cluster_id: missing"):
            await nodes.list_(plane.control, OPERATOR, None, message.NodeQuery())


async def test_a_node_and_a_token_of_one_cluster_need_not_name_it() -> None:
    async with control_plane() as plane:
        callers = await _callers(plane)
        for kind in ("admin node", "admin token", "read token"):
            page = await nodes.list_(plane.control, callers[kind], None, message.NodeQuery())
            assert page.total == 2


async def test_a_token_for_two_clusters_may_administer_one_and_read_the_other() -> None:
    async with control_plane() as plane:
        other = await plane.add_cluster("other")
        scopes = (f"cluster:{plane.cluster_id}:admin", f"cluster:{other.id}:read")
        made = await tokens.create(plane.control, OPERATOR, message.ApiTokenCreate(scopes=scopes))
        caller = await plane.caller(made.token)
        with pytest.raises(Invalid, match="several clusters"):
            await nodes.list_(plane.control, caller, None, message.NodeQuery())
        await nodes.create(plane.control, caller, plane.cluster_id, message.NodeCreate(name="a"))
        await nodes.list_(plane.control, caller, other.id, message.NodeQuery())
        with pytest.raises(Forbidden):
            await nodes.create(plane.control, caller, other.id, message.NodeCreate(name="a"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: "rubbish",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token + "\n",
        lambda token: token[:-2] + ("AA" if not token.endswith("AA") else "BB"),
        lambda token: token.replace("egn_", "ega_"),
        lambda token: token.replace("egn_", "egk_"),
        lambda token: token.upper(),
        lambda token: "egn_" + "0" * 32 + token[36:],
    ],
)
async def test_a_token_that_is_not_exactly_right_authenticates_nobody(
    spoil: Callable[[str], str],
) -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        assert isinstance(node.node_token, str)
        with pytest.raises(Unauthorized):
            await plane.caller(spoil(node.node_token))


async def test_a_rotated_token_stops_at_once() -> None:
    async with control_plane() as plane:
        node = await plane.add_node("a")
        await plane.caller(node.node_token)
        rotated = await nodes.rotate_token(plane.control, OPERATOR, node.id)
        with pytest.raises(Unauthorized):
            await plane.caller(node.node_token)
        assert (await plane.caller(rotated.node_token)).node_id == node.id


async def test_an_api_token_ends_when_it_expires_or_is_revoked() -> None:
    async with control_plane() as plane:
        request = message.ApiTokenCreate(scopes=("operator",), expires_in_s=60)
        made = await tokens.create(plane.control, OPERATOR, request)
        await plane.caller(made.token)
        plane.clock.at += 60
        with pytest.raises(Unauthorized, match="expired"):
            await plane.caller(made.token)
        lasting = await tokens.create(plane.control, OPERATOR, message.ApiTokenCreate(scopes=("operator",)))
        await tokens.revoke(plane.control, OPERATOR, lasting.id)
        with pytest.raises(Unauthorized, match="does not exist"):
            await plane.caller(lasting.token)
        with pytest.raises(NotFound):
            await tokens.revoke(plane.control, OPERATOR, lasting.id)


@pytest.mark.parametrize("scope", ["", "root", "cluster:x:admin", "cluster:*:admin", "operator "])
async def test_a_scope_that_is_none_is_refused_by_name(scope: str) -> None:
    async with control_plane() as plane:
        with pytest.raises(Invalid, match=r"^scopes: "):
            await tokens.create(plane.control, OPERATOR, message.ApiTokenCreate(scopes=(scope,)))


async def test_no_secret_is_stored() -> None:
    async with control_plane(cluster={"provide_lighthouse": True}) as plane:
        callers = await _callers(plane)
        assert callers
        node = await plane.add_node("a")
        key = await enrolment.create_key(
            plane.control, OPERATOR, plane.cluster_id, message.EnrolmentKeyCreate()
        )
        assert isinstance(node.node_token, str)
        assert isinstance(key.key, str)
        dump = await plane.control.database.read(
            lambda connection: "\n".join(connection.iterdump())  # type: ignore[no-any-return]
        )
        for secret in (node.node_token, key.key):
            assert secret not in dump
            assert secret.split("_", 2)[2] not in dump
            assert secret.encode().hex().upper() not in dump


async def test_every_refusal_is_an_error_of_ours() -> None:
    async with control_plane() as plane:
        for caller in (await _callers(plane)).values():
            for call in ALL.values():
                with contextlib.suppress(Error):
                    await call(plane.control, caller, "no-such-id", "no-such-id")


def test_socket_callers_are_the_operator() -> None:
    callers.operator_only(callers.socket_caller("r"))
