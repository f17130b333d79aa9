"""Housekeeping: what has to be done now and then without anybody asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.task import TaskStatus


async def run(control: Control, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
    """Renew certificates, blocklist superseded ones, checkpoint, watch the clock; until cancelled."""
    raise NotImplementedError
