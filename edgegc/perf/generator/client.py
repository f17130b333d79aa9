"""The suite's side of the generator: start its process, hand it a plan, get what became of it.

Knows nothing of how load is made.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from edgegc.errors import Unavailable
from edgegc.perf import respawn
from edgegc.perf.child import child
from edgegc.perf.generator.wire import Done, Failed, Task, answers, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgegc.perf.generator.wire import Answer, Incoming
    from edgegc.perf.plan import Load, Plan, Progress


async def run(
    plan: Plan,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: trio.Event | None = None,
) -> Load:
    """Run a plan in a process of its own and return what became of it.

    ``on_progress`` is told four times a second; what it raises arrives in an exception group. ``stop``: when it is set the plan ends at once, and the load says that
    it is partial. Cancelling ends the process and waits for that, ten seconds at most. Raises Unavailable where the
    target takes no connections, this machine allows too few, or the generator breaks; the sentence says which.
    """
    (load,) = await _done(Task(plans=(plan,)), on_progress=on_progress, stop=stop)
    return load


async def in_turns(plans: Sequence[Plan], *, turn_s: float) -> tuple[Load, ...]:
    """Run closed plans in one process, in turns of ``turn_s``, and return what became of each: see the module ``turns``.

    They end together, when the first one does. Cancelled, and raises, as :func:`run`.
    """
    return await _done(Task(plans=tuple(plans), turn_s=turn_s))


async def _done(
    task: Task,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: trio.Event | None = None,
) -> tuple[Load, ...]:
    async with child(respawn.perf("_generator")) as process:
        with suppress(trio.BrokenResourceError):  # it died at once: its last words say why
            await process.outgoing.send_all(packed(task))
        incoming = answers(process.incoming)
        async with trio.open_nursery() as nursery:
            if stop is not None:
                nursery.start_soon(_stop_when, stop, process.outgoing)
            ended = await _listen(incoming, on_progress)
            nursery.cancel_scope.cancel()
        if ended is None:
            raise Unavailable(f"the load generator broke: {await process.last_words()}")
    if isinstance(ended, Failed):
        raise Unavailable(ended.sentence)
    return ended.loads


async def _listen(
    incoming: Incoming[Answer], on_progress: Callable[[Progress], None] | None
) -> Done | Failed | None:
    while True:
        said = await incoming.next()
        if said is None or isinstance(said, Done | Failed):
            return said
        if on_progress is not None:
            on_progress(said.progress)


async def _stop_when(stop: trio.Event, outgoing: trio.abc.SendStream) -> None:
    await stop.wait()
    # Not a signal: that would kill a process that has not begun to listen to them.
    await outgoing.aclose()
