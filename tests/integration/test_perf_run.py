"""A run of the laboratory on real servers: what is in its report, also where it breaks or is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
import trio

from edgegc.errors import Error, Unavailable
from edgegc.model import message
from edgegc.perf import alike, document, ground, host, requests, run
from edgegc.perf.ground import Elsewhere
from edgegc.perf.plan import Ask, Plan
from edgegc.perf.scenario import Scenario, chosen
from edgegc.perf.scenarios import mix, paces
from edgegc.perf.server import Server, ServerOptions, free_port, serving
from edgegc.perf.thresholds import Threshold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from edgegc.perf.bench import Bench, Served
    from edgegc.perf.result import Case, Host, Report

LIMIT_S = 60
"""Within which whatever is waited for has come."""


class Observer:
    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.ended: list[str] = []

    def begins(self, scenario: Scenario, repetition: int, left_s: float) -> None:
        self.begun.append((scenario.name, repetition))

    def ends(self, cases: Sequence[Case]) -> None:
        self.ended += [case.name for case in cases]


def scenario(
    measure: Callable[[Bench], Awaitable[None]], *cases: str, name: str = "api.test", **more: object
) -> Scenario:
    fields = {"quick_s": 1, "full_s": 1, "ram_bytes": 1, "proves": "that it works", **more}
    return Scenario(name=name, run=measure, cases=cases or ("",), **fields)  # type: ignore[arg-type]


def checks(served: Served, **more: object) -> Plan:
    ask = Ask(name="version", requests=tuple(requests.version(node.token) for node in served.seeded.nodes))
    fields = {"connections": 4, "duration_s": 0.5, "connect_within_s": 0, **more}
    return Plan(target=served.server.target, asks=(ask,), **fields)  # type: ignore[arg-type]


async def versions(bench: Bench) -> None:
    async with bench.server(nodes=5) as served, bench.measure(model="closed", of=served) as meter:
        meter.take(await bench.load(checks(served)))
        meter.figure("answer", 42, "count")
        meter.mark("done")


@pytest.fixture
def directory() -> Iterator[Path]:
    # Sockets have short paths, shorter than pytest's.
    with tempfile.TemporaryDirectory(prefix="perf-") as made:
        yield Path(made)


async def measured(
    directory: Path, *scenarios: Scenario, **more: object
) -> tuple[Report, list[Report], Observer]:
    written: list[Report] = []
    observer = Observer()
    options = run.Options(scenarios=scenarios, suite="quick", directory=directory, **more)  # type: ignore[arg-type]
    report = await run.run(options, observer=observer, write=written.append)
    return report, written, observer


async def test_a_case_has_what_was_asked_what_it_took_and_what_the_server_used(directory: Path) -> None:
    report, written, observer = await measured(directory, scenario(versions), repeat=2)
    assert written[-1] == report
    assert not report.partial
    assert observer.begun == [("api.test", 0), ("api.test", 1)]
    (case,) = report.cases
    assert [each.repetition for each in case.measurements] == [0, 1]
    for each in case.measurements:
        assert each.requests > 20
        assert each.errors == {}
        assert each.duration_s == pytest.approx(0.5, abs=0.2)
        assert sum(each.latency.counts) == each.requests
        assert each.server_cpu_s
        assert each.generator_cpu_s > 0
        assert each.samples[-1].rss_bytes > 20_000_000
        assert each.samples[-1].database_bytes > 0
        assert each.figures["answer"].value == 42
        assert each.marks[0].what == "done"
    assert report.versions["edgegc"]
    assert report.host.fsync_p99_s is not None


async def test_nothing_in_a_report_says_where_or_who(directory: Path) -> None:
    seen: list[str] = []

    async def remembering(bench: Bench) -> None:
        async with bench.server(nodes=2) as served, bench.measure(model="closed", of=served) as meter:
            seen.extend((served.seeded.nodes[0].token, served.seeded.admin_token))
            meter.take(await bench.load(checks(served)))

    report, _, _ = await measured(directory, scenario(remembering))
    text = document.encode(report).decode()
    for secret in (*seen, "127.0.0.1", str(directory), os.uname().nodename):
        assert secret not in text


async def test_a_scenario_that_breaks_is_in_the_report_with_the_reason_and_the_others_are_measured(
    directory: Path,
) -> None:
    async def breaks(bench: Bench) -> None:
        async with bench.measure("first", model="none") as meter:
            meter.record(5)
        raise ZeroDivisionError("by design")

    async def refuses(bench: Bench) -> None:
        raise Error("the server said no")

    async def lacks(bench: Bench) -> None:
        raise Unavailable("there is no moon tonight")

    async def works(bench: Bench) -> None:
        async with bench.measure(model="none") as meter:
            meter.record(7)

    report, _, _ = await measured(
        directory,
        scenario(breaks, "first", "second", name="db.breaks"),
        scenario(refuses, name="db.refuses"),
        scenario(lacks, name="db.lacks"),
        scenario(works, name="db.works"),
    )
    found = {case.name: case for case in report.cases}
    assert found["db.breaks[first]"].measurements[0].requests == 1
    assert found["db.breaks[second]"].status == "failed"
    assert "ZeroDivisionError: by design (test_perf_run.py:" in found["db.breaks[second]"].reasons[0]
    assert found["db.refuses"].reasons == ("the server said no",)
    assert found["db.lacks"].status == "unavailable"
    assert found["db.lacks"].reasons == ("there is no moon tonight",)
    assert found["db.works"].measurements[0].requests == 1
    assert run.exit_code(report) == 1


async def test_what_was_spoiled_is_measured_again_and_all_of_it_is_kept(directory: Path) -> None:
    tries = {"once": 0, "always": 0, "never": 0}

    def spoiled(name: str, *, times: int) -> Scenario:
        async def measure(bench: Bench) -> None:
            tries[name] += 1
            async with bench.measure(model="none") as meter:
                meter.record(tries[name])
                if tries[name] <= times:
                    meter.invalid("the moon shone")

        return scenario(measure, name=f"api.{name}")

    all_of_them = (spoiled("once", times=1), spoiled("always", times=9), spoiled("never", times=0))
    report, _, observer = await measured(directory, *all_of_them, retries=2)
    assert tries == {"once": 2, "always": 3, "never": 1}
    assert observer.begun[3:] == [("api.once", 1), ("api.always", 1), ("api.always", 2)]
    once, always, never = report.cases
    assert [once.status, always.status, never.status] == ["ok", "invalid", "ok"]
    assert [each.invalid for each in once.measurements] == [("the moon shone",), ()]
    assert len(always.measurements) == 3
    assert run.exit_code(report) == run.INVALID


async def test_a_server_that_dies_is_no_measurement(directory: Path) -> None:
    async def dies(bench: Bench) -> None:
        async with bench.server(nodes=2) as served, bench.measure(model="none", of=served) as meter:
            await served.server.crash()
            meter.record(1)

    report, _, _ = await measured(directory, scenario(dies))
    assert report.cases[0].status == "invalid"
    assert any("ended" in why for why in report.cases[0].reasons)
    assert run.exit_code(report) == 5


async def test_a_server_that_does_not_start_is_a_failure_and_tells_its_last_words(directory: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('this is no release')")
    report, _, _ = await measured(directory, scenario(versions), command=command)
    (case,) = report.cases
    assert case.status == "failed"
    assert "this is no release" in case.reasons[0]


async def asked_closed(bench: Bench) -> None:
    async with bench.ground(nodes=5) as place:
        asks = [Ask(name="version", requests=tuple(requests.version(n.token) for n in place.seeded.nodes))]
        await paces.closed(bench, place, "hot-closed", asks, connections=7)


async def test_a_reference_takes_turns_with_the_case_that_it_stands_beside_and_has_its_load(
    directory: Path,
) -> None:
    report, _, _ = await measured(directory, scenario(asked_closed, "hot-closed", name="api.version"))
    (found,) = report.cases[0].measurements
    assert found.requests > 20
    assert found.server_cpu_s
    assert [each.name for each in report.references] == ["raw_echo[version]", "plain_quart[version]"]
    for each in report.references:
        assert each.parameters["connections"] == 7
        (beside,) = each.measurements
        assert beside.requests > 20
        assert beside.errors == {}
        assert beside.server_cpu_s
        # Own turns alone: as much of them as the case had.
        assert beside.duration_s == pytest.approx(found.duration_s, rel=0.3)
    trusted = {each.scenario: each.measurements[0] for each in report.references if each.status == "ok"}
    assert {each.reference: each.requests for each in found.paces} == {
        name: each.requests for name, each in trusted.items()
    }


async def test_a_reference_that_only_tells_the_pace_is_no_case_of_the_report(directory: Path) -> None:
    async def node_get(bench: Bench) -> None:
        bench.suite = "full"  # the quick one has no such references
        async with bench.ground(nodes=5) as place:
            token = place.seeded.admin_token
            asks = [
                Ask(name="get", requests=tuple(requests.node_get(token, n.id) for n in place.seeded.nodes))
            ]
            await paces.closed(bench, place, "closed", asks, connections=4, seconds=1.0)

    report, _, _ = await measured(directory, scenario(node_get, "closed", name="api.node_get"))
    assert report.references == ()
    (found,) = report.cases[0].measurements
    # On a machine that others use, the reference can't be trusted any more than the case.
    assert [each.reference for each in found.paces] == ["plain_quart"] * (not found.invalid)


async def test_a_mix_may_have_all_kinds_of_requests(directory: Path) -> None:
    kinds = get_args(mix.Kind)
    path = directory / "all.toml"
    asks = "".join(f'[[ask]]\nwhat = "{kind}"\n' for kind in kinds)
    path.write_text(f'proves = "all"\nnodes = 20\nconnections = 5\nrate_per_s = 100\nduration_s = 1\n{asks}')
    report, _, _ = await measured(directory, mix.load(path))
    (case,) = report.cases
    assert case.name == "mix.all"
    (found,) = case.measurements
    assert found.errors == {}
    assert {f"{kind} rate" for kind in kinds} <= set(found.figures)
    assert all(found.figures[f"{kind} rate"].value > 0 for kind in kinds)


async def test_a_floor_that_is_missed_shows_in_the_exit_code(directory: Path) -> None:
    wanted = Threshold(case="api.test", metric="figure:answer", op=">", value=50, kind="floor")
    report, _, _ = await measured(directory, scenario(versions), thresholds=(wanted,))
    trusted = report.cases[0].status == "ok"
    assert report.verdicts[0].held is (False if trusted else None)
    assert run.exit_code(report) == (99 if trusted else 5)


async def test_what_was_measured_before_an_interrupt_is_the_report(directory: Path) -> None:
    async def first(bench: Bench) -> None:
        async with bench.measure("one", model="none") as meter:
            meter.record(3)
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep(LIMIT_S)

    with trio.fail_after(LIMIT_S):
        report, written, _ = await measured(
            directory, scenario(first, "one", "two", name="db.first"), scenario(versions)
        )
    assert report.partial
    assert written[-1] == report
    assert [case.name for case in report.cases] == ["db.first[one]"]
    assert run.exit_code(report) == 130


def interrupted_command(words: Sequence[str], out: Path, *, once: Path) -> Report:
    """Return the report that ``perf run`` leaves when it is interrupted as soon as a file is there."""
    command = subprocess.Popen(
        [sys.executable, "-m", "edgegc.perf", "run", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + LIMIT_S
        while not once.exists() and time.monotonic() < until:
            assert command.poll() is None
            time.sleep(0.05)
        command.send_signal(signal.SIGINT)
        assert command.wait(LIMIT_S) == 130
    finally:
        command.kill()
        command.wait()
    return document.read(out)


def test_the_command_writes_a_valid_partial_report_when_it_is_interrupted(directory: Path) -> None:
    out = directory / "partial.json"
    words = ["--suite", "quick", "--only", "db.node_*", "--dir", str(directory), "--out", str(out)]
    report = interrupted_command(words, out, once=out)
    assert report.partial
    assert report.cases


async def test_an_interrupt_before_anything_was_measured_leaves_an_empty_report(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(known: Host, place: Path) -> Host:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep(LIMIT_S)
        return known

    monkeypatch.setattr(host, "describe", interrupted)
    with trio.fail_after(LIMIT_S):
        report, written, _ = await measured(directory, scenario(versions))
    assert written == [report]
    assert report.partial
    assert report.cases == ()
    assert report.host.cores > 0
    assert report.host.fsync_p99_s is None
    assert run.exit_code(report) == 130


def test_the_command_leaves_a_report_even_when_it_is_interrupted_before_the_run_begins(
    directory: Path,
) -> None:
    out = directory / "empty.json"
    release = directory / "release.py"
    began = directory / "began"
    release.write_text(f"import pathlib, time\npathlib.Path({str(began)!r}).touch()\ntime.sleep({LIMIT_S})\n")
    words = ["--only", "api.version", "--server", str(release), "--dir", str(directory), "--out", str(out)]
    report = interrupted_command(words, out, once=began)
    assert report.partial
    assert report.cases == ()


async def test_repetitions_of_an_open_load_have_one_rate(directory: Path) -> None:
    can = iter((100.0, 5000.0, 5000.0))

    async def opens(bench: Bench) -> None:
        per_s = paces.bearable(bench, "", 200.0, next(can))
        async with (
            bench.server(nodes=5) as served,
            bench.measure(model="open", of=served, parameters={"rate_per_s": per_s}) as meter,
        ):
            meter.take(await bench.load(checks(served, rate_per_s=per_s)))

    report, _, _ = await measured(directory, scenario(opens), repeat=2)
    assert report.cases[0].parameters["rate_per_s"] == 50.0
    again, _, _ = await measured(directory, scenario(opens, name="api.other"), rates={"api.other": 70.0})
    assert again.cases[0].parameters["rate_per_s"] == 70.0
    assert alike.rates(again) == {"api.other": 70.0}


@pytest.fixture
async def elsewhere(directory: Path) -> AsyncIterator[tuple[Server, Elsewhere]]:
    async with serving(ServerOptions(directory=directory)) as server:
        made = await server.admin.create_api_token(message.ApiTokenCreate(scopes=("operator",)))
        yield server, Elsewhere(url=server.url, token=str(made.token))


async def test_a_server_that_runs_is_asked_what_can_be_asked_and_the_rest_is_left_out_with_its_reason(
    elsewhere: tuple[Server, Elsewhere], directory: Path
) -> None:
    server, there = elsewhere
    scenarios = chosen(
        suite="full", only=("api.version", "load.reconnect_herd", "start.warm", "api.auth_reject")
    )
    with trio.fail_after(2 * LIMIT_S):
        report, _, _ = await measured(directory, *scenarios, elsewhere=there)
    found = {case.name: case for case in report.cases}
    for name in ("first-contact", "hot-closed", "hot-open"):
        case = found[f"api.version[{name}]"]
        assert case.status in ("ok", "invalid")  # the machine may have other things to do
        assert case.parameters["server"] == "at --url"
        (each,) = case.measurements
        assert each.errors == {}
        assert each.requests
        # It runs on this machine, where its process can be seen.
        assert each.server_cpu_s
        assert each.samples[-1].rss_bytes > 20_000_000
    left_out = {name: case.reasons[0] for name, case in found.items() if case.status == "unavailable"}
    assert left_out["api.version[cold]"] == "left out with --url: it restarts the server"
    assert left_out["load.reconnect_herd[clear]"] == "left out with --url: it restarts the server"
    assert left_out["start.warm"] == "left out with --url: it starts servers"
    assert "wrong tokens" in left_out["api.auth_reject[open]"]
    assert report.references == ()
    assert not (await server.admin.tenants()).tenants
    assert server.alive
    text = document.encode(report).decode()
    for secret in (there.token, "127.0.0.1"):
        assert secret not in text
    assert run.exit_code(report) in (0, 5)


async def test_a_server_elsewhere_whose_process_is_not_seen_has_no_figures_of_it(
    elsewhere: tuple[Server, Elsewhere], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground, "PROGRAM", "another program")
    _, there = elsewhere
    scenarios = chosen(suite="full", only=("load.download_50", "load.soak"))
    with trio.fail_after(2 * LIMIT_S):
        report, _, _ = await measured(directory, *scenarios, elsewhere=there)
    found = {case.name: case for case in report.cases}
    (each,) = found["load.download_50"].measurements
    assert each.requests
    assert each.server_cpu_s is None
    assert each.samples == ()
    assert "extra_bytes" not in each.figures
    assert found["load.soak"].status == "unavailable"
    assert "not seen from here" in found["load.soak"].reasons[0]


def test_a_run_against_a_server_that_is_not_there_ends_with_4(directory: Path) -> None:
    token = directory / "token"
    token.write_text("ega_nothing\n")
    url = f"http://127.0.0.1:{free_port()}"
    words = ["run", "--url", url, "--token-file", str(token), "--dir", str(directory)]
    ended = subprocess.run(
        [sys.executable, "-m", "edgegc.perf", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 4
    assert "127.0.0.1" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
