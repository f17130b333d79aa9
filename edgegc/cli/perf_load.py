"""``edgegc perf load`` and ``capacity``: a simulated fleet, and the largest one that this box carries.

Flags and what is shown; the fleet itself is :mod:`edgegc.perf.fleet`, the search :mod:`edgegc.perf.capacity`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from edgegc import errors
from edgegc.cli import perf_elsewhere, perf_options
from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Command, Common, local_options, together
from edgegc.cli.perf_measure import carry_out

if TYPE_CHECKING:
    from edgegc.perf.capacity import Answer, Limits
    from edgegc.perf.result import Report
    from edgegc.perf.run import Options
    from edgegc.perf.scenario import Scenario
    from edgegc.perf.thresholds import Threshold

HELD: Final = "longpoll"
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNITS_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
SIZE: Final = re.compile(r"(\d+)([KMG])")
UNITS_BYTES: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LONGEST_INTERVAL_S: Final = 60.0
"""A connection may rest for 75 s, and the time between two questions is a matter of chance."""
INVALID: Final = Exit.UNREACHABLE
"""5: what was measured can't be trusted."""
HELD_P99_S: Final = 1.0
POLL_P99_S: Final = 0.1
CHANGE_EVERY_S: Final = 20.0
"""While polls are held: without a change there would be nothing to time."""


def _seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Read a duration like ``30s``."""
    if value is None:
        return None
    found = DURATION.fullmatch(value)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{value!r} is no duration like 30s, 5m or 100ms")
    return float(found[1]) * UNITS_S[found[2]]


def _interval(context: click.Context, option: click.Parameter, value: str) -> float | str | None:
    """Read the same, or ``longpoll``."""
    seconds = None if value == HELD else _seconds(context, option, value)
    if seconds is not None and seconds > LONGEST_INTERVAL_S:
        raise click.BadParameter(
            f"at most {LONGEST_INTERVAL_S:g}s: a server closes a connection that rests for longer"
        )
    return HELD if seconds is None else seconds


def _bytes(_context: click.Context, _option: click.Parameter, value: str) -> int:
    """Read a size like ``128M``."""
    found = SIZE.fullmatch(value)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is no size like 128M")
    return int(found[1]) * UNITS_BYTES[found[2]]


_shared = together(
    click.option(
        "--interval",
        callback=_interval,
        default="30s",
        metavar="DURATION|longpoll",
        help="How often a node asks; 'longpoll': its question is held until there is news. [default: 30s]",
    ),
    click.option("--tls", is_flag=True, help="With TLS. A server elsewhere is asked as its URL says."),
    perf_options.device("the server"),
    perf_options.seed,
    perf_options.directory("Where the server keeps its data."),
    perf_options.out,
)


@click.command(
    cls=Command,
    example="edgegc perf load --nodes 2000 --interval 30s\n"
    "edgegc perf load --nodes 1000 --interval longpoll --change-every 30s\n"
    "EDGEGC_TOKEN=... edgegc perf load --nodes 500 --url https://192.0.2.7:8443 --pin SHA256",
)
@click.option(
    "--nodes", type=click.IntRange(1, 50_000), default=1000, help="How many there are. [default: 1000]"
)
@click.option(
    "--duration", callback=_seconds, default="1m", metavar="DURATION", help="How long they ask. [default: 1m]"
)
@click.option(
    "--change-every",
    "change_every_s",
    callback=_seconds,
    metavar="DURATION",
    help="Change something for all, so that all download. [default: 20s with longpoll, else never]",
)
@_shared
@perf_elsewhere.options
@local_options
@click.pass_obj
def load(
    common: Common, /, nodes: int, duration: float, change_every_s: float | None, i_know: bool, **given: Any
) -> int:
    """Simulate a fleet: so many nodes that poll as agents do, each over a connection of its own.

    Ctrl-C ends it. Exit 0 if it was measured, 4 if the server is not there or must not be loaded, 5 if the measurement can't be
    trusted.
    """
    from edgegc.perf.fleet import Fleet, scenario

    held = given["interval"] == HELD
    fleet = Fleet(
        nodes=nodes,
        interval_s=None if held else given["interval"],
        duration_s=duration,
        change_every_s=change_every_s or (CHANGE_EVERY_S if held else None),
    )
    options = replace(
        _options("load", given, scenario(fleet, tls=given["tls"])), elsewhere=perf_elsewhere.elsewhere(given)
    )
    prepare = partial(perf_elsewhere.asked, i_know=i_know)
    return _show(common, carry_out(common, options, given["out"], prepare=prepare))


@click.command(
    cls=Command,
    example="edgegc perf capacity\nedgegc perf capacity --interval longpoll --tls\n"
    "edgegc perf capacity --device 512M:25% --memory 256M",
)
@_shared
@click.option(
    "--p99",
    callback=_seconds,
    metavar="DURATION",
    help="What 99 of 100 answers may take. [default: 100ms; longpoll: 1s from a change to a node]",
)
@click.option(
    "--memory",
    callback=_bytes,
    default="128M",
    metavar="SIZE",
    help="What the server may take for itself. [default: 128M]",
)
@local_options
@click.pass_obj
def capacity(common: Common, /, p99: float | None, memory: int, **given: Any) -> int:
    """Say how many nodes this box carries, and what limits it. Takes some minutes.

    Exit 0 with an answer, 1 without one, 5 if nothing can be said because the machine was busy.
    """
    from edgegc.perf import capacity as searching
    from edgegc.perf.thresholds import Threshold

    held = given["interval"] == HELD
    limits = searching.Limits(
        interval_s=None if held else given["interval"],
        p99_s=p99 or (HELD_P99_S if held else POLL_P99_S),
        memory_bytes=memory,
        tls=given["tls"],
    )
    answers: list[Answer] = []
    floors = (
        Threshold(case="capacity[carried]", metric="p99", op="<", value=limits.p99_s, kind="floor"),
        Threshold(case="capacity[carried]", metric="private", op="<", value=memory, kind="floor"),
    )
    options = _options("capacity", given, searching.scenario(limits, answers), floors)
    report = carry_out(common, options, given["out"])
    if not answers:
        if report.partial:
            return Exit.INTERRUPTED
        carried = [case for case in report.cases if case.case == searching.CASES[-1]]
        untrusted = any(case.status == "invalid" for case in carried)
        reasons = list(dict.fromkeys(why for case in carried or report.cases for why in case.reasons))
        raise Failure("; ".join(reasons) or "nothing was measured", INVALID if untrusted else Exit.FAILED)
    _answer(common, answers[0], limits, report)
    return Exit.DONE


def _answer(common: Common, answer: Answer, limits: Limits, report: Report) -> None:
    from edgegc.cli.output import emit_json, emit_sentence

    if common.json:
        emit_json({"answer": answer, "limits": limits, "report": report})
    elif common.quiet:
        click.echo(answer.nodes)
    else:
        polling = "held polls" if limits.interval_s is None else f"{limits.interval_s:g} s"
        at = f"with {polling}" if limits.interval_s is None else f"at {polling}"
        click.echo(f"this box: {answer.nodes:,} nodes {at}; what limits it is {answer.limit}")
        emit_sentence(f"run: {answer.why}")
        alone = ", ".join(f"{name} {nodes:,}" for name, nodes in answer.estimates.items())
        emit_sentence(f"what each resource alone would carry, by what a node costs: {alone}")


def _options(
    command: str, given: dict[str, Any], scenario: Scenario, floors: tuple[Threshold, ...] = ()
) -> Options:
    from edgegc.perf import filesystem, host
    from edgegc.perf.device import Device
    from edgegc.perf.run import Options

    try:
        device = Device.parse(given["device"]) if given["device"] else None
    except errors.Invalid as error:
        raise click.UsageError(error.message) from None
    directory = filesystem.workplace(given["directory"])
    return Options(
        scenarios=(scenario,),
        seed=given["seed"],
        device=device,
        nebula=host.find_nebula(),
        directory=directory,
        thresholds=floors,
        argv=("perf", command),
        warnings=tuple(filter(None, [filesystem.warning(directory)])),
    )


def _show(common: Common, report: Report) -> int:
    from edgegc.cli.output import colored, emit_json, width
    from edgegc.perf.report import text
    from edgegc.perf.run import exit_code

    if common.json:
        emit_json(report)
    elif not common.quiet:
        click.echo(text.render(report, color=colored(common), room=width()), nl=False)
    unavailable = [case for case in report.cases if case.status == "unavailable"]
    return perf_elsewhere.UNSAFE if unavailable else exit_code(report)
