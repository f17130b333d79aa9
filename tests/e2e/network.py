"""A small network of namespaces on one machine: hosts on a switch, children in them, pings between them.

Nothing is made in the machine's own namespace: the switch has one too, so that tests can run side by side with the
same addresses, and whatever is left over goes away with the namespaces. Those carry the process id of the test run
that made them; :func:`sweep` removes those of runs that are gone.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")

PREFIX = "edgegc"
POLL_S = 0.05
COMMAND_LIMIT_S = 60.0
"""For anything that answers at once on a machine that is not stuck."""
LOG_TAIL_LINES = 80
AHEAD = ("nice", "-n", "-10")
"""True machines have cores of their own: here the network comes before the commands that ask it, and before other tests."""

_numbers = itertools.count(1)


class Child:
    """A process that was started in a host, its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: Signals = SIGTERM, *, within_s: float = COMMAND_LIMIT_S) -> int:
        """Send a signal to this process only, wait for its end, return its exit status."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        return self._process.wait(within_s)

    def signal(self, number: Signals) -> None:
        """Send a signal to this process only."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """As a crash would: no warning, and nobody else is told."""
        self.stop(SIGKILL)


class Pings(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a series of pings. ``longest_gap_s`` is the longest time between two answers."""

    sent: int
    lost: int
    longest_gap_s: float


class Pinger:
    """Pings at an even pace, until it is asked how it went."""

    _ANSWER = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from .* icmp_seq=(\d+) ", re.MULTILINE)
    _SUMMARY = re.compile(r"^(\d+) packets transmitted", re.MULTILINE)

    def __init__(self, child: Child) -> None:
        self._child = child

    def answers(self) -> int:
        return len(self._ANSWER.findall(self._child.output()))

    def stop(self) -> Pings:
        """End it and count. The last ping may be on its way still: it is not counted."""
        self._child.stop(SIGINT)
        text = self._child.output()
        summary = self._SUMMARY.search(text)
        assert summary is not None, text
        found = {int(number): float(at) for at, number in self._ANSWER.findall(text)}
        counted = range(1, int(summary[1]))
        times = sorted(found.values())
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return Pings(
            sent=len(counted),
            lost=sum(number not in found for number in counted),
            longest_gap_s=max(gaps, default=float("inf")),
        )


class Host:
    """One machine: a network namespace with an address on the switch, and a directory of its own."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.namespace = network.namespace(name)
        self.directory = network.directory / name
        self.directory.mkdir(mode=0o711)
        self._numbers = itertools.count(1)

    def start(self, *command: object, name: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start a command here, in a session of its own, without waiting for anything."""
        log = self.directory / f"{name}.{next(self._numbers)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._enter((*AHEAD, *command)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env={**self.network.environment, **(environment or {})},
                start_new_session=True,
            )
        return self.network.owned(Child(process, log))

    def run(
        self, *command: object, check: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end; a failure says what it printed."""
        done = subprocess.run(
            self._enter(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            env={**self.network.environment, **(environment or {})},
            timeout=COMMAND_LIMIT_S,
        )
        assert not check or done.returncode == 0, (
            f"{self.name}: {' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def ping(self, address: str, *, wait_s: int = 1) -> bool:
        """Send one ping; tell whether it was answered."""
        return self.run("ping", "-n", "-c", "1", "-W", wait_s, address, check=False).returncode == 0

    def pinger(self, address: str, *, every_s: float = 0.1) -> Pinger:
        """Start pinging, and return once it is being answered."""
        pinger = Pinger(self.start("ping", "-n", "-D", "-O", "-i", every_s, address, name="ping"))
        wait_until(
            lambda: pinger.answers() >= 3, within_s=20, what=f"{self.name} gets answers from {address}"
        )
        return pinger

    def routes(self) -> dict[str, dict[str, Any]]:
        """Return the kernel's IPv4 routes by destination."""
        listed = json.loads(self.run("ip", "-json", "-4", "route", "show").stdout or "[]")
        return {route["dst"]: route for route in listed}

    def link(self, device: str) -> dict[str, Any] | None:
        """Return what the kernel says of a network device, None if there is none."""
        done = self.run("ip", "-json", "link", "show", "dev", device, check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    def _enter(self, command: Sequence[object]) -> list[str]:
        # Not "ip netns exec": that brings a mount namespace along, and /sys would be another than the host's.
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *map(str, command)]


class Network:
    """A switch and the hosts on it. Use it as a context manager: leaving it kills and removes everything."""

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        self._id = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        # Settings of whoever runs the tests are not settings of what is tested.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGEGC_")}
        self.environment = {**inherited, **(environment or {})}
        # Under /tmp itself, and open to pass through: a lighthouse runs as another user, and pytest's own
        # temporary directories let only their owner in.
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self._id}-", dir="/tmp"))
        self.directory.chmod(0o711)
        self.hosts: dict[str, Host] = {}
        self._children: list[Child] = []

    def namespace(self, name: str) -> str:
        return f"{self._id}-{name}"

    def owned(self, child: Child) -> Child:
        self._children.append(child)
        return child

    def __enter__(self) -> Network:
        switch = self.namespace("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "set", "lo", "up")
        _ip(
            "-n",
            switch,
            "link",
            "add",
            "switch",
            "type",
            "bridge",
            "forward_delay",
            "0",
            "mcast_snooping",
            "0",
        )
        _ip("-n", switch, "link", "set", "switch", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (*(host.namespace for host in self.hosts.values()), self.namespace("switch")):
            remove_namespace(namespace)
        for child in self._children:
            child.stop(SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def add(self, name: str, address: str) -> Host:
        """Plug a host into the switch. ``address`` is in CIDR form; there is no default route."""
        host = Host(self, name, address.partition("/")[0])
        switch = self.namespace("switch")
        _ip("netns", "add", host.namespace)
        self.hosts[name] = host
        _ip("-n", host.namespace, "link", "set", "lo", "up")
        _ip(
            *("-n", host.namespace, "link", "add", "eth0", "type", "veth"),
            *("peer", "name", name, "netns", switch),
        )
        _ip("-n", switch, "link", "set", name, "master", "switch", "up")
        _ip("-n", host.namespace, "address", "add", address, "dev", "eth0")
        _ip("-n", host.namespace, "link", "set", "eth0", "up")
        return host

    def logs(self) -> Iterator[tuple[str, str]]:
        """Yield name and last lines of every log in the hosts' directories."""
        for path in sorted(self.directory.rglob("*.log")):
            with suppress(OSError):
                lines = path.read_text(errors="replace").splitlines()
                yield str(path.relative_to(self.directory)), "\n".join(lines[-LOG_TAIL_LINES:])


def wait_until(condition: Callable[[], T | None], *, within_s: float, what: str) -> T:
    """Return the first true value of a condition; fail, saying what did not happen, when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what} (last seen: {value!r})"
        time.sleep(POLL_S)


def holds_for(condition: Callable[[], bool], *, for_s: float, what: str) -> None:
    """Fail if a condition is not true all the while."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert condition(), f"no longer true: {what}"
        time.sleep(POLL_S)


def sweep() -> None:
    """Remove the namespaces and directories of test runs that are gone. One process at a time: workers begin together."""
    with Path(tempfile.gettempdir(), f"{PREFIX}-sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep()


def _sweep() -> None:
    for name in _namespaces():
        match = re.fullmatch(rf"{PREFIX}-(\d+)-\d+-\w+", name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove_namespace(name)
    for path in Path("/tmp").glob(f"{PREFIX}-*-*-*"):
        match = re.match(rf"{PREFIX}-(\d+)-\d+-", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            shutil.rmtree(path, ignore_errors=True)


def remove_namespace(name: str) -> None:
    """Kill whatever lives in a namespace, children that outlived their parents included, and remove it."""
    if name not in _namespaces():
        return
    deadline = time.monotonic() + COMMAND_LIMIT_S
    while pids := _ip("netns", "pids", name).split():
        assert time.monotonic() < deadline, f"processes {pids} in {name} do not die"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), SIGKILL)
        time.sleep(POLL_S)
    _ip("netns", "delete", name)


def _namespaces() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]


def _ip(*arguments: str) -> str:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, check=False, timeout=COMMAND_LIMIT_S
    )
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
