"""Devices in words, and control groups of both versions as directories that look like theirs."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from edgegc.errors import Invalid, Unavailable
from edgegc.perf import cages, leftovers
from edgegc.perf.cages import _limit_v2, cage, sweep
from edgegc.perf.control_groups import surroundings
from edgegc.perf.device import Device

if TYPE_CHECKING:
    from pathlib import Path

BOARD = Device(memory_bytes=512 << 20, cpu_percent=25.0)
NEVER_A_PID = 2**22 + 1
"""Linux gives none above 2**22."""


class Machine:
    """A machine's control groups as plain directories, and the kernel's lists that name them."""

    def __init__(self, top: Path) -> None:
        self.proc_self = top / "self"
        self.proc_self.mkdir()
        self.memory, self.cpu, self.unified = top / "memory", top / "cpu", top / "unified"

    def lists(self, mounts: str, memberships: str) -> None:
        (self.proc_self / "mountinfo").write_text(mounts)
        (self.proc_self / "cgroup").write_text(memberships)

    def v1(self, *, own: str = "/") -> Machine:
        for root in (self.memory, self.cpu):
            (root / own.strip("/")).mkdir(parents=True)
        self.lists(
            f"30 29 0:26 / {self.memory} rw - cgroup cgroup rw,memory\n"
            f"31 29 0:27 / {self.cpu} rw - cgroup cgroup rw,cpu,cpuacct\n",
            f"4:memory:{own}\n1:cpu,cpuacct:{own}\n",
        )
        return self

    def v2(
        self, *, own: str = "/", controllers: str = "cpuset cpu io memory pids", handed: str = ""
    ) -> Machine:
        group = self.unified / own.strip("/")
        group.mkdir(parents=True)
        for each in (group, *group.parents):
            (each / "cgroup.subtree_control").write_text(handed)
            (each / "cgroup.controllers").write_text(controllers)
            if each == self.unified:
                break
        self.lists(f"30 29 0:26 / {self.unified} rw - cgroup2 cgroup2 rw\n", f"0::{own}\n")
        return self


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def emptied(*groups: Path) -> None:
    """Take the kernel's files away, which in a real group do not keep it from being removed."""
    for group in groups:
        for path in group.iterdir():
            path.unlink()


def abandoned(parent: Path) -> Path:
    made = parent / f"{leftovers.NAME}-{NEVER_A_PID}-000000-1"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("text", "memory_bytes", "percent"),
    [
        ("512M:25%", 512 << 20, 25.0),
        ("1G:100%", 1 << 30, 100.0),
        ("262144K:12.5%", 256 << 20, 12.5),
        ("64MiB:5%", 64 << 20, 5.0),
    ],
)
def test_a_device_is_memory_and_a_share_of_a_core(text: str, memory_bytes: int, percent: float) -> None:
    assert Device.parse(text) == Device(memory_bytes=memory_bytes, cpu_percent=percent)


@pytest.mark.parametrize(
    "text", ["", "512M", "25%", "512M:25", "512X:25%", "512M:-1%", "M:25%", "512M:25%:1"]
)
def test_what_is_no_device_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match="as in 512M:25%"):
        Device.parse(text)


def test_a_device_that_nothing_starts_on_is_refused() -> None:
    with pytest.raises(Invalid, match="less than 16M"):
        Device.parse("1M:25%")
    with pytest.raises(Invalid, match="from 1%"):
        Device.parse("512M:0.1%")
    with pytest.raises(Invalid, match="all that this machine has"):
        Device.parse("512M:1000000%")


@pytest.mark.parametrize(
    ("percent", "quota_us", "period_us"), [(25, 2500, 10_000), (100, 10_000, 10_000), (5, 1000, 20_000)]
)
def test_a_quota_is_never_below_what_the_kernel_takes(percent: float, quota_us: int, period_us: int) -> None:
    share = Device(memory_bytes=512 << 20, cpu_percent=percent)
    assert (share.quota_us, share.period_us) == (quota_us, period_us)


def test_v1_limits_memory_and_cpu_in_groups_below_our_own(machine: Machine) -> None:
    machine.v1(own="/user/me")
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        memory, cpu = caged.groups
        assert (memory.parent, cpu.parent) == (machine.memory / "user/me", machine.cpu / "user/me")
        assert (memory / "memory.limit_in_bytes").read_text() == str(512 << 20)
        assert (cpu / "cpu.cfs_quota_us").read_text() == "2500"
        assert (cpu / "cpu.cfs_period_us").read_text() == "10000"
        assert caged.described.cgroup == "v1"
        emptied(memory, cpu)
    assert not memory.exists()
    assert not cpu.exists()


def test_v1_tells_throttling_the_peak_and_kills(machine: Machine) -> None:
    machine.v1()
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        memory, cpu = caged.groups
        (cpu / "cpu.stat").write_text("nr_periods 9\nnr_throttled 4\nthrottled_time 1500000000\n")
        (memory / "memory.max_usage_in_bytes").write_text("1234\n")
        (memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
        told = (caged.throttled_s(), caged.peak_bytes(), caged.oom_kills())
        emptied(memory, cpu)
    assert told == (1.5, 1234, 2)


def test_v2_limits_memory_swap_and_cpu_in_one_group(machine: Machine) -> None:
    machine.v2(handed="cpu memory")
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        (group,) = caged.groups
        assert (group / "memory.max").read_text() == str(512 << 20)
        assert (group / "cpu.max").read_text() == "2500 10000"
        assert caged.described.cgroup == "v2"
        (group / "cpu.stat").write_text("usage_usec 7\nthrottled_usec 250000\n")
        (group / "memory.events").write_text("max 3\noom 1\noom_kill 1\n")
        told = (caged.throttled_s(), caged.peak_bytes(), caged.oom_kills())
        emptied(group)
    assert told == (0.25, None, 1)
    assert not group.exists()


def test_v2_has_controllers_handed_down_where_they_were_not_and_takes_them_back(machine: Machine) -> None:
    machine.v2()
    control = machine.unified / "cgroup.subtree_control"
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        assert control.read_text() == "+memory +cpu"
        emptied(*caged.groups)
    assert control.read_text() == "-memory -cpu"


def test_v2_goes_up_from_a_group_that_has_processes_of_its_own(machine: Machine) -> None:
    machine.v2(own="/user.slice/session.scope")
    refused = machine.unified / "user.slice/session.scope/cgroup.subtree_control"
    refused.unlink()
    refused.mkdir()  # cannot be written, as the kernel refuses it where processes are
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        (group,) = caged.groups
        assert group.parent == machine.unified / "user.slice"
        emptied(group)


def test_v2_leaves_a_group_alone_that_others_are_in_and_says_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.v2()
    (machine.unified / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")

    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(cages, "_switch", refuse)
    with (
        pytest.raises(Unavailable, match=r"\(it has processes of its own\): run it as root"),
        cage(BOARD, proc_self=machine.proc_self),
    ):
        pass
    assert not any(entry.is_dir() for entry in machine.unified.iterdir())


def test_v2_without_control_of_the_processor_in_our_own_group_goes_up(machine: Machine) -> None:
    machine.v2(own="/user.slice")
    (machine.unified / "user.slice/cgroup.controllers").write_text("memory pids")
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        assert caged.groups[0].parent == machine.unified
        emptied(*caged.groups)


def test_without_control_groups_the_reason_is_plain(machine: Machine) -> None:
    machine.lists("", "")
    with (
        pytest.raises(Unavailable, match="no control groups are mounted here"),
        cage(BOARD, proc_self=machine.proc_self),
    ):
        pass


def test_a_missing_controller_is_named(machine: Machine) -> None:
    machine.v2(controllers="cpu io")
    with pytest.raises(Unavailable, match="no control of memory"), cage(BOARD, proc_self=machine.proc_self):
        pass


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_where_no_group_can_be_made_the_reason_and_the_remedy_are_told(
    machine: Machine, version: str
) -> None:
    made = machine.v1(own="/gone") if version == "v1" else machine.v2()
    if version == "v1":
        (made.memory / "gone").rmdir()
    else:
        (made.unified / "cgroup.subtree_control").unlink()
    with (
        pytest.raises(
            Unavailable, match=r"No such file or directory.*run it as root.*systemd-run --user --scope"
        ),
        cage(BOARD, proc_self=made.proc_self),
    ):
        pass


def test_a_limit_that_the_kernel_refuses_is_told(tmp_path: Path) -> None:
    group = tmp_path / "group"
    (group / "cpu.max").mkdir(parents=True)  # cannot be written, as where a group further up has less
    with pytest.raises(Unavailable, match=r"cpu\.max .*so this device can't be emulated"):
        _limit_v2(group, BOARD)


def test_a_group_that_nothing_may_join_is_told_before_anything_is_measured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.v1()
    monkeypatch.setattr(cages, "JOIN", cages.JOIN.replace("cgroup.procs", "missing/cgroup.procs"))
    monkeypatch.setattr(cages, "EMPTY_S", 0.0)
    with (
        pytest.raises(Unavailable, match=r"no process can be brought into the control group.*run it as root"),
        cage(BOARD, proc_self=machine.proc_self),
    ):
        pass


def test_a_program_joins_every_group_before_it_becomes_itself(machine: Machine) -> None:
    machine.v1()
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        for group in caged.groups:
            (group / "cgroup.procs").write_text("")
        pid = os.posix_spawn(
            "/bin/sh", caged.wrap(["/bin/sh", "-c", 'test "$1" = "a b"', "sh", "a b"]), os.environ
        )
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        joined = [(group / "cgroup.procs").read_text() for group in caged.groups]
        emptied(*caged.groups)
    assert joined == [f"{pid}\n"] * 2


def test_a_program_that_cant_join_does_not_run(machine: Machine, tmp_path: Path) -> None:
    machine.v1()
    ran = tmp_path / "ran"
    with cage(BOARD, proc_self=machine.proc_self) as caged:
        argv = caged.wrap(["/bin/sh", "-c", f"touch {ran}"])
        emptied(*caged.groups)
    pid = os.posix_spawn(
        "/bin/sh", argv, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125
    assert not ran.exists()


def test_groups_of_suites_that_are_gone_are_removed_wherever_they_are(machine: Machine) -> None:
    machine.v1(own="/here")
    left = [abandoned(machine.memory / "elsewhere"), abandoned(machine.cpu)]
    mine = machine.memory / leftovers.name("kept")
    mine.mkdir()
    said = sweep(proc_self=machine.proc_self)
    assert len(said) == 2
    assert not any(group.exists() for group in left)
    assert mine.exists()


def test_the_limits_around_us_are_told_without_a_path(machine: Machine) -> None:
    machine.v1(own="/user/me")
    assert surroundings(proc_self=machine.proc_self) == "v1, no limits"
    (machine.memory / "user/memory.limit_in_bytes").write_text(str(1 << 30))
    (machine.memory / "memory.limit_in_bytes").write_text("9223372036854771712")
    (machine.cpu / "user/me/cpu.cfs_quota_us").write_text("50000")
    (machine.cpu / "user/me/cpu.cfs_period_us").write_text("100000")
    assert surroundings(proc_self=machine.proc_self) == "v1, held to 1024 MiB and 50 % of a core"


def test_the_limits_of_v2_around_us_are_told(machine: Machine) -> None:
    machine.v2(own="/a")
    (machine.unified / "a/memory.max").write_text("max\n")
    (machine.unified / "a/cpu.max").write_text("20000 10000\n")
    assert surroundings(proc_self=machine.proc_self) == "v2, held to 200 % of a core"
