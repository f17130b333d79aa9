"""The fleet's reports: taken from nodes into memory, and written to the store now and then (flash wears out).

``last_seen_at`` is flushed every 15 minutes and at the end; a changed applied version, state, error or nebula version
within 10 seconds, batched. Knows not how the memory is laid out.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, get_args

import trio

from edgegc import logs
from edgegc.control.callers import node_only
from edgegc.errors import Unavailable
from edgegc.model.node import ReportedState

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.model.credential import Caller
    from edgegc.model.message import Report

logger = logging.getLogger(__name__)

FLUSH_S = 10

LAST_SEEN_FLUSH_S = 900
"""A flush of a thousand times is 66 KB of log: four of them an hour are nothing, one a second wears a card out."""

LAST_FLUSH_WITHIN_S = 5
"""What a shutdown waits for the last flush at most."""

MAX_NEBULA_CHARACTERS = 64

_NUMBER = re.compile(r"[0-9]{1,15}")

_NEBULA = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")

_STATES: tuple[ReportedState, ...] = get_args(ReportedState)


def report(control: Control, caller: Caller, request: Report) -> None:
    """Take a node's report (``POST /api/v1/report``). Memory only, never waits. Forbidden for anybody but a node."""
    node_id = node_only(caller)
    if request.nebula_version is not None:
        control.fleet.runs_nebula(node_id, request.nebula_version)
    control.fleet.uses(
        node_id,
        lighthouse_reached=request.lighthouse_reached,
        rss_bytes=request.rss_bytes,
        cpu_percent=request.cpu_percent,
    )
    # It is kept and shown to others: a credential that got into a message on the node ends here.
    error = None if request.error is None else logs.redact(request.error)
    control.fleet.reported(node_id, applied_version=request.applied_version, state=request.state, error=error)


def ride_along(
    control: Control, node_id: str, *, applied: str | None, state: str | None, nebula: str | None
) -> None:
    """Take the report in a version check's headers, as sent. Malformed ones are counted and ignored."""
    fleet = control.fleet
    if nebula is not None:
        if len(nebula) <= MAX_NEBULA_CHARACTERS and _NEBULA.fullmatch(nebula):
            fleet.runs_nebula(node_id, nebula)
        else:
            fleet.malformed_reports += 1
    if applied is None and state is None:
        return
    known = fleet.presence(node_id)
    reported = next((each for each in _STATES if each == state), None)
    if applied is None or _NUMBER.fullmatch(applied) is None or (state is not None and reported is None):
        fleet.malformed_reports += 1
        return
    # The headers have no room for a sentence: the one of the last report stays as long as the state does.
    fleet.reported(
        node_id,
        applied_version=int(applied),
        state=reported or known.reported_state or "ok",
        error=known.error,
    )


async def run(control: Control, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Write what changed to the store, until cancelled; then once more, for a bounded time."""
    task_status.started()
    try:
        next_last_seen = trio.current_time() + LAST_SEEN_FLUSH_S
        while True:
            await trio.sleep(FLUSH_S)
            last_seen = trio.current_time() >= next_last_seen
            if await _flush(control, last_seen=last_seen) and last_seen:
                next_last_seen = trio.current_time() + LAST_SEEN_FLUSH_S
    finally:
        with trio.move_on_after(LAST_FLUSH_WITHIN_S, shield=True):
            await _flush(control, last_seen=True)


async def _flush(control: Control, *, last_seen: bool) -> bool:
    try:
        await control.fleet.flush(last_seen=last_seen)
        if last_seen:
            await control.token_uses.flush()
            await control.failures.flush()
    except Unavailable as error:
        logger.warning("what nodes report can't be stored now", extra={"reason": error.message})
        return False
    return True
