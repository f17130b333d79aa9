"""Callers: those who need no token, and what one may by its kind alone. Knows no cluster and no stored row."""

from __future__ import annotations

from edgegc.errors import Forbidden
from edgegc.model.credential import Caller


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
