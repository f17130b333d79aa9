"""Version checks of nodes: answered at once, or held until there is news. Knows not how they are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from edgegc.control.control import Control
    from edgegc.control.held_polls import Answer

MAX_WAIT_S = 110
"""Below the two minutes after which common proxies cut a silent connection."""


async def wait(control: Control, node_id: str, *, current: int | None, wait_s: float) -> Answer:
    """Answer a version check of an authenticated node (``GET /api/v1/config/version``).

    With ``current`` and ``wait_s`` (0 to :data:`MAX_WAIT_S` seconds) it is held until the effective version differs or
    the time is over. When ``waited`` is set the caller must authenticate again: the node may have been deleted or its
    token rotated meanwhile. Cancelling leaves nothing behind.
    """
    if current is None or wait_s <= 0:
        await trio.lowlevel.checkpoint()
        return control.polls.now(node_id)
    control.fleet.hold(node_id)
    try:
        return await control.polls.wait(node_id, current=current, wait_s=wait_s)
    finally:
        control.fleet.release(node_id)
