"""``edgegc perf run`` and ``list``: flags, what is shown meanwhile, exit codes. The run itself is :mod:`edgegc.perf.run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgegc import errors
from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Command, Common, local_options

if TYPE_CHECKING:
    from edgegc.perf.result import Report
    from edgegc.perf.run import Options
    from edgegc.perf.scenario import Scenario

UNFIT: Final = Exit.REFUSED
"""3: this machine can't do what is asked, as emulating a device, or is found unfit with ``--strict``."""
UNREACHABLE: Final = Exit.NOT_FOUND
"""4: the release to be measured does not run."""
DEFAULT_SEED: Final = 1
"""The same for everyone: two runs differ in what is measured, not in what is asked."""


@click.command("list", cls=Command, example="edgegc perf list -o json | jq '.scenarios[].name'")
@local_options
@click.pass_obj
def list_(common: Common) -> None:
    """Scenarios: what each proves, how long a repetition takes, how much memory it takes."""
    from edgegc.cli.output import Column, emit_list, size
    from edgegc.perf import scenario

    found = scenario.every()
    emit_list(
        common,
        {
            "scenarios": [
                {
                    "name": each.name,
                    "cases": each.cases,
                    "proves": each.proves,
                    "quick_s": each.quick_s,
                    "full_s": each.full_s,
                    "ram_bytes": each.ram_bytes,
                    "needs": sorted(each.needs),
                    "in_process": each.in_process,
                    "suites": _suites(each),
                }
                for each in found
            ]
        },
        [
            Column("SCENARIO"),
            Column("PROVES", flexible=True),
            Column("QUICK", right=True, rank=2),
            Column("FULL", right=True),
            Column("RAM", right=True, rank=3),
            Column("NEEDS", rank=4),
        ],
        [
            (
                each.name,
                each.proves,
                f"{each.quick_s:.0f} s" if each.quick_s else "-",
                f"{each.full_s:.0f} s",
                size(each.ram_bytes),
                ", ".join(sorted(each.needs)),
            )
            for each in found
        ],
        ids=(each.name for each in found),
        empty="there are no scenarios",
    )


@click.command(
    cls=Command,
    example="edgegc perf run --suite quick\n"
    "edgegc perf run --only 'api.*' --repeat 3 --out before.json\n"
    "edgegc perf run --device 512M:25% --out board.json",
)
@click.option(
    "--suite",
    type=click.Choice(["quick", "full"]),
    default="full",
    help="'quick' takes a minute and shows that everything works; its figures mean little. [default: full]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="GLOB",
    help="Scenarios by name, as in 'api.*'; may be repeated. [default: the suite's]",
)
@click.option(
    "--mix",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.toml",
    help="A mix of requests of your own; may be repeated. The built-in ones are '--only mix.*'.",
)
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=1, help="How often each is measured. [default: 1]"
)
@click.option("--seed", type=int, default=DEFAULT_SEED, help="Of whatever is left to chance. [default: 1]")
@click.option(
    "--device",
    metavar="MEMORY:CPU",
    help="Hold the server to a device's memory and share of a core: 512M:25%.",
)
@click.option(
    "--server",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Measure this edgegc.pyz, of another release, instead of this one.",
)
@click.option(
    "--nebula",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="PATH",
    help="The nebula executable. [default: the one in PATH]",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the servers keep their data: on the disk that is to be measured. [default: the working directory]",
)
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Floors and goals of your own, instead of the built-in ones.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json", help="Write the report."
)
@click.option("--strict", is_flag=True, help="Measure only if 'perf doctor' finds nothing wrong.")
@local_options
@click.pass_obj
def run(common: Common, /, out: Path | None, strict: bool, **given: Any) -> int:
    """Measure this box: start servers, load them, and say which floors and goals hold.

    Ctrl-C ends it with what was measured by then. Exit 0 if all is well, 1 if a scenario broke, 3 if this machine is unfit, 4 if
    the release does not run, 5 if a measurement can't be trusted, 99 if a floor is missed, 130 after Ctrl-C.
    """
    import trio

    from edgegc.cli.perf_progress import watching
    from edgegc.perf import document
    from edgegc.perf import run as running

    if out is not None and not out.absolute().parent.is_dir():
        raise click.UsageError(f"--out: {out.parent} is no directory")
    try:
        options = _options(given)
    except errors.Unavailable as error:
        raise Failure(error.message, UNREACHABLE) from None
    if strict:
        from edgegc.cli import perf_doctor

        checks = perf_doctor.examined(
            common, options.directory, emulated=options.device, nebula=options.nebula
        )
        if perf_doctor.unfit(checks):
            perf_doctor.show(common, checks)
            return perf_doctor.UNFIT

    def write(report: Report) -> None:
        if out is not None:
            document.write(out, report)

    try:
        with watching(common, options) as observer:
            report = trio.run(lambda: running.run(options, observer=observer, write=write))
    except errors.Unavailable as error:
        raise Failure(error.message, UNFIT) from None
    return _show(common, report)


def _suites(scenario: Scenario) -> list[str]:
    """Return the suites that a scenario is in."""
    if scenario.asked_for:
        return []
    return ["quick", "full"] if scenario.quick_s else ["full"]


def _options(given: dict[str, Any]) -> Options:
    """Return what the flags ask for. Raises UsageError for what can't be meant."""
    from edgegc.perf import filesystem, host, release, scenario, thresholds
    from edgegc.perf.device import Device
    from edgegc.perf.run import Options
    from edgegc.perf.scenarios import mix

    try:
        mixes = tuple(mix.load(path) for path in given["mix"])
        scenarios = scenario.chosen(suite=given["suite"], only=given["only"], also=mixes)
        device = Device.parse(given["device"]) if given["device"] else None
        floors = thresholds.load(given["thresholds"])
    except (errors.NotFound, errors.Invalid) as error:
        raise click.UsageError(error.message) from None
    try:
        directory = filesystem.workplace(given["directory"])
    except errors.Unavailable as error:
        raise click.UsageError(error.message) from None
    command = release.command(given["server"]) if given["server"] else None
    return Options(
        scenarios=scenarios,
        suite=given["suite"],
        repeat=given["repeat"],
        seed=given["seed"],
        device=device,
        command=command,
        release=release.versions(command) if command else {},
        nebula=given["nebula"] or host.find_nebula(),
        directory=directory,
        thresholds=floors,
        argv=tuple(_said(given)),
        warnings=tuple(filter(None, [filesystem.warning(directory)])),
    )


def _said(given: dict[str, Any]) -> list[str]:
    """Return the flags as a report may show them: of a file only its name."""
    words = ["perf", "run"]
    for flag in ("suite", "only", "mix", "repeat", "seed", "device", "server", "nebula", "thresholds"):
        value = given[flag]
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None:
                words += [f"--{flag}", one.name if isinstance(one, Path) else str(one)]
    return words


def _show(common: Common, report: Report) -> int:
    from edgegc.cli.output import emit_json
    from edgegc.cli.perf_report import print_report
    from edgegc.perf.run import exit_code

    if common.json:
        emit_json(report)
    elif not common.quiet:
        print_report(common, report)
    return exit_code(report)
