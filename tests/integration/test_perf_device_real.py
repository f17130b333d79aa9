"""Real control groups hold what they promise. Where this machine lets us have none, the reason must be plain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.errors import Unavailable
from edgegc.perf import cages, leftovers, process, respawn
from edgegc.perf.device import Device
from edgegc.perf.server import ServerOptions, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.cages import Cage

SAFE_S = 60.0


@contextmanager
def caged(text: str) -> Iterator[Cage | None]:
    """The control groups of a device; None where there can't be any, which ``test_perf_device`` is about."""
    try:
        context = cages.cage(Device.parse(text))
        made = context.__enter__()
    except Unavailable as error:
        assert "run it as root" in error.message or "no device can be emulated" in error.message  # noqa: PT017
        yield None
        return
    try:
        yield made
    finally:
        context.__exit__(None, None, None)
    assert not any(group.exists() for group in made.groups)


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)


@pytest.mark.alone
def test_a_process_that_wants_all_of_a_core_gets_its_share() -> None:
    code = "import time\nuntil = time.monotonic() + 2\nwhile time.monotonic() < until: pass\nprint(time.process_time())"
    with caged("128M:25%") as cage:
        if cage is None:
            return
        said = subprocess.run(
            cage.wrap([sys.executable, "-c", code]), capture_output=True, text=True, check=True
        )
        # A quarter, and what the start of Python adds; on a busy machine it may get less.
        assert float(said.stdout) < 2 * 0.25 * 1.3
        assert cage.throttled_s() > 0
        assert cage.oom_kills() == 0


def test_a_process_that_passes_the_memory_limit_is_killed_and_counted() -> None:
    with caged("64M:100%") as cage:
        if cage is None:
            return
        greedy = cage.wrap([sys.executable, "-c", "x = b'1' * 200_000_000"])
        assert subprocess.run(greedy, check=False).returncode == -signal.SIGKILL
        assert cage.oom_kills() == 1
        peak = cage.peak_bytes()
        assert peak is None or 32 << 20 < peak <= 64 << 20


def test_what_still_runs_in_a_cage_ends_with_it() -> None:
    with caged("64M:50%") as cage:
        if cage is None:
            return
        child = subprocess.Popen(cage.wrap(["sh", "-c", "sleep 60 & echo; sleep 60"]), stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        inside = cage.pids()
        assert len(inside) >= 2
    child.communicate()
    assert not any(process.is_alive(pid) for pid in inside)


async def test_a_server_runs_in_its_cage_with_all_it_starts(short: Path) -> None:
    with caged("512M:100%") as cage, trio.fail_after(SAFE_S):
        if cage is None:
            return
        async with serving(ServerOptions(directory=short), cage=cage) as server:
            assert server.pid in cage.pids()
            first = server.pid
            await server.restart()
            assert server.pid in cage.pids()
            assert first not in cage.pids()


async def test_a_server_that_its_memory_limit_killed_is_reported_as_such(short: Path) -> None:
    with caged("24M:100%") as cage, trio.fail_after(SAFE_S):
        if cage is None:
            return
        with pytest.raises(Unavailable, match=r"passed the memory limit of 24 MiB and 100 % of a core"):
            async with serving(ServerOptions(directory=short), cage=cage):
                pass
        assert cage.oom_kills() >= 1


SUITE = """
import contextlib, signal, sys, trio
from pathlib import Path
from edgegc.errors import Unavailable
from edgegc.perf import cages
from edgegc.perf.device import Device
from edgegc.perf.server import ServerOptions, serving

async def main():
    with contextlib.ExitStack() as stack:
        try:
            cage = stack.enter_context(cages.cage(Device.parse("512M:100%")))
        except Unavailable:
            cage = None
        async with serving(ServerOptions(directory=Path(sys.argv[1])), cage=cage) as server:
            print(server.pid, *(cage.groups if cage else ()), flush=True)
            await trio.sleep_forever()

signal.signal(signal.SIGTERM, signal.default_int_handler)
trio.run(main)
"""


@contextmanager
def suite(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int, list[Path]]]:
    """Another suite with a server in a cage; the server's pid and the groups."""
    running = subprocess.Popen(
        [sys.executable, "-c", SUITE, str(directory)],
        env=respawn.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert running.stdout is not None
        pid, *groups = running.stdout.readline().split()
        yield running, int(pid), [Path(group) for group in groups]
    finally:
        running.kill()
        running.communicate()


def test_after_a_suite_was_killed_the_next_one_finds_and_removes_all_it_left(short: Path) -> None:
    with suite(short) as (_, pid, groups):
        pass
    (left,) = short.iterdir()
    # Other tests start servers meanwhile, which look for what is left as well; but not in this directory.
    cages.sweep()
    assert leftovers.sweep(short)[-1] == f"found {left.name} of a run that was killed, and removed it"
    assert list(short.iterdir()) == []
    until = time.monotonic() + SAFE_S
    while process.is_alive(pid) or any(group.exists() for group in groups):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_suite_leaves_nothing(short: Path, number: signal.Signals) -> None:
    with suite(short) as (running, pid, groups):
        running.send_signal(number)
        running.wait(timeout=SAFE_S)
    assert not process.is_alive(pid)
    assert list(short.iterdir()) == []
    assert not any(group.exists() for group in groups)


IN_A_SCOPE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from edgegc.perf import cages, control_groups
from edgegc.perf.cages import cage
from edgegc.perf.device import Device

root = Path(sys.argv[1])
subprocess.run(["mount", "-t", "cgroup2", "none", root], check=True)
offered = (root / "cgroup.controllers").read_text().split()
# Whichever the kernel has left for v2: none of these may be handed down where processes are.
chosen = next((each for each in ("memory", "hugetlb", "io") if each in offered), None)
if chosen is None:
    print("lacking")
    sys.exit()
control_groups.CONTROLLERS = (chosen,)
cages._limit_v2 = lambda *_: None
control = root / "cgroup.subtree_control"
given = chosen in control.read_text().split()
control.write_text(f"+{chosen}")
scope = root / f"scope-{os.getpid()}"
scope.mkdir()
(scope / "cgroup.procs").write_text(str(os.getpid()))

def own():
    (line,) = (each for each in open("/proc/self/cgroup") if each.startswith("0::"))
    return root / line[3:].strip().lstrip("/")

def inside(made):
    (group,) = made.groups
    said = subprocess.run(made.wrap(["cat", "/proc/self/cgroup"]), capture_output=True, text=True, check=True)
    assert group.name in said.stdout
    return group.parent

try:
    with cage(Device.parse("64M:10%")) as first:
        assert inside(first) == scope
        assert own().parent == scope
        with cage(Device.parse("64M:10%")) as second:
            assert inside(second) == scope
    assert own() == scope
    assert (scope / "cgroup.subtree_control").read_text().split() == []
    assert [each for each in scope.iterdir() if each.is_dir()] == []
    # Whose parent has ended is no process of ours.
    starter = "sleep 100 >/dev/null 2>&1 & echo $!"
    said = subprocess.run(["sh", "-c", starter], capture_output=True, text=True, check=True)
    try:
        with cage(Device.parse("64M:10%")) as third:
            assert inside(third) == root
        assert own() == scope
    finally:
        os.kill(int(said.stdout), signal.SIGKILL)
finally:
    (root / "cgroup.procs").write_text(str(os.getpid()))
    until = time.monotonic() + 10
    while (scope / "cgroup.procs").read_text() and time.monotonic() < until:
        time.sleep(0.01)
    scope.rmdir()
    if not given:
        control.write_text(f"-{chosen}")
print("right")
"""


def test_in_a_scope_that_is_ours_alone_v2_groups_are_made_in_it_and_it_is_left_as_it_was(short: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", IN_A_SCOPE, str(short)],
        capture_output=True,
        text=True,
        timeout=SAFE_S,
        check=False,
        env=respawn.environ(),
    )
    if done.stdout == "lacking\n" or "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("no control groups v2 can be had here")
    assert done.stdout == "right\n", done.stderr
