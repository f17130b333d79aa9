"""``edgegc perf profile``: flags, the tables, the files. What is found out is :mod:`edgegc.perf.profiling`'s."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from edgegc import errors
from edgegc.cli import perf_options
from edgegc.cli.options import Command, Common, local_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgegc.perf.profiler.recording import Frame, Kind
    from edgegc.perf.profiling import Options, Profiled, Profiling

SHOWN: Final = 15
SOURCE_WIDTH: Final = 60
US_PER_S: Final = 1_000_000


@click.command(
    cls=Command,
    example="edgegc perf profile api.version\n"
    "edgegc perf profile api.node_create --case open --blocking\n"
    "edgegc perf profile load.longpoll_fanout --memory --device 512M:25%",
)
@click.argument("scenario", metavar="SCENARIO")
@click.option("--cpu", "kind", flag_value="cpu", default=True, help="Where it computes. This is the default.")
@click.option("--memory", "kind", flag_value="memory", help="Who allocated what is held.")
@click.option("--blocking", "kind", flag_value="blocking", help="Where each task and thread waits.")
@click.option("--case", "wanted", metavar="GLOB", default="*", help="Only these of its cases. [default: all]")
@click.option(
    "--tool",
    type=click.Choice(["own", "py-spy", "memray"]),
    help="With which profiler. [default: py-spy, memray where they are installed, else our own]",
)
@click.option("--top", type=click.IntRange(1, 200), default=SHOWN, help=f"Lines shown. [default: {SHOWN}]")
@click.option(
    "--suite",
    type=click.Choice(["quick", "full"]),
    default="full",
    help="How long it is loaded; 'quick' has few samples. [default: full]",
)
@perf_options.seed
@perf_options.device("it")
@perf_options.nebula
@perf_options.directory("Where the servers keep their data.")
@click.option(
    "--out",
    metavar="PREFIX",
    help="Of the files: PREFIX.svg and PREFIX.speedscope.json. [default: profile-SCENARIO-KIND]",
)
@local_options
@click.pass_obj
def profile(
    common: Common,
    scenario: str,
    kind: Kind,
    wanted: str,
    tool: Literal["own", "py-spy", "memray"] | None,
    top: int,
    suite: Literal["quick", "full"],
    seed: int,
    device: str | None,
    nebula: Path | None,
    directory: Path | None,
    out: str | None,
) -> None:
    """Find out where the server (store, agent) of a scenario spends its time or memory, or where its tasks wait.

    The scenario runs once, as in 'perf run'; only what is in measured time counts. Times under a profiler are no measurements.
    Writes a flame graph for any browser (SVG), and the same for https://www.speedscope.app.
    """
    import trio

    from edgegc.cli.progress import spinner
    from edgegc.perf import filesystem, host, profiling
    from edgegc.perf.device import Device
    from edgegc.perf.profiler import tools
    from edgegc.perf.scenario import chosen

    try:
        found = chosen(suite="full", only=(scenario,))
        emulated = Device.parse(device) if device else None
    except (errors.NotFound, errors.Invalid) as error:
        raise click.UsageError(error.message) from None
    if len(found) > 1:
        raise click.UsageError(
            f"one at a time; {scenario!r} matches {', '.join(each.name for each in found)}"
        )
    if not any(fnmatchcase(case, wanted) for case in found[0].cases):
        raise click.UsageError(
            f"{found[0].name} has no case '{wanted}', but: {', '.join(found[0].cases) or 'one'}"
        )
    options = profiling.Options(
        scenario=found[0],
        kind=kind,
        tool=tools.choose(kind, tool),
        suite=suite,
        seed=seed,
        device=emulated,
        nebula=nebula or host.find_nebula(),
        directory=filesystem.workplace(directory),
    )
    with spinner(common, f"profiling {found[0].name}"):
        result = trio.run(profiling.run, options)
    cases = [each for each in result.cases if fnmatchcase(each.case, wanted) or not each.case]
    files = _write(Path(out or f"profile-{found[0].name}-{kind}"), options, cases)
    _show(common, options, result, cases, files, top=top)


def _write(prefix: Path, options: Options, cases: Sequence[Profiled]) -> list[Path]:
    from edgegc.perf.profiler import flame

    shown = {each.name: each.profile for each in cases if each.profile.weights}
    if not shown:
        raise errors.Unavailable(
            f"{options.scenario.name} ran, and no sample of it was taken: nothing of edgegc's own worked in its measured time"
        )
    title = f"{options.scenario.name}: {_WHAT[options.kind]}"
    subtitle = "; ".join(
        f"{each.name or 'all'}: {flame.amount(each.profile.total, each.profile.unit)}" for each in cases
    )
    drawn = prefix.with_name(f"{prefix.name}.svg")
    drawn.write_text(flame.svg(shown, title=title, subtitle=subtitle), encoding="utf-8")
    scoped = prefix.with_name(f"{prefix.name}.speedscope.json")
    scoped.write_bytes(flame.speedscope(shown, title=title))
    return [drawn, scoped]


_WHAT: Final = {"cpu": "CPU time", "memory": "memory held", "blocking": "where tasks and threads wait"}


def _show(
    common: Common,
    options: Options,
    result: Profiling,
    cases: Sequence[Profiled],
    files: Sequence[Path],
    *,
    top: int,
) -> None:
    from edgegc.cli.output import emit_json, emit_sentence
    from edgegc.perf.profiler import tools

    if common.json:
        emit_json(
            {
                "scenario": options.scenario.name,
                "kind": options.kind,
                "tool": options.tool,
                "files": [str(file) for file in files],
                "cases": [_document(each, top) for each in cases],
            }
        )
        return
    if common.quiet:
        for file in files:
            click.echo(str(file))
        return
    for number, each in enumerate(cases):
        if number:
            click.echo()
        _show_case(common, options, each, top)
    click.echo()
    click.echo(f"flame graph: {files[0]}, for any browser; {files[1]}, for https://www.speedscope.app")
    if lacking := tools.lacking(options.kind, options.tool):
        emit_sentence(lacking)
    for warning in result.warnings:
        emit_sentence(warning)
    sys.stdout.flush()


def _show_case(common: Common, options: Options, found: Profiled, top: int) -> None:
    name = f"{options.scenario.name}[{found.case}]" if found.case else options.scenario.name
    whose = f"{name}, {found.process}" if found.process else name
    click.echo(f"{whose}: {_summary(options.kind, found)}")
    if not found.profile.weights:
        return
    click.echo()
    match options.kind:
        case "cpu":
            _show_cpu(common, found, top)
        case "memory":
            _show_memory(common, found, top)
        case "blocking":
            _show_blocking(common, found, top)


def _show_cpu(common: Common, found: Profiled, top: int) -> None:
    from edgegc.cli.output import Column, emit_table
    from edgegc.perf.profiler.profile import source

    total = found.profile.total
    # Samples say where, the kernel how much.
    used_s = found.cpu_s or total

    def each(weight: float) -> tuple[str, str]:
        share = weight / total
        per = (
            f"{share * used_s / found.requests * US_PER_S:.1f} µs"
            if found.requests
            else f"{share * used_s:.2f} s"
        )
        return f"{share:.1%}", per

    by = "A REQUEST" if found.requests else "CPU"
    emit_table(
        common,
        [Column("SELF", right=True), Column(by, right=True), Column("LINE"), Column("SOURCE", flexible=True)],
        [
            (*each(weight), _where(frame), source(frame)[:SOURCE_WIDTH] or frame.function)
            for frame, weight in found.profile.lines()[:top]
        ],
    )
    click.echo()
    emit_table(
        common,
        [
            Column("TOTAL", right=True),
            Column(by, right=True),
            Column("FUNCTION, WITH ALL IT CALLS", flexible=True),
            Column("FILE"),
        ],
        [(*each(weight), frame.function, _where(frame)) for frame, weight in found.profile.functions()[:top]],
    )


def _show_memory(common: Common, found: Profiled, top: int) -> None:
    from edgegc.cli.output import Column, emit_table, size
    from edgegc.perf.profiler.profile import source

    total = found.profile.total
    grown = {} if found.grown is None else dict(found.grown.lines())
    emit_table(
        common,
        [
            Column("SHARE", right=True),
            Column("HELD", right=True),
            Column("GROWN", right=True),
            Column("ALLOCATED AT"),
            Column("SOURCE", flexible=True),
        ],
        [
            (
                f"{weight / total:.1%}",
                size(weight),
                _signed(grown.get(frame)),
                _where(frame),
                source(frame)[:SOURCE_WIDTH] or frame.function,
            )
            for frame, weight in found.profile.lines()[:top]
        ],
    )
    click.echo()
    emit_table(
        common,
        [
            Column("SHARE", right=True),
            Column("HELD", right=True),
            Column("FUNCTION, WITH ALL IT CALLS", flexible=True),
            Column("FILE"),
        ],
        [
            (f"{weight / total:.1%}", size(weight), frame.function, _where(frame))
            for frame, weight in found.profile.functions()[:top]
        ],
    )


def _show_blocking(common: Common, found: Profiled, top: int) -> None:
    from edgegc.cli.output import Column, emit_table

    emit_table(
        common,
        [
            Column("ON AVERAGE", right=True),
            Column("WHO"),
            Column("WAITS AT"),
            Column("FUNCTION", flexible=True),
            Column("IN", flexible=True, rank=1),
        ],
        [
            (
                f"{weight / found.duration_s:.2f}" if found.duration_s else f"{weight:.1f} s",
                wait.who,
                _where(wait.at),
                wait.at.function,
                wait.inner,
            )
            for wait, weight in found.profile.waits()[:top]
        ],
    )


def _summary(kind: Kind, found: Profiled) -> str:
    from edgegc.cli.output import size

    if not found.profile.weights:
        return "no samples"
    requests = f"; {found.requests:,} requests" if found.requests else ""
    samples = f"; {found.samples:,} samples" if found.samples else ""
    match kind:
        case "cpu":
            used_s = found.cpu_s or found.profile.total
            each = f", {used_s / found.requests * US_PER_S:.0f} µs each" if found.requests else ""
            cost = f", which cost {found.cost:.1%}" if found.cost is not None else ""
            return f"{used_s:.2f} s of CPU in {found.duration_s:.1f} s{requests}{each}{samples}{cost}"
        case "memory":
            growth = f", {_signed(found.grown.total)} in the measured time" if found.grown else " at the most"
            cost = f"; tracing itself took {size(found.cost)} more" if found.cost else ""
            return f"{size(found.profile.total)} held{growth}{requests}{cost}"
        case "blocking":
            cost = f", which cost {found.cost:.1%}" if found.cost is not None else ""
            tasks = found.profile.total / found.duration_s if found.duration_s else 0.0
            return f"{tasks:.1f} tasks and threads on average, for {found.duration_s:.1f} s{requests}{samples}{cost}"


def _document(found: Profiled, top: int) -> dict[str, object]:
    from edgegc.perf.profiler.profile import source

    return {
        "case": found.case,
        "process": found.process or None,
        "unit": found.profile.unit,
        "total": found.profile.total,
        "grown": found.grown.total if found.grown else None,
        "duration_s": found.duration_s,
        "requests": found.requests,
        "cpu_s": found.cpu_s,
        "samples": found.samples,
        "cost": found.cost,
        "lines": [
            {"at": _where(frame), "function": frame.function, "source": source(frame), "value": weight}
            for frame, weight in found.profile.lines()[:top]
        ],
        "functions": [
            {"at": _where(frame), "function": frame.function, "value": weight}
            for frame, weight in found.profile.functions()[:top]
        ],
    }


def _where(frame: Frame) -> str:
    from edgegc.perf.profiler.profile import short

    if not frame.file:
        return "-"
    return f"{short(frame.file)}:{frame.line}" if frame.line else short(frame.file)


def _signed(amount: float | None) -> str:
    from edgegc.cli.output import size

    if amount is None:
        return "-"
    return f"{'-' if amount < 0 else '+'}{size(abs(amount))}"
