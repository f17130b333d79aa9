"""What /proc says of real processes, and samples of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.perf import monitor, process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgegc.perf.result import Sample

SAFE_S = 30.0
MIB = 1 << 20


LARGE = """
import time
x = bytearray(b"1") * 50_000_000
while time.process_time() < 0.1: pass
print(flush=True); time.sleep(60)
"""


@contextmanager
def running(code: str) -> Iterator[int]:
    """A Python that runs code, from the moment it has printed something."""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def test_memory_descriptors_and_time_of_a_process_are_told() -> None:
    with (
        running(LARGE) as large,
        running("import time; print(flush=True); time.sleep(60)") as small,
    ):
        much, little = process.usage([large]), process.usage([small])
        both = process.usage([large, small])
    assert 40 * MIB < much.private_bytes - little.private_bytes < 60 * MIB
    assert much.rss_bytes >= much.pss_bytes >= much.private_bytes
    assert little.fds >= 3
    assert much.cpu_s >= 0.09
    assert little.context_switches > 0
    assert both.rss_bytes == pytest.approx(much.rss_bytes + little.rss_bytes, rel=0.05)


def test_open_files_are_counted_whether_or_not_the_kernel_tells_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import os, time; kept = [os.dup(0) for _ in range(100)]; print(flush=True); time.sleep(60)"
    with running(code) as pid:
        listed = len(os.listdir(f"/proc/{pid}/fd"))
        assert process.usage([pid]).fds == listed >= 103
        real = Path.stat

        def silent(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
            told = real(path, follow_symlinks=follow_symlinks)
            return os.stat_result((*told[:6], 0, *told[7:10]))

        monkeypatch.setattr(Path, "stat", silent)
        assert process.usage([pid]).fds == listed


def test_private_memory_alone_is_what_usage_tells_of_it() -> None:
    with running(LARGE) as large, running("import time; print(flush=True); time.sleep(60)") as small:
        assert process.private_bytes([large, small]) == process.usage([large, small]).private_bytes
    with pytest.raises(process.Gone):
        process.private_bytes([large])


def test_written_bytes_are_those_that_reach_a_disk(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("written") / "file"
    code = f"""
import os, time
with open({str(path)!r}, "wb") as file:
    file.write(b"1" * 1_000_000); file.flush(); os.fsync(file.fileno())
print(flush=True); time.sleep(60)
"""
    with running(code) as pid:
        assert process.usage([pid]).written_bytes >= 1_000_000


def test_a_tree_is_a_process_and_all_below_it() -> None:
    code = """
import subprocess, sys, time
inner = "import subprocess, time; subprocess.Popen(['sleep', '60']); print(flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", inner])
time.sleep(60)
"""
    with running(code) as pid:
        found = process.tree(pid)
        assert found[0] == pid
        assert len(found) == 3
        until = time.monotonic() + SAFE_S
        while not process.arguments(found[-1]):  # for a moment after its start a process has none
            assert time.monotonic() < until
        assert process.arguments(found[-1]) == ["sleep", "60"]


def test_a_process_that_is_gone_is_an_error_and_no_zero() -> None:
    with running("import time; print(flush=True); time.sleep(60)") as pid:
        start = process.stat(pid).start_ticks
        assert process.is_alive(pid, start_ticks=start)
        assert not process.is_alive(pid, start_ticks=start + 1)
    for ask in (process.stat, process.tree, process.arguments, lambda pid: process.usage([pid])):
        with pytest.raises(process.Gone, match=f"process {pid} has ended"):
            ask(pid)


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen(["true"])
    until = time.monotonic() + SAFE_S
    while process.stat(child.pid).alive:
        assert time.monotonic() < until
        time.sleep(0.001)
    with pytest.raises(process.Gone):
        process.usage([child.pid])
    with pytest.raises(process.Gone):
        process.tree(child.pid)
    child.wait()


class Watched:
    """Something to sample: a process that may be replaced."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def pids(self) -> tuple[int, ...]:
        return process.tree(self.pid)

    def database_bytes(self) -> int:
        return 10

    def wal_bytes(self) -> int:
        return 20


BUSY = "print(flush=True)\nwhile True: pass"
IDLE = "import time; print(flush=True); time.sleep(60)"


async def until(samples: list[Sample], count: int) -> None:
    with trio.fail_after(SAFE_S):
        while len(samples) < count:
            await trio.sleep(0.01)


async def test_samples_count_from_their_beginning_and_go_on_over_a_restart() -> None:
    samples: list[Sample] = []
    with running(BUSY) as first, running(IDLE) as second:
        watched = Watched(first)
        async with trio.open_nursery() as nursery:

            async def watch(*, task_status: trio.TaskStatus[monitor.Watch]) -> None:
                await monitor.sample(watched, every_s=0.2, into=samples, task_status=task_status)

            await nursery.start(watch)
            assert samples[0].cpu_s < 0.1
            await until(samples, 4)
            used = samples[-1].cpu_s
            watched.pid = second
            await until(samples, len(samples) + 2)
            nursery.cancel_scope.cancel()
    assert used > 0
    assert samples[-1].cpu_s >= used
    assert [sample.at_s for sample in samples] == sorted(sample.at_s for sample in samples)
    assert (samples[0].database_bytes, samples[0].wal_bytes) == (10, 20)


async def test_while_nothing_runs_there_are_no_samples() -> None:
    samples: list[Sample] = []
    with running(IDLE) as second:
        async with trio.open_nursery() as nursery:
            with running(IDLE) as first:
                watched = Watched(first)

                async def watch(*, task_status: trio.TaskStatus[monitor.Watch]) -> None:
                    await monitor.sample(watched, every_s=0.05, into=samples, task_status=task_status)

                await nursery.start(watch)
            gone = len(samples)
            await trio.sleep(0.2)
            assert len(samples) <= gone + 1
            watched.pid = second
            await until(samples, gone + 2)
            nursery.cancel_scope.cancel()
