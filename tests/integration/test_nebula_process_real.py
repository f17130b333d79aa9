"""Process with real nebula, real signals and real files, as an unprivileged user without a tunnel device."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from edgegc.clock import SystemClock
from edgegc.nebula import certificate, keys, life, logfile, machine, ports, record, spawn
from edgegc.nebula import process as process_module
from edgegc.nebula.config import dump
from edgegc.nebula.logfile import LogFile
from edgegc.nebula.probe import probe
from edgegc.nebula.process import (
    ApplyFailed,
    NebulaUnusable,
    Process,
    State,
    SystemSpawner,
    Wanted,
    find_nebula,
    nebula_version,
)
from edgegc.nebula.process import test_config as check_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

LIMIT_S = 30.0
"""Generous: nothing here takes a second on an idle machine."""

NOBODY = "nobody" if os.geteuid() == 0 else None


class Host:
    """A directory with a CA, a host certificate and a configuration, and processes over it."""

    def __init__(self, directory: Path, nebula: Path) -> None:
        self.directory = directory
        self.nebula = nebula
        self.port = free_port()
        self.now = int(time.time())
        self.authority = keys.generate_ed25519()
        self.ca = certificate.self_sign(
            name="ca", key=self.authority, not_before=self.now - 3600, not_after=self.now + 86400
        )
        self.key = keys.generate_x25519()
        self.authorities = [self.ca]
        self.fingerprint = ""
        self.config: dict[str, Any] = {
            "pki": {
                **{name: str(directory / file) for name, file in FILES.items()},
                "disconnect_invalid": True,
            },
            "lighthouse": {"am_lighthouse": True, "interval": 10},
            "listen": {"host": "0.0.0.0", "port": self.port, "send_recv_error": "always"},
            "tun": {"disabled": True},
            "firewall": firewall("icmp"),
            "logging": {"level": "info", "format": "text"},
        }
        self.renew(86000)
        self.write("host.key", keys.pem_x25519_private(self.key.private).encode())

    def renew(self, lifetime_s: int) -> None:
        issued = certificate.sign(
            ca=self.ca,
            ca_private=self.authority.private,
            name="lighthouse",
            overlay=ipaddress.IPv4Interface("10.42.0.1/16"),
            subnets=(),
            groups=(),
            not_before=self.now - 60,
            not_after=self.now + lifetime_s,
            public_key=self.key.public,
        )
        self.fingerprint = issued.fingerprint
        self.write("host.crt", issued.pem().encode())
        self.write("ca.crt", "".join(each.pem() for each in self.authorities).encode())

    def write(self, name: str, content: bytes) -> None:
        path = self.directory / name
        path.write_bytes(content)
        path.chmod(0o644)

    def wanted(self, digest: str = "1", **sections: Any) -> Wanted:
        self.config = {**self.config, **sections}
        self.write("config.yml", dump(self.config))
        return Wanted(
            config=self.config,
            config_digest=digest,
            port=self.config["listen"]["port"],
            fingerprint=self.fingerprint,
        )

    def process(self, **changes: Any) -> Process:
        fields: dict[str, Any] = {
            "executable": self.nebula,
            "config_path": self.directory / "config.yml",
            "record_path": self.directory / "process.json",
            "log_path": self.directory / "nebula.log",
            "user": NOBODY,
            "spawner": SystemSpawner(),
            "clock": SystemClock(),
            "random": lambda: 0.5,
            "on_change": lambda status: None,
        }
        return Process(**(fields | changes))

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[Process]:
        process = self.process(**changes)
        with trio.fail_after(3 * LIMIT_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(process.run)
                yield process
                nursery.cancel_scope.cancel()

    @property
    def record(self) -> record.Record:
        known = record.load(self.directory / "process.json")
        assert known is not None
        return known


FILES = {"ca": "ca.crt", "cert": "host.crt", "key": "host.key"}


def firewall(proto: str) -> dict[str, Any]:
    return {
        "inbound": [{"port": "any", "proto": proto, "host": "any"}],
        "outbound": [{"port": "any", "proto": "any", "host": "any"}],
    }


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe_socket:
        probe_socket.bind(("0.0.0.0", 0))
        port: int = probe_socket.getsockname()[1]
        return port


@pytest.fixture
def directory() -> Iterator[Path]:
    # pytest's own is 0700, and nebula runs as somebody else.
    path = Path(tempfile.mkdtemp(prefix="edgegc-nebula-"))
    path.chmod(0o711)
    yield path
    for each in path.rglob("process.json"):
        known = record.load(each)
        child = SystemSpawner().adopt(known) if known is not None else None
        if child is not None:
            child.send_signal(signal.SIGKILL)
            trio.run(child.wait)
            child.release()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def host(directory: Path, nebula: Path) -> Host:
    return Host(directory, nebula)


def child(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(LIMIT_S):
        while not holds():
            await trio.sleep(0.02)


def pid_of(process: Process) -> int:
    pid = process.status.pid
    assert pid is not None
    return pid


async def test_it_starts_unprivileged_detached_and_bounded_and_answers_the_probe(host: Host) -> None:
    os.environ["EDGEGC_TEST_SECRET"] = "hidden"
    try:
        async with host.running() as process:
            applied = await process.apply(host.wanted())
            assert applied.action == "start"
            pid = pid_of(process)
            assert await probe(host.port)
            assert process.status.nebula_version == await nebula_version(host.nebula)
            assert process.status.port == host.port
            assert os.getsid(pid) == pid
            proc = Path(f"/proc/{pid}")
            assert b"hidden" not in (proc / "environ").read_bytes()
            limits = (proc / "limits").read_text()
            assert f"{spawn.FILES_LIMIT} " in next(li for li in limits.splitlines() if "open files" in li)
            assert (proc / "cmdline").read_bytes().split(b"\0")[0] == str(host.nebula).encode()
            assert len(list((proc / "fd").iterdir())) < 20
            if NOBODY is not None:
                assert "Uid:\t65534\t65534\t65534\t65534" in (proc / "status").read_text()
                assert "CapEff:\t0000000000000000" in (proc / "status").read_text()
                assert "Groups:\t \n" in (proc / "status").read_text()
            await process.stop()
            assert not await probe(host.port, timeout_s=0.1)
            assert not (host.directory / "process.json").exists()
    finally:
        del os.environ["EDGEGC_TEST_SECRET"]


async def test_a_firewall_change_is_reloaded_with_the_certificates_fingerprint_as_proof(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
        applied = await process.apply(host.wanted("2", firewall=firewall("tcp")))
        assert (applied.action, applied.pid) == ("hup", pid)
        assert host.fingerprint in (host.directory / "nebula.log").read_text()
        assert process.status.config_digest == "2"


async def test_another_certificate_than_the_expected_one_is_not_applied(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        wanted = host.wanted("2", firewall=firewall("tcp"))
        with pytest.raises(ApplyFailed, match="certificate on disk"):
            await process.apply(msgspec.structs.replace(wanted, fingerprint="00" * 32))
        assert process.status.config_digest == "1"


async def test_a_renewed_certificate_is_loaded_by_the_cheapest_way_this_version_knows(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
        host.renew(80000)
        applied = await process.apply(host.wanted("2"))
        by_hup = await nebula_version(host.nebula) >= (1, 7, 0)
        assert applied.action == ("hup" if by_hup else "restart")
        assert (pid_of(process) == pid) is by_hup
        assert host.record.loaded is not None
        assert host.record.loaded.fingerprint == host.fingerprint


async def test_a_ca_is_added_by_hup(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        other = keys.generate_ed25519()
        host.authorities.append(
            certificate.self_sign(
                name="next", key=other, not_before=host.now - 3600, not_after=host.now + 86400
            )
        )
        host.write("ca.crt", "".join(each.pem() for each in host.authorities).encode())
        assert (await process.apply(host.wanted("2"))).action == "hup"


async def test_what_it_cannot_reload_restarts_it_with_sigterm(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
        host.port = free_port()
        listen = {**host.config["listen"], "port": host.port}
        applied = await process.apply(host.wanted("2", listen=listen))
        assert applied.action == "restart"
        assert pid_of(process) != pid
        assert "Goodbye" in (host.directory / "nebula.log").read_text()
        assert await probe(host.port)


async def test_a_refused_reload_is_told_in_nebulas_own_words_and_can_be_taken_back(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
        with pytest.raises(ApplyFailed, match="nonsense"):
            await process.apply(host.wanted("2", firewall=firewall("nonsense")))
        assert pid_of(process) == pid
        assert await probe(host.port)
        assert (await process.apply(host.wanted("1", firewall=firewall("icmp")))).action == "restart"


async def test_killed_it_comes_back_by_itself(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: process.status.pid not in (pid, None) and process.status.state is State.RUNNING)
        assert await probe(host.port)
        assert "SIGKILL" in (process.status.last_error or "")
        assert process.status.config_digest == "1"


async def test_a_stopped_process_that_ignores_sigterm_is_killed_in_the_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "TERM_LIMIT_S", 0.3)
    async with host.running() as process:
        await process.apply(host.wanted())
        os.kill(pid_of(process), signal.SIGSTOP)
        with trio.fail_after(LIMIT_S):
            while await probe(host.port, timeout_s=0.1):
                pass
        await process.stop()
        assert process.status.state is State.STOPPED


SUPERVISE = """
import json, sys
from pathlib import Path
import msgspec, trio
from edgegc.clock import SystemClock
from edgegc.nebula.process import Process, SystemSpawner, Wanted

directory, nebula, user = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None
wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Wanted)

async def main():
    process = Process(
        executable=nebula, config_path=directory / "config.yml", record_path=directory / "process.json",
        log_path=directory / "nebula.log", user=user, spawner=SystemSpawner(), clock=SystemClock(),
        random=lambda: 0.5, on_change=lambda status: None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(process.run)
        applied = await process.apply(wanted)
        print(json.dumps([applied.action, applied.pid]), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def supervise(host: Host, wanted: Wanted) -> tuple[subprocess.Popen[bytes], str, int]:
    """Run a Process in a process of its own until it has applied; return that, what it did, and nebula's pid."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(host.directory), str(host.nebula), NOBODY or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    daemon.stdin.write(msgspec.json.encode(wanted))
    daemon.stdin.close()
    action, pid = json.loads(daemon.stdout.readline())
    daemon.stdout.close()
    return daemon, action, pid


async def test_killed_supervisors_leave_it_running_and_the_next_ones_adopt_the_same_process(
    host: Host,
) -> None:
    wanted = host.wanted()
    daemon, action, pid = await trio.to_thread.run_sync(supervise, host, wanted)
    assert action == "start"
    for _ in range(2):
        daemon.kill()
        daemon.wait()
        assert await probe(host.port)
        daemon, action, adopted = await trio.to_thread.run_sync(supervise, host, wanted)
        assert (action, adopted) == ("none", pid)
    daemon.kill()
    daemon.wait()
    async with host.running() as process:
        assert (process.status.pid, process.status.adopted) == (pid, True)
        # It is nobody's child of ours: reloads, crashes and SIGTERM work all the same.
        assert (await process.apply(host.wanted("2", firewall=firewall("tcp")))).action == "hup"
        os.kill(pid, signal.SIGKILL)
        await until(lambda: process.status.pid not in (pid, None) and process.status.state is State.RUNNING)
        assert not process.status.adopted
        await process.stop()


RESTLESS = SUPERVISE.replace(
    "        await trio.sleep_forever()",
    """
        number = 0
        while True:
            number += 1
            config = dict(wanted.config)
            config["punchy"] = {"delay": f"{number}s", "punch": number % 4 == 0}
            (directory / "config.yml").write_bytes(dump(config))
            await process.apply(msgspec.structs.replace(wanted, config=config, config_digest=str(number)))
""",
).replace("import msgspec, trio\n", "import msgspec, trio\nfrom edgegc.nebula.config import dump\n")


def processes_of(host: Host) -> list[int]:
    config_path = str(host.directory / "config.yml").encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes().endswith(config_path + b"\0"):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("rounds", [8, pytest.param(60, marks=pytest.mark.long)])
async def test_however_often_we_are_killed_there_is_one_nebula_and_the_next_of_us_holds_it(
    host: Host, rounds: int
) -> None:
    """Reloads, restarts and starts are cut off at any moment: before a spawn, before its record, between HUP and proof."""
    chance = random.Random(host.port)
    wanted = host.wanted()

    def unseen() -> list[str]:
        log = host.directory / "nebula.log"
        text = log.read_text() if log.exists() else ""
        return [what for what in ("Caught HUP", "Goodbye") if what not in text]

    lives = 0
    while lives < rounds or unseen():
        lives += 1
        # On a machine that is busy all of them may be too short for a reload.
        assert lives <= 10 * rounds, unseen()
        daemon = await trio.to_thread.run_sync(
            lambda: subprocess.Popen(
                [sys.executable, "-c", RESTLESS, str(host.directory), str(host.nebula), NOBODY or ""],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        assert daemon.stdin is not None
        assert daemon.stdout is not None
        daemon.stdin.write(msgspec.json.encode(wanted))
        daemon.stdin.close()
        if chance.random() < 0.8:
            await trio.to_thread.run_sync(daemon.stdout.readline)
        await trio.sleep(chance.random() * 0.8)
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
        assert len(processes_of(host)) <= 1
    alive = processes_of(host)
    async with host.running() as process:
        assert [process.status.pid] == (alive or [None])
        await process.apply(host.wanted())
        assert processes_of(host) == [process.status.pid]
        assert await probe(host.port)
        await process.stop()
    assert processes_of(host) == []


async def test_one_spawned_just_before_we_died_unrecorded_is_found(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
    known = host.record
    record.save(
        host.directory / "process.json",
        msgspec.structs.replace(known, pid=None, start_ticks=None, ready=False, nebula_version=None),
    )
    async with host.running() as process:
        assert process.status.pid == pid
        assert (await process.apply(host.wanted())).action == "none"
        assert host.record.pid == pid
        await process.stop()


async def test_a_successor_spawned_just_before_we_died_unrecorded_is_found_and_replaced(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
    known = host.record
    gone = child("true")
    gone.wait()
    record.save(host.directory / "process.json", msgspec.structs.replace(known, pid=gone.pid, start_ticks=1))
    async with host.running() as process:
        assert process.status.pid == pid
        assert host.record.pid == pid
        assert (await process.apply(host.wanted())).action == "restart", "what it loaded was not written down"
        await process.stop()


@pytest.mark.parametrize(
    "change",
    [{"start_ticks": 1}, {"boot_id": "another"}, {"config_path": "/somewhere/else.yml"}],
    ids=["start ticks", "boot", "command line"],
)
async def test_a_process_that_only_has_the_pid_of_a_record_is_neither_adopted_nor_signalled(
    host: Host, change: dict[str, Any]
) -> None:
    host.wanted()
    config_path = str(host.directory / "config.yml")
    # Its command line names our configuration, so each difference counts by itself.
    bystander = child("sleep", "60") if "config_path" in change else child("tail", "-f", config_path)
    try:
        seen = record.stat(bystander.pid)
        assert seen is not None
        await until(lambda: Path(f"/proc/{bystander.pid}/cmdline").read_bytes()[:4] in (b"slee", b"tail"))
        known = record.Record(
            boot_id=record.boot_id(),
            executable=str(host.nebula),
            config_path=config_path,
            log_offset=0,
            spawned_at=host.now,
            restarts=0,
            loaded=None,
            pid=bystander.pid,
            start_ticks=seen.start_ticks,
            ready=True,
        )
        if "config_path" not in change:
            adopted = SystemSpawner().adopt(known)
            assert adopted is not None, "the unchanged record does name it"
            adopted.release()
        record.save(host.directory / "process.json", msgspec.structs.replace(known, **change))
        async with host.running() as process:
            assert process.status.state is State.STOPPED
            await process.apply(host.wanted())
            await process.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_a_zombie_counts_as_dead(host: Host) -> None:
    host.wanted()
    zombie = child("sh", "-c", "exit 0", "-config", str(host.directory / "config.yml"))
    await until(lambda: (seen := record.stat(zombie.pid)) is not None and seen.state == "Z")
    seen = record.stat(zombie.pid)
    assert seen is not None
    known = record.Record(
        boot_id=record.boot_id(),
        executable="sh",
        config_path=str(host.directory / "config.yml"),
        log_offset=0,
        spawned_at=host.now,
        restarts=0,
        loaded=None,
        pid=zombie.pid,
        start_ticks=seen.start_ticks,
    )
    assert SystemSpawner().adopt(known) is None
    zombie.wait()


async def test_without_pidfd_it_is_watched_and_signalled_through_proc(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    monkeypatch.setattr(spawn, "PROC_POLL_S", 0.05)
    async with host.running() as process:
        await process.apply(host.wanted())
    async with host.running() as process:
        assert process.status.adopted
        os.kill(pid_of(process), signal.SIGKILL)
        await until(lambda: process.status.state is State.RUNNING and not process.status.adopted)
        await process.stop()
        assert process.status.state is State.STOPPED


async def test_a_port_that_somebody_else_has_is_a_sentence_that_names_them(host: Host) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        # Even where the kernel would let both bind.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("0.0.0.0", host.port))
        async with host.running() as process:
            with pytest.raises(
                ApplyFailed, match=rf"UDP port {host.port} is in use by \S+ \(pid {os.getpid()}\)"
            ):
                await process.apply(host.wanted())
            other.close()
            await process.apply(host.wanted())
            await process.stop()


def test_a_port_on_an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(ApplyFailed, match="not an address of this machine"):
        ports.check_free("203.0.113.77", 4242)


def script(directory: Path, text: str) -> Path:
    path = directory / "nebula"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_a_nebula_that_is_missing_too_old_or_something_else_is_a_sentence_with_the_remedy(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NebulaUnusable, match=r"no nebula at .*nebula\.path"):
        find_nebula(directory / "nebula")
    (directory / "plain").write_text("")
    with pytest.raises(NebulaUnusable, match="not executable"):
        find_nebula(directory / "plain")
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr("edgegc.nebula.executable.USUAL_PLACES", ())
    with pytest.raises(NebulaUnusable, match="apt install nebula"):
        find_nebula()
    old = script(directory, "echo Version: 1.5.2")
    assert find_nebula() == old
    with pytest.raises(NebulaUnusable, match=r"nebula 1\.5\.2 .* too old: at least 1\.6\.0"):
        await nebula_version(old)
    with pytest.raises(NebulaUnusable, match="does not answer like nebula"):
        await nebula_version(script(directory, "exit 3"))
    old.write_bytes(b"\x7fELF")
    with pytest.raises(NebulaUnusable, match="can't be run"):
        await nebula_version(old)


async def test_nebula_judges_a_configuration_in_its_own_words(host: Host) -> None:
    host.wanted()
    config = host.directory / "config.yml"
    await check_config(host.nebula, config, user=NOBODY)
    host.wanted(firewall=firewall("nonsense"))
    with pytest.raises(ApplyFailed, match="nonsense"):
        await check_config(host.nebula, config, user=NOBODY)
    host.write("config.yml", b"a: [")
    with pytest.raises(ApplyFailed, match="yaml"):
        await check_config(host.nebula, config, user=NOBODY)


@pytest.mark.skipif(NOBODY is None, reason="needs root, to be somebody else")
async def test_nebula_judges_with_the_eyes_of_its_user(host: Host) -> None:
    host.wanted()
    (host.directory / "host.key").chmod(0o600)
    with pytest.raises(ApplyFailed, match="permission denied"):
        await check_config(host.nebula, host.directory / "config.yml", user=NOBODY)
    with pytest.raises(NebulaUnusable, match="does not exist"):
        await check_config(host.nebula, host.directory / "config.yml", user="no-such-user")


async def test_rotating_its_log_neither_ends_nor_silences_it(host: Host) -> None:
    async with host.running() as process:
        await process.apply(host.wanted())
        pid = pid_of(process)
        log = LogFile(host.directory / "nebula.log", limit_bytes=100)
        assert log.rotate()
        assert log.size() == 0
        applied = await process.apply(host.wanted("2", firewall=firewall("tcp")))
        assert (applied.action, applied.pid) == ("hup", pid)
        # At the new beginning: a writer without O_APPEND would leave a hole of zeros.
        assert (host.directory / "nebula.log").read_bytes()[:1] != b"\0"
        assert "Nebula interface is active" in (host.directory / "nebula.log.1").read_text()


@pytest.fixture
def full_disk(directory: Path) -> Iterator[Path]:
    mounted = directory / "full"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=0755", "tmpfs", str(mounted)], check=True)
    with suppress(OSError), (mounted / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


@pytest.mark.skipif(NOBODY is None, reason="needs root, to mount a small disk")
@pytest.mark.parametrize("port", ["fixed", "any"])
async def test_a_full_disk_stops_neither_starts_nor_changes(
    host: Host, full_disk: Path, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    """Neither nebula's log nor our record can be written; what is left as proof is the answer over UDP."""
    monkeypatch.setattr(life, "SILENT_S", 0.2)
    monkeypatch.setattr(process_module, "RELOAD_LIMIT_S", 0.5)
    sections: dict[str, Any] = {}
    if port == "any":
        sections = {
            "listen": {**host.config["listen"], "port": 0},
            "lighthouse": {"am_lighthouse": False},
        }
    async with host.running(
        record_path=full_disk / "process.json", log_path=full_disk / "nebula.log"
    ) as process:
        await process.apply(host.wanted(**sections))
        assert (full_disk / "nebula.log").read_bytes() == b""
        await process.apply(host.wanted("2", firewall=firewall("tcp")))
        assert process.status.config_digest == "2"
        os.kill(pid_of(process), signal.SIGKILL)
        await until(lambda: process.status.state is State.BACKOFF)
        await until(lambda: process.status.state is State.RUNNING)
        await process.stop()


@pytest.mark.parametrize("style", ["text", "json"])
async def test_the_ready_line_is_understood_in_every_style(host: Host, style: str) -> None:
    async with host.running() as process:
        await process.apply(host.wanted(logging={"level": "info", "format": style}))
        assert process.status.port == host.port
        assert process.status.nebula_version == await nebula_version(host.nebula)
        line = logfile.ready_line(LogFile(host.directory / "nebula.log").lines_since(0))
        assert line is not None
        assert logfile.sentence(line) == "Nebula interface is active"
        with pytest.raises(ApplyFailed, match="nonsense"):
            await process.apply(host.wanted("2", firewall=firewall("nonsense")))
        await process.stop()


async def test_the_true_port_is_known_where_the_configuration_says_any(host: Host) -> None:
    listen = {**host.config["listen"], "port": 0}
    async with host.running() as process:
        await process.apply(host.wanted(listen=listen, lighthouse={"am_lighthouse": False}))
        port = process.status.port
        assert port
        assert await probe(port)
        await process.stop()


async def test_the_probe_takes_nobody_else_for_nebula() -> None:
    assert not await probe(free_port(), timeout_s=0.1)
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other:
        await other.bind(("127.0.0.1", 0))

        async def echo() -> None:
            while True:
                content, sender = await other.recvfrom(64)
                with suppress(OSError):
                    await other.sendto(content, sender)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            assert not await probe(other.getsockname()[1], timeout_s=0.2)
            nursery.cancel_scope.cancel()
