"""The firewall policy of a cluster: read, replace, and say beforehand whom that concerns.

Only nodes whose rendered rules differ get a new version. Knows no rule's form: see ``policy_rules``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgegc.control import existing, modes, node_changes, policy_rules
from edgegc.control.permissions import cluster_of
from edgegc.control.versions import bump_nodes
from edgegc.model import message
from edgegc.nebula import certificate as codec
from edgegc.nebula import config
from edgegc.store import clusters, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.cluster import Cluster
    from edgegc.model.credential import Caller
    from edgegc.model.policy import Policy


class _Effect(NamedTuple):
    """Whom a policy concerns, by name: whose rules differ, and whose certificate has to be signed again."""

    firewall: tuple[nodes.Membership, ...]
    signed_again: tuple[nodes.Membership, ...]


async def get(control: Control, caller: Caller, cluster_id: str | None) -> message.Policy:
    """Return a cluster's policy. NotFound, Conflict in an uploaded cluster."""
    found = cluster_of(control, caller, cluster_id, "read")
    cluster = await control.database.read(lambda connection: _cluster(connection, found))
    return policy_rules.show(cluster.policy)


async def put(
    control: Control, caller: Caller, cluster_id: str | None, request: message.Policy
) -> message.PolicyChange:
    """Replace a cluster's policy; return it as it is kept, with whom that concerns. Invalid names rule and field.

    NotFound, Conflict in an uploaded cluster, Unavailable where certificates are needed and the clock is wrong.
    """
    found = cluster_of(control, caller, cluster_id)
    wanted = policy_rules.read(request)

    def job(write: Write) -> _Effect:
        cluster = _cluster(write.connection, found)
        effect = _effect(write.connection, cluster, wanted)
        if wanted == cluster.policy:
            return effect
        clusters.set_policy(write.connection, cluster.id, wanted, at=write.now)
        write.audit("policy.set", cluster.id)
        concerned = dict.fromkeys(node.id for node in (*effect.firewall, *effect.signed_again))
        if concerned:
            version = bump_nodes(write, cluster.id, concerned)
            for node in effect.signed_again:
                node_changes.sign_name(write, cluster, node.id, version=version)
        return effect

    return _change(wanted, await control.write(caller, job))


async def preview(
    control: Control, caller: Caller, cluster_id: str | None, request: message.Policy
) -> message.PolicyChange:
    """Return what :func:`put` would, and change nothing. Its errors, but never Unavailable for the clock."""
    found = cluster_of(control, caller, cluster_id)
    wanted = policy_rules.read(request)
    effect = await control.database.read(
        lambda connection: _effect(connection, _cluster(connection, found), wanted)
    )
    return _change(wanted, effect)


def _effect(connection: sqlite3.Connection, cluster: Cluster, wanted: Policy) -> _Effect:
    """Compare what nebula would be given, so that a version moves if and only if that differs."""
    differs: dict[tuple[str, ...], bool] = {}
    if wanted == cluster.policy:
        return _Effect((), ())
    names_matter = wanted.names_hosts and not cluster.policy.names_hosts
    firewall: list[nodes.Membership] = []
    signed_again: list[nodes.Membership] = []
    for node in nodes.members_with_bundle(connection, cluster.id):
        if node.groups not in differs:
            before, after = (config.policy_rules(policy, node.groups) for policy in (cluster.policy, wanted))
            differs[node.groups] = before != after
        if differs[node.groups]:
            firewall.append(node)
        # A rename is not signed while no rule names a host.
        if names_matter and codec.parse_pem(node.certificate_pem).details.name != node.name:
            signed_again.append(node)
    return _Effect(tuple(firewall), tuple(signed_again))


def _cluster(connection: sqlite3.Connection, cluster_id: str) -> Cluster:
    cluster = existing.cluster(connection, cluster_id)
    modes.managed_only(cluster, "firewall policy")
    return cluster


def _change(policy: Policy, effect: _Effect) -> message.PolicyChange:
    shown = policy_rules.show(policy)
    return message.PolicyChange(
        inbound=shown.inbound,
        outbound=shown.outbound,
        nodes=_shown(effect.firewall),
        signed_again=_shown(effect.signed_again),
    )


def _shown(members: tuple[nodes.Membership, ...]) -> tuple[message.PolicyNode, ...]:
    return tuple(message.PolicyNode(id=node.id, name=node.name) for node in members)
