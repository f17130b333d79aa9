"""Rotation of a cluster's authority and bundle signer, in three steps of the operator. Knows no schedule.

======== =========================================== ============================ =================================
phase    certificates are signed by                  nodes trust                  bundles are signed by
======== =========================================== ============================ =================================
none     the one authority                           it, and its signer           the one signer
prepared the old authority                           both, and both signers       the old signer
issued   the new authority: all are signed again     both, and both signers       the new signer; the old one for
                                                                                  nodes that have not applied
                                                                                  ``prepare`` yet
none     the new authority                           it alone, and its signer     the new signer
======== =========================================== ============================ =================================

Nobody is cut off as long as no step is taken before every node has applied the one before: whoever shows a certificate
of the new authority shows it to nodes that trust it, and whoever still shows one of the old is trusted until all have
replaced it. ``force`` overrides the wait. A node that was away for ``prepare`` and ``issue`` follows when it is back;
one that is left behind by ``retire`` trusts no key that still exists, and has to join again: nothing that could be sent
to it could be told from a forgery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgegc.control import existing, node_changes, signing
from edgegc.control.callers import operator_only
from edgegc.control.versions import bump_cluster
from edgegc.errors import Conflict
from edgegc.model.cluster import Authority, Cluster, RotationPhase, rotation_phase
from edgegc.model.message import CaRotation, RotationWaiting
from edgegc.store import authorities, certificates, nodes

if TYPE_CHECKING:
    import sqlite3

    from edgegc.control.control import Control
    from edgegc.control.write import Write
    from edgegc.model.credential import Caller
    from edgegc.model.message import CaRotationStep, RotationStep

BATCH = 500
"""Nodes read at a time: a node is 3 KB in memory, and a cluster may have ten thousand."""

NAMED = 10
"""As many waiting nodes are named in a refusal; the rotation's status lists all."""

TAKEN_IN: dict[RotationStep, RotationPhase] = {"prepare": "none", "issue": "prepared", "retire": "issued"}
_NEXT: dict[RotationPhase, RotationStep] = {phase: step for step, phase in TAKEN_IN.items()}


class _State(msgspec.Struct, frozen=True):
    cluster: Cluster
    phase: RotationPhase
    authorities: dict[str, Authority]
    certified: list[tuple[str, str]]

    @property
    def version(self) -> int:
        """The version that brought the present phase."""
        carrier = "next" if self.phase == "prepared" else "active"
        return self.authorities[carrier].phase_version


async def status(control: Control, caller: Caller, cluster_id: str) -> CaRotation:
    """Return how far a rotation is, and who has not applied its last step. NotFound; Conflict in an uploaded cluster."""
    operator_only(caller)
    return _view(control, await control.database.read(lambda connection: _state(connection, cluster_id)))


async def take(control: Control, caller: Caller, cluster_id: str, request: CaRotationStep) -> CaRotation:
    """Take a step of the rotation, and return how it stands then.

    NotFound. Conflict for a step out of turn, in an uploaded cluster, and, unless it is forced, while a node or the box's
    own lighthouse has not applied the step before. Unavailable while the clock is wrong.
    """
    operator_only(caller)
    before = await control.database.read(lambda connection: _state(connection, cluster_id))
    waiting = _waiting(control, before)

    def job(write: Write) -> None:
        now = _state(write.connection, cluster_id)
        if now.phase != TAKEN_IN[request.step]:
            raise Conflict(
                f"the rotation of this cluster's authority is in phase {now.phase!r}: the next step is "
                f"{_NEXT[now.phase]!r}, not {request.step!r}"
            )
        if waiting and request.step != "prepare" and not request.force:
            raise Conflict(_not_ready(waiting, now.phase), unless="force")
        {"prepare": _prepare, "issue": _issue, "retire": _retire}[request.step](write, now.cluster)
        write.audit(f"ca.{request.step}{'.forced' if request.force and waiting else ''}", cluster_id)

    # A node that is made between the look and the write is in no danger: its first bundle will be newer than both.
    await control.write(caller, job)
    return await status(control, caller, cluster_id)


def _prepare(write: Write, cluster: Cluster) -> None:
    version = bump_cluster(write, cluster.id)
    signing.make_authority(write, cluster, phase="next", version=version)
    signing.make_signer(write, cluster.id, phase="next", version=version)


def _issue(write: Write, cluster: Cluster) -> None:
    version = bump_cluster(write, cluster.id)
    signing.turn(write, cluster.id, version=version)
    name = ""
    while batch := nodes.certified(write.connection, cluster.id, after=name, limit=BATCH):
        for node in batch:
            node_changes.sign_again(write, cluster, node, version=version)
        name = batch[-1].name
    box = certificates.current_of_box(write.connection, cluster.id)
    if box is not None:
        certificates.supersede(write.connection, box, superseded_in=version, blocklist_at=None)
        signing.certify_box(write, cluster)


def _retire(write: Write, cluster: Cluster) -> None:
    authorities.drop_old(write.connection, cluster.id, version=bump_cluster(write, cluster.id))


def _state(connection: sqlite3.Connection, cluster_id: str) -> _State:
    cluster = existing.cluster(connection, cluster_id)
    known = authorities.authorities(connection, cluster_id)
    if not known:
        raise Conflict(
            "edgegc holds no authority of an uploaded cluster: its certificates come from elsewhere"
        )
    return _State(
        cluster,
        rotation_phase(known),
        {authority.phase: authority for authority in known},
        nodes.certified_names(connection, cluster_id),
    )


def _view(control: Control, state: _State) -> CaRotation:
    old = state.authorities["old" if state.phase == "issued" else "active"]
    new = {"none": None, "prepared": "next", "issued": "active"}[state.phase]
    waiting = _waiting(control, state)
    return CaRotation(
        phase=state.phase,
        old_fingerprint=old.fingerprint,
        new_fingerprint=None if new is None else state.authorities[new].fingerprint,
        waiting_for=waiting,
        ready=state.phase == "none" or not waiting,
    )


def _waiting(control: Control, state: _State) -> tuple[RotationWaiting, ...]:
    """Return who has not applied the last step. What a node says of itself counts as soon as it is said."""
    waiting = [
        RotationWaiting(id=node_id, name=name)
        for node_id, name in state.certified
        if (control.fleet.presence(node_id).applied_version or 0) < state.version
    ]
    box = control.lighthouses.get(state.cluster.id)
    # One that does not run can't be cut off: it will start with the newest.
    box_runs = state.cluster.provide_lighthouse and box is not None and box.pid is not None
    if box_runs and box is not None and (box.version_running or 0) < state.version:
        waiting.insert(0, RotationWaiting(id=None, name=signing.BOX_NAME))
    return tuple(waiting)


def _not_ready(waiting: tuple[RotationWaiting, ...], phase: RotationPhase) -> str:
    step = {"prepared": "prepare", "issued": "issue"}[phase]
    names = ", ".join(each.name for each in waiting[:NAMED])
    more = f" and {len(waiting) - NAMED} more" if len(waiting) > NAMED else ""
    return f"not every node has applied {step!r} yet: waiting for {names}{more}, which would be cut off"
