"""Permissions: what a caller may do in which cluster. Knows no token: who calls is settled before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edgegc.errors import Forbidden, Invalid, NotFound
from edgegc.model.credential import cluster_of_scope

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller

Need = Literal["member", "read", "admin"]
"""What a call needs in a cluster: what any node of it may, reading like an administrator, or administration."""


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
        cluster_id = cluster_of_scope(scope)
        if cluster_id is not None and levels.get(cluster_id) != "admin":
            levels[cluster_id] = scope.rpartition(":")[2]
    return levels
