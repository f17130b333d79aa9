"""Credentials: from a token to a caller, and what a caller may. Tokens are stored only as keyed digests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edgegc.model.credential import Caller

if TYPE_CHECKING:
    from edgegc.control.control import Control

Need = Literal["read", "admin"]


async def authenticate(control: Control, token: str, *, source: str, request_id: str) -> Caller:
    """Return who presents ``token`` (without ``Bearer``). Unauthorized, with the reason for the log only.

    Node and API tokens are looked up in the roll, without SQL; only the first use of a node's token waits for a write.
    """
    raise NotImplementedError


def socket_caller(request_id: str) -> Caller:
    """Return the caller behind the admin socket: who can open it is the operator."""
    return Caller(kind="operator", id="socket", source="socket", request_id=request_id)


def operator_only(caller: Caller) -> None:
    """Raise Forbidden unless the caller is the operator."""
    raise NotImplementedError


def node_only(caller: Caller) -> str:
    """Return the node id of a node's own call; Forbidden for anybody else."""
    raise NotImplementedError


def may_read_metrics(caller: Caller) -> bool:
    """Whether the caller may see ``/metrics``."""
    return caller.kind == "operator" or "metrics" in caller.scopes


def cluster_of(control: Control, caller: Caller, cluster_id: str | None, need: Need = "admin") -> str:
    """Return the id of the cluster that a call is about, when the caller may do what it ``need``s there.

    Invalid when it must be named and is not, NotFound when the caller may not know of it, Forbidden.
    """
    raise NotImplementedError
