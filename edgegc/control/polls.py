"""Version checks of nodes: answered at once, or held until there is news. Knows not how they are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgegc.control.control import Control
    from edgegc.control.held_polls import Answer, Waiter

MAX_WAIT_S = 110
"""Below the two minutes after which common proxies cut a silent connection."""


async def wait(control: Control, node_id: str, *, current: int | None, wait_s: float) -> Answer:
    """Answer a version check of an authenticated node (``GET /api/v1/config/version``).

    With ``current`` and ``wait_s`` (0 to :data:`MAX_WAIT_S` seconds) it is held until the effective version differs or
    the time is over. When ``waited`` is set the caller must authenticate again: the node may have been deleted or its
    token rotated meanwhile. Cancelling leaves nothing behind.
    """
    woken = trio.Event()
    waiter = park(control, node_id, current=current, wake=woken.set) if wait_s > 0 else None
    if waiter is None:
        await trio.lowlevel.checkpoint()
        return control.polls.now(node_id)
    try:
        with trio.move_on_after(wait_s):
            await woken.wait()
    finally:
        answer = leave(control, waiter)
    return answer


def park(control: Control, node_id: str, *, current: int | None, wake: Callable[[], None]) -> Waiter | None:
    """Do what :func:`wait` does for who can't wait in a task: hold the check until :func:`leave`, where it is to be held.

    ``wake`` as in :meth:`Polls.park`. The time is the caller's to keep.
    """
    waiter = control.polls.park(node_id, current=current, wake=wake)
    if waiter is not None:
        control.fleet.hold(node_id)
    return waiter


def leave(control: Control, waiter: Waiter) -> Answer:
    """End the holding of a check, once; return its answer as of now."""
    answer = control.polls.leave(waiter)
    control.fleet.release(waiter.node_id)
    return answer
