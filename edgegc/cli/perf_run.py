"""``edgegc perf run`` and ``list``: flags, what is shown meanwhile, exit codes. The run itself is :mod:`edgegc.perf.run`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgegc import errors
from edgegc.cli import perf_elsewhere, perf_options
from edgegc.cli.failure import Exit, Failure
from edgegc.cli.options import Command, Common, local_options

if TYPE_CHECKING:
    from edgegc.perf.result import Report
    from edgegc.perf.run import Options
    from edgegc.perf.scenario import Scenario

UNFIT: Final = Exit.REFUSED
"""3: this machine can't do what is asked, as emulating a device, or is found unfit with ``--strict``."""
UNREACHABLE: Final = Exit.NOT_FOUND
"""4: the release to be measured does not run; of ``--url`` see :mod:`edgegc.cli.perf_elsewhere`."""


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
                    "at_url": not each.needs_own,
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
    "edgegc perf run --device 512M:25% --out board.json\n"
    "EDGEGC_TOKEN=... edgegc perf run --url https://192.0.2.7:8443 --pin SHA256 --only 'api.*'",
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
@click.option(
    "--retry",
    type=click.IntRange(0, 100),
    default=0,
    help="How often at most a scenario is measured once more where the machine spoiled a case of it. [default: 0]",
)
@perf_options.seed
@perf_options.device("the server")
@click.option(
    "--server",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Measure this edgegc.pyz, of another release, instead of this one.",
)
@perf_options.nebula
@perf_options.directory("Where the servers keep their data: on the disk that is to be measured.")
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Floors and goals of your own, instead of the built-in ones.",
)
@click.option(
    "--rates",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.json",
    help="Ask open loads at the rates of this report, to compare with it. [default: what this box bears]",
)
@perf_options.out
@perf_elsewhere.options
@click.option("--strict", is_flag=True, help="Measure only if 'perf doctor' finds nothing wrong.")
@local_options
@click.pass_obj
def run(common: Common, /, out: Path | None, strict: bool, i_know: bool, **given: Any) -> int:
    """Measure this box: start servers, load them, and say which floors and goals hold. Or load a server that runs: --url.

    Ctrl-C ends it with what was measured by then. Exit 0 if all is well, 1 if a scenario broke, 3 if this machine is unfit, 4 if
    the release does not run or the server at --url is not there or must not be loaded, 5 if a measurement can't be trusted, 99 if
    a floor is missed, 130 after Ctrl-C.
    """
    from edgegc.cli.perf_measure import carry_out

    if out is not None and not out.absolute().parent.is_dir():
        raise click.UsageError(f"--out: {out.parent} is no directory")
    options = _options(given)

    def prepare(options: Options) -> Options:
        if strict:
            _insist(common, options)
        return perf_elsewhere.asked(_asked(options), i_know=i_know)

    try:
        report = carry_out(common, options, out, prepare=prepare)
    except errors.Unavailable as error:
        raise Failure(error.message, UNFIT) from None
    code = _show(common, report)
    if options.elsewhere is not None and not report.partial:
        # What could not be measured because it has gone would else look like something that this machine lacks.
        perf_elsewhere.reached(options.elsewhere, i_know=True)
    return code


def _insist(common: Common, options: Options) -> None:
    """Raise Failure, after saying what is wrong, where this machine is unfit to measure on."""
    from edgegc.cli import perf_doctor

    checks = perf_doctor.examined(common, options.directory, emulated=options.device, nebula=options.nebula)
    if perf_doctor.unfit(checks):
        perf_doctor.show(common, checks)
        raise Failure("", UNFIT)


def _asked(options: Options) -> Options:
    """Return the options with what another release says of itself. Raises Failure where it says nothing."""
    from edgegc.perf import release

    if options.command is None:
        return options
    try:
        return replace(options, release=release.versions(options.command))
    except errors.Unavailable as error:
        raise Failure(error.message, UNREACHABLE) from None


def _suites(scenario: Scenario) -> list[str]:
    """Return the suites that a scenario is in."""
    if scenario.asked_for:
        return []
    return ["quick", "full"] if scenario.quick_s else ["full"]


def _options(given: dict[str, Any]) -> Options:
    """Return what the flags ask for. Raises UsageError for what can't be meant."""
    from edgegc.perf import alike, document, filesystem, host, release, scenario, thresholds
    from edgegc.perf.device import Device
    from edgegc.perf.run import Options
    from edgegc.perf.scenarios import mix

    elsewhere = perf_elsewhere.elsewhere(given)
    try:
        mixes = tuple(mix.load(path) for path in given["mix"])
        scenarios = scenario.chosen(suite=given["suite"], only=given["only"], also=mixes)
        device = Device.parse(given["device"]) if given["device"] else None
        floors = thresholds.load(given["thresholds"])
        rates = alike.rates(document.read(given["rates"])) if given["rates"] else {}
    except (errors.NotFound, errors.Invalid) as error:
        raise click.UsageError(error.message) from None
    try:
        directory = filesystem.workplace(given["directory"])
    except errors.Unavailable as error:
        raise click.UsageError(error.message) from None
    return Options(
        scenarios=scenarios,
        suite=given["suite"],
        repeat=given["repeat"],
        retries=given["retry"],
        seed=given["seed"],
        device=device,
        command=release.command(given["server"]) if given["server"] else None,
        elsewhere=elsewhere,
        rates=rates,
        nebula=given["nebula"] or host.find_nebula(),
        directory=directory,
        thresholds=floors,
        argv=tuple(_said(given)),
        warnings=tuple(filter(None, [filesystem.warning(directory)])),
    )


def _said(given: dict[str, Any]) -> list[str]:
    """Return the flags as a report may show them: of a file only its name, of a server nothing."""
    words = ["perf", "run"]
    for flag in (
        "suite",
        "only",
        "mix",
        "repeat",
        "retry",
        "seed",
        "device",
        "server",
        "nebula",
        "thresholds",
        "rates",
    ):
        value = given[flag]
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None:
                words += [f"--{flag}", one.name if isinstance(one, Path) else str(one)]
    return [*words, "--url", "URL"] if given["url"] else words


def _show(common: Common, report: Report) -> int:
    from edgegc.cli.output import emit_json
    from edgegc.cli.perf_report import print_report
    from edgegc.perf.run import exit_code

    if common.json:
        emit_json(report)
    elif not common.quiet:
        print_report(common, report)
    return exit_code(report)
