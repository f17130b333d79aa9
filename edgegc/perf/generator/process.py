"""The generator's process: a task on standard input, what became of it on standard output. Hidden command ``_generator``.

SIGTERM, or the end of standard input, ends it early; what it has is still told. Knows no suite.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from edgegc.errors import Error, Invalid, Unavailable
from edgegc.perf.generator.connections import Place
from edgegc.perf.generator.course import Course
from edgegc.perf.generator.loop import Loop
from edgegc.perf.generator.schedule import LONGEST_DECK
from edgegc.perf.generator.turns import Rounds
from edgegc.perf.generator.wire import Done, Failed, Incoming, Said, Task, packed, tasks
from edgegc.perf.plan import Load, Plan, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

REACH_TIMEOUT_S: Final = 5.0
"""A target that takes no connection in this time is not there."""
OWN_FILES: Final = 64
"""Descriptors that are no connections: pipes, epolls, libraries."""
PROGRESS_HELD: Final = 16
"""Words about progress that nobody has read yet; more are dropped."""


def main() -> None:
    """Do one task. Says nothing on standard error unless it is broken."""
    # Ctrl-C is for the suite, which then asks for what there is.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trio.run(_main)


async def _main() -> None:
    answers = trio.lowlevel.FdStream(os.dup(sys.stdout.fileno()))
    source = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    incoming = tasks(source)
    async with answers, source:
        task = await incoming.next()
        if task is None:
            return
        last: Done | Failed
        try:
            _check(task)
            places = [await _reach(plan) for plan in task.plans]
            last = Done(loads=await _follow(task, places, incoming, answers))
        except Error as error:
            last = Failed(sentence=error.message)
        try:
            await answers.send_all(packed(last))
        except trio.BrokenResourceError:
            return  # whoever asked is gone


async def _follow(
    task: Task, places: Sequence[Place], incoming: Incoming[Task], answers: trio.abc.SendStream
) -> tuple[Load, ...]:
    loop = Loop()
    said, to_say = trio.open_memory_channel[Progress](PROGRESS_HELD)

    def say(progress: Progress) -> None:
        with suppress(trio.WouldBlock):
            said.send_nowait(progress)

    if len(task.plans) == 1:
        course: Course | Rounds = Course(task.plans[0], place=places[0], loop=loop, on_progress=say)
    else:
        course = Rounds(task.plans, places=places, turn_s=task.turn_s, loop=loop)
    cpu = task.plans[0].cpu
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    # Nothing here makes circles; looking for them among thousands of connections takes milliseconds.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, course)
            nursery.start_soon(_stop_on_end, course, incoming)
            nursery.start_soon(_tell, to_say, answers)
            loads = await course.run()
            nursery.cancel_scope.cancel()
    finally:
        loop.close()
    return loads


async def _stop_on_signal(course: Course | Rounds) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            course.stop()


async def _stop_on_end(course: Course | Rounds, incoming: Incoming[Task]) -> None:
    while await incoming.next() is not None:
        pass
    course.stop()


async def _tell(progress: trio.MemoryReceiveChannel[Progress], answers: trio.abc.SendStream) -> None:
    async for one in progress:
        try:
            # A message that was cut off in the middle would spoil the last one.
            with trio.CancelScope(shield=True):
                await answers.send_all(packed(Said(progress=one)))
        except trio.BrokenResourceError:
            return  # the end of standard input tells the same


def _check(task: Task) -> None:
    """Raise Invalid for what can't be asked, Unavailable for what this machine does not allow."""
    for plan in task.plans:
        _check_plan(plan)
        if len(task.plans) > 1 and (plan.rate_per_s is not None or plan.eager):
            raise Invalid(
                "only closed loads can take turns, and none that begins while connections are opened"
            )
    connections = sum(plan.connections for plan in task.plans)
    wanted = connections + OWN_FILES
    allowed = _raise_file_limit(wanted)
    if allowed < wanted:
        raise Unavailable(
            f"{connections:,} connections need {wanted:,} open files, and this machine allows {allowed:,} a"
            f" process; as root: ulimit -Hn {wanted}"
        )


def _check_plan(plan: Plan) -> None:
    if plan.connections < 1 or not plan.asks:
        raise Invalid("a load needs at least one connection and one kind of request")
    for ask in plan.asks:
        if not ask.requests or ask.weight < 1:
            raise Invalid(f"load '{ask.name}' needs at least one request, and a weight of at least 1")
        if any(request.startswith(b"HEAD ") for request in ask.requests):
            raise Invalid(f"load '{ask.name}': answers to HEAD can't be told apart from those to GET")
    if sum(ask.weight for ask in plan.asks) > LONGEST_DECK:
        raise Invalid(f"the weights of a load must not sum up to more than {LONGEST_DECK:,}")
    if plan.rate_per_s is not None and not plan.rate_per_s > 0:
        raise Invalid("an open load needs a rate above 0")


def _raise_file_limit(wanted: int) -> int:
    """Raise the limit of open files as far as this process may; return it."""
    unlimited = resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == unlimited or soft >= wanted:
        return wanted
    if hard != unlimited and hard < wanted:
        with suppress(ValueError, OSError):  # without CAP_SYS_RESOURCE, or beyond fs.nr_open
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


async def _reach(plan: Plan) -> Place:
    """Return where to connect, once a connection there has succeeded. Raises Unavailable."""
    target = plan.target
    try:
        found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        with trio.fail_after(REACH_TIMEOUT_S), trio.socket.socket(family, socket.SOCK_STREAM) as tried:
            await tried.connect(address)
    except (OSError, trio.TooSlowError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else "no answer"
        raise Unavailable(f"nothing takes connections at {target.host}:{target.port}: {reason}") from error
    return Place(family=family, address=address, tls=target.tls)
