"""Housekeeping: what has to be done now and then without anybody asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from edgegc.control.control import Control


async def run(control: Control, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Renew certificates, blocklist superseded ones, checkpoint, watch the clock; until cancelled."""
    raise NotImplementedError
