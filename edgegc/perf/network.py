"""A small network of namespaces on this machine: a box and machines on one switch, and sockets and processes inside.

Knows neither edgegc nor nebula. Nothing is made in the machine's own network: the switch is in the box's namespace, and
what goes on in these namespaces reaches nobody else. Their names carry the mark of the suite that made them (see
:mod:`edgegc.perf.leftovers`), so that the next one finds what a killed one left.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from edgegc.errors import Unavailable
from edgegc.perf import leftovers, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

PREFIX: Final = "egperf"
NAMESPACES: Final = Path("/run/netns")
"""Where iproute2 keeps them."""
TUN: Final = Path("/dev/net/tun")
SUBNET: Final = "198.18.0"
"""Of 198.18.0.0/15, which is kept for measuring networks (RFC 2544)."""
PREFIX_LENGTH: Final = 24
MOST_MACHINES: Final = 250
SWITCH: Final = "switch"
SWITCH_MAC: Final = "02:00:c6:12:00:01"
"""Locally administered. A bridge without one of its own takes the lowest of its ports', and another one when a machine is
plugged in: whoever had learned the former spoke to nobody for some seconds, until its kernel asked again."""
DEVICE: Final = "eth0"
COMMAND_S: Final = 20.0
"""For an ``ip`` that answers within milliseconds on a machine that is not stuck."""
ROUNDS: Final = 20
"""How often what lives in a namespace is killed before it is given up: what is killed may have started something just then."""
CLONE_NEWNET: Final = 0x40000000

_NAMED: Final = re.compile(rf"{PREFIX}-([0-9]+-[0-9a-f]+)-.+")


def missing() -> str | None:
    """Return the sentence about what this machine lacks for namespaces with tunnels in them, and the remedy; else None."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it with sudo"
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"network namespaces need '{program}': apt install {package}"
    if not TUN.exists():
        return f"nebula's tunnels need {TUN}: modprobe tun"
    return None


class Host:
    """One machine of the network. ``address`` is the one it has on the switch."""

    def __init__(self, name: str, *, address: str) -> None:
        self.name = name
        self.address = address
        self.namespace = f"{PREFIX}-{leftovers.mark()}-{name}"

    @property
    def path(self) -> Path:
        """The file that stands for its namespace."""
        return NAMESPACES / self.namespace

    def enter(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs another one here; it becomes it, so that its pid is the same."""
        # Not 'ip netns exec', which mounts another /sys: the control groups would be out of sight.
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket of this machine, which is used like any other. Blocking, a fraction of a millisecond.

        Raises OSError.
        """
        return _inside(self.path, lambda: socket.socket(family, kind, protocol))

    def pids(self) -> list[int]:
        """Return the processes that live here."""
        return _living_in(self.path)


class Network:
    """The box and the machines beside it. Made by :func:`opened` alone; every method blocks, for some milliseconds."""

    def __init__(self) -> None:
        self.box = Host("box", address=f"{SUBNET}.1")
        self.machines: list[Host] = []

    def add(self, name: str) -> Host:
        """Plug in one more machine. Raises Unavailable, with the system's reason, where that can't be done."""
        number = len(self.machines) + 2
        if number > MOST_MACHINES:
            raise Unavailable(f"there is room for {MOST_MACHINES - 1} machines")
        host = Host(name, address=f"{SUBNET}.{number}")
        self.machines.append(host)
        plug = f"port{number}"
        _ip("netns", "add", host.namespace)
        _ip("-n", host.namespace, "link", "set", "lo", "up")
        _ip(
            *("-n", host.namespace, "link", "add", DEVICE, "type", "veth"),
            *("peer", "name", plug, "netns", self.box.namespace),
        )
        _ip("-n", self.box.namespace, "link", "set", plug, "master", SWITCH, "up")
        _ip("-n", host.namespace, "address", "add", f"{host.address}/{PREFIX_LENGTH}", "dev", DEVICE)
        _ip("-n", host.namespace, "link", "set", DEVICE, "up")
        return host

    def _make_box(self) -> None:
        inside = ("-n", self.box.namespace)
        _ip("netns", "add", self.box.namespace)
        _ip(*inside, "link", "set", "lo", "up")
        # Its ports forward from the first moment on, and it learns of no multicast: there are no loops here.
        _ip(
            *(*inside, "link", "add", SWITCH, "address", SWITCH_MAC, "type", "bridge"),
            *("forward_delay", "0", "mcast_snooping", "0"),
        )
        _ip(*inside, "address", "add", f"{self.box.address}/{PREFIX_LENGTH}", "dev", SWITCH)
        _ip(*inside, "link", "set", SWITCH, "up")

    def _close(self) -> None:
        for host in (*self.machines, self.box):
            _remove(host.path)


@contextmanager
def opened() -> Iterator[Network]:
    """Make a network with the box in it, and remove it afterwards with all that lives in it. Blocking, some 50 ms.

    Raises Unavailable, with what to do, where this machine can't have one. What a killed suite left is removed first.
    """
    why = missing()
    if why is not None:
        raise Unavailable(why)
    sweep()
    network = Network()
    try:
        try:
            network._make_box()
        except Unavailable as error:
            raise Unavailable(
                f"{error.message}; in a container it needs CAP_SYS_ADMIN and CAP_NET_ADMIN"
            ) from error
        yield network
    finally:
        network._close()


def sweep() -> list[str]:
    """Remove the namespaces of suites that are gone, and what lives in them. Blocking. Returns their names."""
    found = []
    for path in sorted(NAMESPACES.glob(f"{PREFIX}-*")) if NAMESPACES.is_dir() else ():
        match = _NAMED.fullmatch(path.name)
        if match is not None and not leftovers.lives(match[1]):
            _remove(path)
            found.append(path.name)
    return found


def _remove(namespace: Path) -> None:
    """End all that lives in a namespace and remove it; nothing happens where there is none."""
    if not namespace.exists():
        return
    for _ in range(ROUNDS):
        pids = _living_in(namespace)
        if not pids:
            break
        leftovers.kill(pids)
    with suppress(Unavailable):
        # Where it can't be removed, the next start tries again.
        _ip("netns", "delete", namespace.name)


def _living_in(namespace: Path) -> list[int]:
    try:
        wanted = namespace.stat()
    except FileNotFoundError:
        return []
    found = []
    for pid in process.pids():
        try:
            seen = os.stat(f"/proc/{pid}/ns/net")
        except OSError:
            continue
        if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino) and process.is_alive(pid):
            found.append(pid)
    return found


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(
            ["ip", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S,
            # Ctrl-C is for the suite, which removes what it has made.
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"ip {' '.join(words)}: {error}") from error
    if done.returncode != 0:
        raise Unavailable(f"ip {' '.join(words)}: {done.stderr.strip() or done.returncode}")


def _inside(namespace: Path, act: Callable[[], T]) -> T:
    """Return what ``act`` returns in a thread that is in a namespace; it ends with that, and takes no one else along."""
    answers: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with namespace.open("rb") as file:
                _set_namespace(file.fileno())
            answers.append(act())
        except BaseException as error:
            failures.append(error)

    # Of our own, not a pooled one: it stays where it went.
    thread = threading.Thread(target=run, name=f"in {namespace.name}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]


def _set_namespace(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
