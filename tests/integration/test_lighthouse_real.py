"""The supervisor with real nebula, files, inotify and signals, as an unprivileged user; only the store is a fake."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from edgegc.clock import SystemClock
from edgegc.lighthouse import orphans
from edgegc.lighthouse.orphans import stop_recorded
from edgegc.lighthouse.render import lighthouse_directory
from edgegc.lighthouse.supervisor import Supervisor
from edgegc.model.event import RestartRequested
from edgegc.nebula import certificate, keys, record
from edgegc.nebula.probe import probe
from edgegc.nebula.process import InstalledNebula, SystemSpawner
from edgegc.store.gate import lock_data_directory
from tests.fakes import CLUSTER_ID, FakeControl, sample_lighthouse

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Callable, Iterator

    from edgegc.model.lighthouse import LighthouseSpec, LighthouseStatus

LIMIT_S = 30.0
"""Generous: nothing here takes two seconds on an idle machine."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("0.0.0.0", 0))
        port: int = bound.getsockname()[1]
        return port


def signed_lighthouse(port: int) -> LighthouseSpec:
    """Return a specification with real certificates."""
    now = int(time.time())
    authority, host = keys.generate_ed25519(), keys.generate_x25519()
    ca = certificate.self_sign(name="ca", key=authority, not_before=now - 3600, not_after=now + 86400)
    issued = certificate.sign(
        ca=ca,
        ca_private=authority.private,
        name="lighthouse",
        overlay=ipaddress.IPv4Interface("10.42.0.1/16"),
        subnets=(),
        groups=(),
        not_before=now - 60,
        not_after=now + 80000,
        public_key=host.public,
    )
    return sample_lighthouse(
        port=port,
        config=config("22"),
        ca_pem=ca.pem(),
        certificate_pem=issued.pem(),
        key_pem=keys.pem_x25519_private(host.private),
        fingerprint=issued.fingerprint,
    )


def config(port: str) -> dict[str, Any]:
    return {
        "pki": {"blocklist": [], "disconnect_invalid": True},
        "lighthouse": {"am_lighthouse": True, "interval": 10},
        "listen": {"host": "0.0.0.0", "send_recv_error": "always"},
        "firewall": {
            "inbound": [{"port": port, "proto": "tcp", "host": "any"}],
            "outbound": [{"port": "any", "proto": "any", "host": "any"}],
        },
    }


class Box:
    def __init__(self, data_dir: Path, nebula: Path) -> None:
        self.data_dir = data_dir
        self.nebula = InstalledNebula(nebula)
        self.control = FakeControl(data_dir, clock=SystemClock())
        self.spec = signed_lighthouse(free_port())
        self.directory = lighthouse_directory(data_dir, CLUSTER_ID)

    def want(self, version: int, rule: str) -> None:
        self.spec = msgspec.structs.replace(self.spec, version=version, config=config(rule))
        self.control.want(self.spec)

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Supervisor]:
        supervisor = Supervisor(self.control, nebula=self.nebula)  # type: ignore[arg-type]
        with trio.fail_after(3 * LIMIT_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(supervisor.run)
                yield supervisor
                nursery.cancel_scope.cancel()

    @property
    def status(self) -> LighthouseStatus:
        status = self.control.lighthouses.get(CLUSTER_ID)
        assert status is not None
        return status

    async def running(self, version: int) -> LighthouseStatus:
        await until(
            lambda: (
                self.control.lighthouses.get(CLUSTER_ID) is not None
                and self.status.state == "running"
                and self.status.version_running == version
            )
        )
        return self.status

    @property
    def log(self) -> str:
        return (self.directory / "nebula.log").read_text()

    @property
    def health(self) -> str:
        return self.control.health.report().checks["lighthouses"]


async def edgegc(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [sys.executable, "-m", "edgegc", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
    )


def proc_status(pid: int | None) -> str:
    return Path(f"/proc/{pid}/status").read_text()


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(LIMIT_S):
        while not holds():
            await trio.sleep(0.02)


@pytest.fixture
def box(nebula: Path) -> Iterator[Box]:
    # pytest's own directory is 0700, and nebula runs as somebody else.
    data_dir = Path(tempfile.mkdtemp(prefix="edgegc-lighthouse-"))
    data_dir.chmod(0o711)
    yield Box(data_dir, nebula)
    for each in data_dir.rglob(orphans.RECORD):
        known = record.load(each)
        child = SystemSpawner().adopt(known) if known is not None else None
        if child is not None:
            child.send_signal(signal.SIGKILL)
            trio.run(child.wait)
            child.release()
    shutil.rmtree(data_dir, ignore_errors=True)


async def test_a_wanted_lighthouse_runs_answers_and_is_measured(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        status = await box.running(1)
        assert await probe(box.spec.port)
        await until(lambda: box.status.rss_bytes is not None and box.status.fds is not None)
        assert status.pid is not None
        assert "Nebula interface is active" in "".join(box.status.log_tail)
        assert box.health == "ok"


@needs_root
async def test_its_files_are_for_its_user_and_nobody_elses_eyes(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        status = await box.running(1)
        assert "Uid:\t65534" in proc_status(status.pid)
    key = box.directory / "host.key"
    assert (key.stat().st_uid, key.stat().st_gid, key.stat().st_mode & 0o777) == (0, 65534, 0o640)
    assert box.directory.stat().st_mode & 0o777 == 0o750
    assert (box.directory / orphans.RECORD).stat().st_mode & 0o777 == 0o600


async def test_a_change_is_reloaded_in_the_same_process(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        pid = (await box.running(1)).pid
        box.want(2, "80")
        assert (await box.running(2)).pid == pid
        assert "New firewall has been installed" in box.log


async def test_a_burst_of_a_hundred_changes_is_few_reloads(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        await box.running(1)
        for version in range(2, 102):
            box.want(version, str(version))
            await trio.sleep(0.005)
        await box.running(101)
        assert box.log.count("Caught HUP") <= 4


async def test_killed_it_is_back_and_answers(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        status = await box.running(1)
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        await until(lambda: box.status.pid not in (status.pid, None) and box.status.state == "running")
        assert await probe(box.spec.port)
        assert box.status.restarts == 1


async def test_the_next_daemon_adopts_the_same_process_and_applies_what_has_changed(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        pid = (await box.running(1)).pid
    assert await probe(box.spec.port)
    box.want(2, "80")
    async with box.daemon():
        assert (await box.running(2)).pid == pid
    assert "Goodbye" not in box.log


async def test_a_configuration_that_nebula_refuses_changes_nothing(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        pid = (await box.running(1)).pid
        before = (box.directory / "config.yml").read_bytes()
        box.want(2, "nonsense")
        await until(lambda: "nonsense" in box.health)
        assert (box.status.pid, box.status.version_running) == (pid, 1)
        assert (box.directory / "config.yml").read_bytes() == before
        assert "Caught HUP" not in box.log
        box.want(3, "80")
        assert (await box.running(3)).pid == pid
        await until(lambda: box.health == "ok")


async def test_an_override_takes_effect_when_its_file_is_renamed_into_place(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        await box.running(1)
        fragment = box.data_dir / "fragment"
        fragment.write_text("firewall: {inbound: [{port: 4711, proto: udp, host: any}]}")
        fragment.rename(box.directory / "overrides" / "10-rule.yml")
        await until(lambda: "4711" in box.log and "New firewall has been installed" in box.log)
        fragment.write_text("firewall: {inbound: [{port: nonsense, proto: udp, host: any}]}")
        fragment.rename(box.directory / "overrides" / "10-rule.yml")
        await until(lambda: "overrides are not used" in box.health)
        assert "4711" in (box.directory / "config.yml").read_text()


async def test_a_requested_restart_gives_another_process(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        pid = (await box.running(1)).pid
        box.control.bus.publish(RestartRequested(cluster_id=CLUSTER_ID))
        await until(lambda: box.status.pid not in (pid, None) and box.status.state == "running")
        assert box.log.count("Goodbye") == 1


async def test_a_taken_port_is_shown_and_the_lighthouse_comes_when_it_is_free(box: Box) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", box.spec.port))
        box.want(1, "22")
        async with box.daemon():
            await until(lambda: "is in use by" in box.health)
            other.close()
            await box.running(1)
            await until(lambda: box.health == "ok")


async def test_stop_all_leaves_no_process(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon() as supervisor:
        pid = (await box.running(1)).pid
        await supervisor.stop_all()
        assert pid is not None
        assert not record.is_alive(record.stat(pid))
        assert "Goodbye" in box.log


async def test_recorded_lighthouses_are_ended_without_a_daemon(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        pid = (await box.running(1)).pid
    (ended,) = await stop_recorded(box.data_dir)
    assert (ended.cluster_id, ended.pid, ended.outcome) == (CLUSTER_ID, pid, "terminated")
    assert "Goodbye" in box.log
    assert await stop_recorded(box.data_dir) == []
    assert await stop_recorded(box.data_dir, "another") == []


async def test_the_command_line_ends_them_without_a_daemon_and_without_its_names(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        pid = (await box.running(1)).pid
        # While a daemon holds the directory it is the daemon's business.
        with lock_data_directory(box.data_dir):
            refused = await edgegc("lighthouse", "stop", "--all", "--data-dir", str(box.data_dir))
    assert refused.returncode != 0
    assert b"is in use by" in refused.stderr
    named = await edgegc("lighthouse", "stop", "home", "--data-dir", str(box.data_dir))
    assert named.returncode != 0
    assert CLUSTER_ID.encode() in named.stderr
    stopped = await edgegc("lighthouse", "stop", "--data-dir", str(box.data_dir))
    assert stopped.returncode == 0, stopped.stderr
    assert f"terminated (pid {pid})".encode() in stopped.stderr
    assert pid is not None
    await trio.to_thread.run_sync(
        os.waitpid, pid, 0
    )  # the daemon that would have done so ran in this process
    again = await edgegc("lighthouse", "stop", "--data-dir", str(box.data_dir))
    assert again.returncode == 5
    assert b"nothing serves" in again.stderr


async def test_one_whose_cluster_was_deleted_while_no_daemon_ran_is_ended_at_the_start(box: Box) -> None:
    box.want(1, "22")
    async with box.daemon():
        pid = (await box.running(1)).pid
    box.control.want()
    async with box.daemon():
        assert pid is not None
        assert not record.is_alive(record.stat(pid))
        assert not box.directory.exists()
