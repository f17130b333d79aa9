"""The daemon as a process: how it starts, how it refuses to start, how it ends, what survives."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from cryptography import x509

from edgegc.api import tls
from edgegc.client import Client, PinMismatch
from edgegc.model import message
from tests.box import public_key
from tests.raw_http import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LIMIT_S = 20.0
ROOT = Path(__file__).parents[2]


class Daemon:
    """``edgegc serve`` as a child process on a data directory."""

    def __init__(self, data: Path, *flags: str, environ: dict[str, str] | None = None) -> None:
        self.data = data
        self.log = data.parent / f"daemon-{len(list(data.parent.glob('daemon-*.log')))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgegc", "serve", "--data-dir", str(data), *flags],
                env={**os.environ, "PYTHONPATH": str(ROOT), "EDGEGC_LOG_FORMAT": "json", **(environ or {})},
                cwd=data.parent,
                stderr=log,
                stdout=log,
            )

    def text(self) -> str:
        return self.log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    async def up(self) -> Daemon:
        with trio.fail_after(LIMIT_S):
            while "edgegc is up" not in self.text():
                assert self.process.poll() is None, self.text()
                await trio.sleep(0.02)
        return self

    @property
    def port(self) -> int:
        found = re.findall(r"edgegc is up: https?://[0-9.]+:(\d+)", self.text())
        return int(found[-1])

    async def ended(self) -> int:
        with trio.fail_after(LIMIT_S):
            while (code := self.process.poll()) is None:
                await trio.sleep(0.02)
        return code

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.ended()

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        client = await RawClient.unix(self.data / "admin.sock")
        reply = await client.request(method, path, body=body)
        assert reply.status < 300, reply.body
        await client.aclose()
        return reply.json


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that the lighthouses' user can pass through, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="edgegc-daemon-") as made:
        path = Path(made)
        path.chmod(0o711)
        yield path


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Any]:
    daemons: list[Daemon] = []

    def start(*flags: str, data: Path | None = None, environ: dict[str, str] | None = None) -> Daemon:
        flags = flags or ("--listen", "127.0.0.1:0")
        made = Daemon(data or tmp_path / "data", *flags, environ=environ)
        daemons.append(made)
        return made

    yield start
    await RawClient.close_all()
    for made in daemons:
        made.process.kill()
        made.process.wait()


async def test_a_first_start_makes_the_data_directory_with_secrets_closed_to_others(start: Any) -> None:
    daemon = await start().up()
    modes = {path.name: path.stat().st_mode & 0o777 for path in daemon.data.iterdir()}
    assert daemon.data.stat().st_mode & 0o777 == 0o711
    for name in ("edgegc.db", "master.key", "admin.sock"):
        assert modes[name] == 0o600
    assert all(mode & 0o077 == 0 for name, mode in modes.items() if name != "lighthouses"), modes
    assert await daemon.end() == 0
    assert not (daemon.data / "admin.sock").exists()


async def test_what_was_answered_survives_kill_9_and_a_stale_socket_is_no_obstacle(start: Any) -> None:
    daemon = await start().up()
    tenant = await daemon.admin("POST", "/api/v1/tenants", {"name": "acme"})
    assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
    assert (daemon.data / "admin.sock").exists()
    again = await start().up()
    assert (await again.admin("GET", "/api/v1/tenants"))["tenants"] == [tenant]
    assert await again.end() == 0


async def test_a_second_daemon_on_the_same_data_directory_is_refused(start: Any) -> None:
    await (await start().up()).admin("GET", "/api/v1/tenants")
    second = start()
    assert await second.ended() != 0
    assert "Traceback" not in second.text()
    assert "another" in second.text()


async def test_a_port_that_is_taken_is_one_clear_line_and_an_exit(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = start("--listen", f"127.0.0.1:{port}")
        assert await daemon.ended() != 0
    assert f"127.0.0.1:{port} is taken" in daemon.text()
    assert "Traceback" not in daemon.text()
    assert len(daemon.text().splitlines()) == 1


async def test_clear_text_for_the_network_is_refused_with_the_remedy(start: Any) -> None:
    daemon = start("--listen", "0.0.0.0:0")
    assert await daemon.ended() != 0
    assert "--insecure-http" in daemon.text()
    assert "Traceback" not in daemon.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order_with_exit_code_0(start: Any, number: signal.Signals) -> None:
    daemon = await start().up()
    assert await daemon.end(number) == 0
    assert "edgegc has ended" in daemon.text()
    assert "Traceback" not in daemon.text()
    said = "ended" if number == signal.SIGINT else "left running"
    assert f"lighthouses were {said}" in daemon.text()


async def test_a_second_signal_ends_it_at_once(start: Any) -> None:
    daemon = await start("--listen", "127.0.0.1:0", environ={"EDGEGC_API_GRACEFUL_TIMEOUT_S": "60"}).up()
    client = await RawClient.unix(daemon.data / "admin.sock")
    # A request whose body does not come is under way for longer than this test takes.
    await client.send(
        b"POST /api/v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Type: application/json\r\n\r\n"
    )
    await daemon.admin("GET", "/health/live")
    daemon.process.send_signal(signal.SIGTERM)
    with trio.fail_after(LIMIT_S):
        while "ending; a second one" not in daemon.text():
            await trio.sleep(0.02)
    started = time.monotonic()
    assert await daemon.end() == 0
    assert time.monotonic() - started < 5
    assert "ending at once" in daemon.text()


async def test_the_service_manager_is_told_ready_alive_and_stopping(start: Any, tmp_path: Path) -> None:
    with listening(tmp_path / "notify") as manager:
        daemon = start(
            "--listen",
            "127.0.0.1:0",
            environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"},
        )
        await daemon.up()
        states: list[str] = []
        with trio.fail_after(LIMIT_S):
            while states.count("WATCHDOG=1") < 3:
                states.extend(await received(manager))
        assert "READY=1" in states
        assert await daemon.end() == 0
        states.extend(await received(manager))
        assert "STOPPING=1" in states


async def test_sighup_takes_over_what_it_can_and_names_what_needs_a_restart(
    start: Any, tmp_path: Path
) -> None:
    config = tmp_path / "edgegc.toml"
    config.write_text('[log]\nlevel = "info"\n[api]\nlisten = ["127.0.0.1:0"]\n')
    daemon = await start("--config", str(config)).up()
    config.write_text('[log]\nlevel = "debug"\n[api]\nlisten = ["127.0.0.1:1"]\n')
    daemon.process.send_signal(signal.SIGHUP)
    with trio.fail_after(LIMIT_S):
        while "need a restart: api" not in daemon.text():
            await trio.sleep(0.02)
    config.write_text("[log]\nlevle = 1\n")
    daemon.process.send_signal(signal.SIGHUP)
    with trio.fail_after(LIMIT_S):
        while "were not taken over" not in daemon.text():
            await trio.sleep(0.02)
    await daemon.admin("GET", "/api/v1/tenants")
    assert await daemon.end() == 0


async def test_self_signed_tls_keeps_its_pin_over_a_restart_and_tells_it_to_nodes(start: Any) -> None:
    environ = {"EDGEGC_TLS_MODE": "self-signed"}
    servers = []
    for _ in range(2):
        daemon = await start("--listen", "127.0.0.1:0", environ=environ).up()
        if not servers:
            tenant = await daemon.admin("POST", "/api/v1/tenants", {"name": "acme"})
            body = {"tenant_id": tenant["id"], "name": "home", "network_cidr": "10.42.0.0/16"}
            cluster = await daemon.admin("POST", "/api/v1/clusters", body)
        key = await daemon.admin("POST", f"/api/v1/enrollment-keys?cluster_id={cluster['id']}", {})
        pin = pin_of(daemon.data / "tls" / "certificate.pem")
        async with Client(f"https://127.0.0.1:{daemon.port}", token=key["key"], pin=pin) as client:
            enroll = message.Enroll(name=f"pi-{len(servers)}", public_key=public_key())
            node = await client.request("POST", "/api/v1/enroll", body=enroll)
        servers.append(json.loads(node.body)["servers"][0])
        assert await daemon.end() == 0
    assert {server["pin"] for server in servers} == {pin}
    assert servers[0]["url"].startswith("https://127.0.0.1:")


async def answers(daemon: Any, pin: str) -> bool:
    async with Client(f"https://127.0.0.1:{daemon.port}", pin=pin) as client:
        try:
            return (await client.request("GET", "/health/live")).status == 200
        except PinMismatch:
            return False


async def comes_to_answer(daemon: Any, pin: str) -> None:
    with trio.fail_after(LIMIT_S):
        while not await answers(daemon, pin):
            await trio.sleep(0.05)


async def test_sighup_reads_the_tls_files_again(start: Any, tmp_path: Path) -> None:
    files = tls.self_signed(tmp_path / "files", names=(), now=int(time.time()))
    other = tls.self_signed(tmp_path / "other", names=(), now=int(time.time()))
    environ = {
        "EDGEGC_TLS_MODE": "files",
        "EDGEGC_TLS_CERTIFICATE": str(files.certificate),
        "EDGEGC_TLS_KEY": str(files.key),
    }
    daemon = await start("--listen", "127.0.0.1:0", environ=environ).up()
    assert await answers(daemon, files.pin)
    other.key.replace(files.key)
    other.certificate.replace(files.certificate)
    daemon.process.send_signal(signal.SIGHUP)
    await comes_to_answer(daemon, other.pin)
    assert not await answers(daemon, files.pin)
    assert await daemon.end() == 0


async def test_sighup_takes_over_other_tls_files_and_follows_them_from_then_on(
    start: Any, tmp_path: Path
) -> None:
    first, second, third = (
        tls.self_signed(tmp_path / name, names=(), now=int(time.time())) for name in ("1", "2", "3")
    )
    config = tmp_path / "edgegc.toml"

    def name_files(certificate: Path, key: Path) -> None:
        files = f'mode = "files"\ncertificate = "{certificate}"\nkey = "{key}"\n'
        config.write_text(f'[api]\nlisten = ["127.0.0.1:0"]\n[tls]\n{files}')

    name_files(first.certificate, first.key)
    daemon = await start("--config", str(config)).up()
    assert await answers(daemon, first.pin)
    name_files(second.certificate, second.key)
    daemon.process.send_signal(signal.SIGHUP)
    await comes_to_answer(daemon, second.pin)
    assert "need a restart" not in daemon.text()
    # Neither a missing file nor half of a pair takes away what works.
    for certificate, key in ((tmp_path / "none", second.key), (second.certificate, first.key)):
        refused = daemon.text().count("were not taken over")
        name_files(certificate, key)
        daemon.process.send_signal(signal.SIGHUP)
        with trio.fail_after(LIMIT_S):
            while daemon.text().count("were not taken over") == refused:
                await trio.sleep(0.02)
        assert await answers(daemon, second.pin)
    third.key.replace(second.key)
    third.certificate.replace(second.certificate)
    await comes_to_answer(daemon, third.pin)
    assert await daemon.end() == 0


async def test_sighup_leaves_the_certificate_alone_whose_pin_agents_were_told(
    start: Any, tmp_path: Path
) -> None:
    files = tls.self_signed(tmp_path / "files", names=(), now=int(time.time()))
    config = tmp_path / "edgegc.toml"
    config.write_text('[api]\nlisten = ["127.0.0.1:0"]\n[tls]\nmode = "self-signed"\n')
    daemon = await start("--config", str(config)).up()
    pin = pin_of(daemon.data / "tls" / "certificate.pem")
    named = f'mode = "files"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'
    config.write_text(f'[api]\nlisten = ["127.0.0.1:0"]\n[tls]\n{named}')
    daemon.process.send_signal(signal.SIGHUP)
    with trio.fail_after(LIMIT_S):
        while "need a restart: tls" not in daemon.text():
            await trio.sleep(0.02)
    assert await answers(daemon, pin)
    assert await daemon.end() == 0


async def test_an_essential_task_that_crashes_ends_the_daemon_with_one_line_and_exit_1(
    start: Any, tmp_path: Path
) -> None:
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(
        "import edgegc.api.server as server\n"
        "async def crash(self, *args):\n"
        "    raise RuntimeError('sabotaged')\n"
        "server.Server._accept = crash\n"
    )
    daemon = start(environ={"PYTHONPATH": f"{tmp_path / 'sabotage'}:{ROOT}"})
    assert await daemon.ended() == 1
    critical = [line for line in daemon.lines() if line["level"] == "critical"]
    assert len(critical) == 1
    assert "'api' crashed" in critical[0]["message"]
    assert "sabotaged" in critical[0]["error"]


async def test_an_optional_task_that_crashes_shows_as_degraded_and_the_api_works(
    start: Any, tmp_path: Path
) -> None:
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(
        "import edgegc.control.housekeeping as housekeeping\n"
        "async def crash(*args, **more):\n"
        "    raise RuntimeError('sabotaged')\n"
        "housekeeping.run = crash\n"
    )
    daemon = await start(environ={"PYTHONPATH": f"{tmp_path / 'sabotage'}:{ROOT}"}).up()
    ready = await daemon.admin("GET", "/health/ready")
    assert ready["status"] == "degraded"
    assert "sabotaged" in ready["checks"]["housekeeping"]
    await daemon.admin("POST", "/api/v1/tenants", {"name": "acme"})
    assert await daemon.end() == 0


async def test_the_idle_daemon_fits_its_budget(start: Any) -> None:
    daemon = await start().up()
    await daemon.admin("GET", "/health/ready")
    rollup = await trio.Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text()
    private_kib = sum(
        int(value) for value in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", rollup, re.M)
    )
    assert private_kib < 64 * 1024, f"{private_kib} KiB"
    assert await daemon.end() == 0


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        yield manager


async def received(manager: socket.socket) -> list[str]:
    await trio.sleep(0.05)
    states: list[str] = []
    while True:
        try:
            states.extend(manager.recv(4096).decode().split("\n"))
        except BlockingIOError:
            return states


def pin_of(path: Path) -> str:
    return tls.pin_of(x509.load_pem_x509_certificate(path.read_bytes()))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody reaps does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


async def lighthouse_pid(daemon: Daemon) -> int:
    """Wait until the only lighthouse runs, and return its process."""
    with trio.fail_after(LIMIT_S):
        while True:
            (shown,) = (await daemon.admin("GET", "/api/v1/lighthouses"))["lighthouses"] or [{"state": None}]
            if shown["state"] == "running":
                return int(shown["pid"])
            await trio.sleep(0.05)


async def with_lighthouse(daemon: Daemon) -> None:
    tenant = await daemon.admin("POST", "/api/v1/tenants", {"name": "acme"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    body = {
        "tenant_id": tenant["id"],
        "name": "home",
        "network_cidr": "10.42.0.0/16",
        "provide_lighthouse": True,
        "lighthouse_port": port,
        "lighthouse_public_addresses": [f"127.0.0.1:{port}"],
    }
    await daemon.admin("POST", "/api/v1/clusters", body)


async def test_lighthouses_outlive_sigterm_and_kill_9_and_end_with_sigint(start: Any, nebula: Path) -> None:
    flags = ("--listen", "127.0.0.1:0", "--nebula", str(nebula))
    daemon = await start(*flags).up()
    await with_lighthouse(daemon)
    pid = await lighthouse_pid(daemon)
    try:
        assert await daemon.end(signal.SIGTERM) == 0
        assert is_alive(pid)
        daemon = await start(*flags).up()
        assert await lighthouse_pid(daemon) == pid, "adopted"
        await daemon.end(signal.SIGKILL)
        assert is_alive(pid)
        daemon = await start(*flags).up()
        assert await lighthouse_pid(daemon) == pid, "adopted"
        assert await daemon.end(signal.SIGINT) == 0
        assert not is_alive(pid)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


async def test_lighthouses_end_with_sigterm_where_the_settings_say_so(start: Any, nebula: Path) -> None:
    flags = ("--listen", "127.0.0.1:0", "--nebula", str(nebula))
    daemon = await start(*flags, environ={"EDGEGC_LIGHTHOUSE_ON_EXIT": "stop"}).up()
    await with_lighthouse(daemon)
    pid = await lighthouse_pid(daemon)
    try:
        assert await daemon.end(signal.SIGTERM) == 0
        assert not is_alive(pid)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


async def test_without_nebula_the_api_works_and_health_says_the_remedy(start: Any, tmp_path: Path) -> None:
    missing = tmp_path / "no-nebula"
    daemon = await start("--listen", "127.0.0.1:0", "--nebula", str(missing)).up()
    await with_lighthouse(daemon)
    with trio.fail_after(LIMIT_S):
        while True:
            health = await daemon.admin("GET", "/health/ready")
            if health["checks"]["lighthouses"] != "ok":
                break
            await trio.sleep(0.05)
    assert health["status"] == "degraded"
    assert str(missing) in health["checks"]["lighthouses"]
    assert await daemon.end() == 0
