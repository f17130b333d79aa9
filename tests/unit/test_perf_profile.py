"""Profiles: what samplers write is read as it was meant, added up, trimmed, and drawn."""

from __future__ import annotations

import json
import sys
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.errors import Unavailable
from edgegc.perf import profiling, respawn
from edgegc.perf.profiler import flame, recording, sampler, tools
from edgegc.perf.profiler.profile import Profile, function_at, named, short
from edgegc.perf.profiler.recording import Frame, Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.perf.profiler.recording import Stack

MAIN = Frame("", "thread MainThread", 0)
RUN = Frame("/x/site-packages/trio/_core/_run.py", "unrolled_run", 2800)
HANDLE = Frame("/x/edgegc/api/connection.py", "Connection.run", 100)
SEND = Frame("/x/site-packages/trio/_socket.py", "send", 7)
SVG = "{http://www.w3.org/2000/svg}"


def profile(**stacks: tuple[Stack, float]) -> Profile:
    found = Profile(unit="s")
    for stack, weight in stacks.values():
        found.add(stack, weight)
    return found


def read(directory: Path) -> recording.Recording:
    [file] = directory.glob(f"*{recording.SUFFIX}")
    return recording.read(file)


def test_what_a_recorder_writes_is_read_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a", kind="cpu", words=["serve"])
    frames = [recorder.frame(MAIN), recorder.frame(HANDLE)]
    recorder.add(1000, 5, frames)
    recorder.add(2000, 6, frames)
    recorder.add_memory(2, 300, -100, 3, frames[:1])
    recorder.say(sampler.SPENT, 1)
    recorder.say(sampler.SPENT, 7)
    recorder.flush()
    found = recording.read(tmp_path / "a")
    assert (found.kind, found.words) == ("cpu", ("serve",))
    assert [(each.at_ns, each.weight, each.stack) for each in found.samples] == [
        (1000, 5, (MAIN, HANDLE)),
        (2000, 6, (MAIN, HANDLE)),
    ]
    assert found.held == [recording.Held(2, 300, -100, 3, (MAIN,))]
    assert found.numbers == {sampler.SPENT: 7}


def test_a_recording_that_was_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a", kind="cpu", words=[])
    recorder.add(1000, 5, [recorder.frame(MAIN)])
    recorder.add(2000, 5, [recorder.frame(HANDLE)])
    recorder.flush()
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-4])
    assert [each.at_ns for each in recording.read(tmp_path / "a").samples] == [1000]


def test_a_line_has_its_own_time_and_a_function_what_it_calls_too_once() -> None:
    found = profile(a=((MAIN, HANDLE, SEND), 3.0), b=((MAIN, HANDLE), 1.0), c=((MAIN, HANDLE, HANDLE), 1.0))
    assert found.lines() == [(SEND, 3.0), (HANDLE, 2.0)]
    assert found.functions() == [(HANDLE._replace(line=0), 5.0), (SEND._replace(line=0), 3.0)]


def test_a_thread_is_shown_from_its_main_loop_on_and_a_task_from_its_beginning() -> None:
    click = Frame("/x/site-packages/click/core.py", "invoke", 1)
    task = Frame("", "task serve", 0)
    found = profile(a=((MAIN, click, RUN, HANDLE), 1.0), b=((MAIN, click, RUN), 1.0), c=((task, RUN), 1.0))
    assert list(found.trimmed().weights) == [(MAIN, RUN, HANDLE), (MAIN, RUN), (task, RUN)]


def test_what_unpacks_a_pyz_is_not_shown_whatever_the_file_is_named() -> None:
    for archive in ("/x/edgegc.pyz", "/opt/edgegc"):
        entered = Frame(f"{archive}/__main__.py", "<module>", 3)
        unpacks = Frame(f"{archive}/_bootstrap/__init__.py", "bootstrap", 200)
        found = profile(a=((MAIN, entered, unpacks, RUN, HANDLE), 1.0))
        assert list(found.trimmed().weights) == [(MAIN, RUN, HANDLE)]


def test_processes_of_several_kinds_have_a_profile_each(tmp_path: Path) -> None:
    for number, words in enumerate((("serve", "--data-dir", "/x"), ("agent",), ("agent",))):
        recorder = Recorder(tmp_path / f"{number}{recording.SUFFIX}", kind="cpu", words=words)
        recorder.add(1000, 1_000_000_000, [recorder.frame(HANDLE)])
        recorder.flush()
    recordings = [recording.read(path) for path in sorted(tmp_path.iterdir())]
    recordings[0].pid, recordings[1].pid, recordings[2].pid = 7, 8, 9
    window = profiling.Window(case="held", number=1, pids=(8, 9), begin_ns=0, end_ns=2000)
    profiler = profiling.Profiler("cpu", "own", tmp_path)
    agents, server = profiler.of_window(window, recordings, requests=3, cpu_s=1.5)
    assert (agents.name, agents.profile.total, agents.samples) == ("held, edgegc agent", 2.0, 2)
    assert (server.name, server.profile.total, server.samples) == ("held, edgegc serve", 1.0, 1)
    assert (agents.cpu_s, server.cpu_s) == (1.5, None)
    (alone,) = profiler.of_window(window, recordings[1:], requests=3, cpu_s=1.5)
    assert (alone.name, alone.cpu_s) == ("held", 1.5)
    (other,) = profiler.of_window(window, recordings[:1], requests=3, cpu_s=1.5)
    assert (other.name, other.cpu_s) == ("held, edgegc serve", None)


def test_a_wait_is_named_by_our_innermost_line_and_what_it_waits_in() -> None:
    task = Frame("", "task serve", 0)
    [(wait, weight)] = profile(a=((task, HANDLE, SEND), 2.0)).waits()
    assert (wait.who, wait.at, wait.inner, weight) == ("task serve", HANDLE, "send", 2.0)


def test_files_are_named_without_where_they_are_installed() -> None:
    assert short(SEND.file) == "trio/_socket.py"
    assert short(HANDLE.file) == "edgegc/api/connection.py"
    assert short(json.__file__) == "json/__init__.py"
    assert short("<frozen runpy>") == "<frozen runpy>"


def test_lines_without_names_get_them_from_the_source() -> None:
    line = named.__code__.co_firstlineno
    assert function_at(named.__code__.co_filename, line) == "named"
    imported = Frame("<frozen importlib._bootstrap>", "", 3)
    [frame] = named([imported, Frame(named.__code__.co_filename, "", line)])
    assert frame.function == "named"


def test_a_flame_graph_is_one_well_formed_file_that_loads_nothing() -> None:
    odd = Frame("/x/edgegc/<b>.py", "<lambda> & co", 1)
    drawn = flame.svg(
        {"hot": profile(a=((MAIN, odd), 3.0)), "cold": profile(a=((MAIN,), 1.0))}, title="a < b", subtitle=""
    )
    root = ET.fromstring(drawn)
    widths = {
        each.findtext(f"{SVG}text"): each.get("width") for each in root.iter(f"{SVG}svg") if each is not root
    }
    assert widths["all"] == "100.0000%"
    assert widths["hot"] == widths["<lambda> & co"] == "75.0000%"
    assert widths["cold"] == "25.0000%"
    assert "href" not in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_a_speedscope_document_has_a_profile_for_each_case() -> None:
    found = json.loads(flame.speedscope({"hot": profile(a=((MAIN, HANDLE), 3.0))}, title="api.version"))
    [hot] = found["profiles"]
    names = [found["shared"]["frames"][number]["name"] for number in hot["samples"][0]]
    assert names == ["thread MainThread", "Connection.run"]
    assert (hot["weights"], hot["endValue"], hot["unit"]) == ([3.0], 3.0, "seconds")


def test_what_py_spy_writes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.raw"
    file.write_text(
        'thread (0x7F): "MainThread";run (trio/_core/_run.py:12);<genexpr> (a (b)/c.py:3);epoll_wait (libc.so.6) 40\n'
    )
    [(stack, weight)] = tools.read_py_spy(file).weights.items()
    assert stack[0].file == ""
    assert stack[1:3] == (Frame("trio/_core/_run.py", "run", 12), Frame("a (b)/c.py", "<genexpr>", 3))
    assert weight == 40 / tools.PY_SPY_PER_S


def test_a_tool_that_is_not_there_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "has", lambda tool: tool == "own")
    assert (
        tools.choose("cpu", None) == tools.choose("memory", None) == tools.choose("blocking", None) == "own"
    )
    assert "pip install py-spy" in tools.lacking("cpu", "own")
    assert "pip install memray" in tools.lacking("memory", "own")
    with pytest.raises(Unavailable, match="pip install py-spy"):
        tools.choose("cpu", "py-spy")
    monkeypatch.setattr(tools, "has", lambda tool: True)
    assert tools.choose("cpu", None) == "py-spy"
    assert tools.choose("blocking", None) == "own"
    with pytest.raises(Unavailable, match="no profile of memory"):
        tools.choose("memory", "py-spy")


def test_cpu_time_is_found_where_it_is_spent(tmp_path: Path) -> None:
    def busy() -> int:
        return sum(range(1000))

    with sampler.sampling("cpu", tmp_path, ["test"], tool="own"):
        until = time.process_time() + 0.3
        while time.process_time() < until:
            busy()
    samples = read(tmp_path).samples
    here = [each for each in samples if any(frame.file == __file__ for frame in each.stack)]
    assert sum(each.weight for each in here) > 0.1e9
    assert sum(each.weight for each in here) > 0.8 * sum(each.weight for each in samples)


async def test_a_task_that_waits_is_found_where_it_waits(tmp_path: Path) -> None:
    async def inner() -> None:
        await trio.sleep_forever()

    async def waiter() -> None:
        await inner()

    with sampler.sampling("blocking", tmp_path, ["test"], tool="own"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await trio.sleep(0.4)
            nursery.cancel_scope.cancel()
    stacks = [each.stack for each in read(tmp_path).samples]
    functions = {tuple(frame.function.rpartition(".")[2] for frame in stack) for stack in stacks}
    assert any(names[:3] == ("task waiter", "waiter", "inner") for names in functions)


def test_what_is_measured_runs_through_the_profiler_and_nothing_else_does() -> None:
    plain = respawn.program("serve")
    with respawn.through("perf", "_profiled"):
        assert respawn.measured("serve") == (*plain[:-1], "perf", "_profiled", "serve")
        assert respawn.program("serve") == plain
    assert respawn.measured("serve") == plain
    assert sys.executable == plain[0]
