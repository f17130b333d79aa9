"""The fleet: what nodes say of themselves, in memory; written to the store now and then (flash wears out)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.task import TaskStatus
    from edgegc.model.credential import Caller
    from edgegc.model.message import Report, Rollout
    from edgegc.model.node import State


class Fleet:
    """When each node was last heard of, what it runs and how it is."""

    def seen(self, node_id: str) -> None:
        """Note that a node was heard of now."""
        raise NotImplementedError

    def hold(self, node_id: str) -> None:
        """Note that a version check of a node is held."""
        raise NotImplementedError

    def release(self, node_id: str) -> None:
        """Note that a held version check of a node ended."""
        raise NotImplementedError

    def state_of(self, node_id: str) -> State:
        """Return a node's state: the first that holds of offline, failed, behind, online."""
        raise NotImplementedError


def report(control: Control, caller: Caller, request: Report) -> None:
    """Take a node's report (``POST /api/v1/report``). Memory only, never waits."""
    raise NotImplementedError


def ride_along(
    control: Control, node_id: str, *, applied: str | None, state: str | None, nebula: str | None
) -> None:
    """Take the report in a version check's headers, as sent. Malformed ones are counted and ignored."""
    raise NotImplementedError


async def rollout(control: Control, caller: Caller, cluster_id: str | None) -> Rollout:
    """Return desired against applied versions of a cluster's nodes."""
    raise NotImplementedError


async def run(control: Control, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    """Write what changed to the store, until cancelled; then once more."""
    raise NotImplementedError
