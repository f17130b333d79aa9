"""Enrolment: keys, and machines becoming nodes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import Enroll, Enrolled, EnrolmentKeyCreate, EnrolmentKeyList, EnrolmentKeyView


async def create_key(
    control: Control, caller: Caller, cluster_id: str | None, request: EnrolmentKeyCreate
) -> EnrolmentKeyView:
    """Make an enrolment key; the view carries it once."""
    raise NotImplementedError


async def list_keys(control: Control, caller: Caller, cluster_id: str | None) -> EnrolmentKeyList:
    """Return the cluster's keys that are not revoked, newest first."""
    raise NotImplementedError


async def revoke_key(control: Control, caller: Caller, key_id: str) -> None:
    """Revoke a key. NotFound."""
    raise NotImplementedError


async def enroll(control: Control, caller: Caller, request: Enroll) -> Enrolled:
    """Make a node of the machine that holds the caller's enrolment key."""
    raise NotImplementedError
