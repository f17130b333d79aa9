"""Small hand-written stand-ins and samples of the model. One idea each; no mock library."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Literal

import trio

from edgegc.model.cluster import Cluster
from edgegc.model.node import Node
from edgegc.model.policy import ANY_TO_ANY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgegc.nebula.record import Record
    from edgegc.nebula.spawn import Child

CLUSTER_ID = "11111111-1111-4111-8111-111111111111"


def sample_cluster(**changes: Any) -> Cluster:
    """Return a cluster ``10.42.0.0/16`` that has a lighthouse on its box."""
    fields: dict[str, Any] = {
        "id": CLUSTER_ID,
        "tenant_id": "22222222-2222-4222-8222-222222222222",
        "name": "home",
        "network_cidr": "10.42.0.0/16",
        "mode": "managed",
        "provide_lighthouse": True,
        "provide_relay": True,
        "lighthouse_port": 4242,
        "lighthouse_public_addresses": ("203.0.113.9:4242",),
        "allowed_routes": ("10.0.0.0/8",),
        "certificate_lifetime_s": 15_552_000,
        "supersede_grace_s": 600,
        "policy": ANY_TO_ANY,
        "version": 1,
        "wide_version": 1,
        "lighthouse_version": 1,
        "node_count": 0,
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_000,
    }
    return Cluster(**(fields | changes))


def sample_node(number: int = 5, **changes: Any) -> Node:
    """Return a plain member ``pi-<number>`` of the sample cluster at ``10.42.0.<number>``."""
    fields: dict[str, Any] = {
        "id": f"33333333-3333-4333-8333-{number:012d}",
        "cluster_id": CLUSTER_ID,
        "name": f"pi-{number}",
        "role": "member",
        "overlay_ip": f"10.42.0.{number}",
        "mtu": 1300,
        "groups": (),
        "listen_port": None,
        "is_lighthouse": False,
        "is_relay": False,
        "public_addresses": (),
        "routes": (),
        "own_version": 1,
        "enrolment_key_id": None,
        "enrolled_at": None,
        "token_used_at": None,
        "last_seen_at": None,
        "applied_version": None,
        "reported_state": None,
        "error": None,
        "nebula_version": None,
        "certificate": None,
        "created_at": 1_700_000_000,
        "updated_at": 1_700_000_000,
    }
    return Node(**(fields | changes))


class FakeClock:
    """A wall clock that stands still until it is told otherwise; ``at`` in Unix seconds."""

    def __init__(self, at: int = 1_900_000_000) -> None:
        self.at = at

    def now(self) -> int:
        return self.at


READY_LINE = (
    'time="2026-11-23T10:30:00Z" level=info msg="Nebula interface is active" build={} udpAddr="0.0.0.0:{}"'
)
HUP_LINES = (
    'time="2026-11-23T10:30:00Z" level=info msg="Caught HUP, reloading config"',
    'time="2026-11-23T10:30:00Z" level=info msg="Trusted CA certificates refreshed" fingerprints="[]"',
    'time="2026-11-23T10:30:00Z" level=info msg="Client cert refreshed from disk" cert="NebulaCertificate {}"',
)
"""What 1.6.1 says at every SIGHUP."""


class FakeChild:
    """A process that is only a few lines in a log file; ends by SIGTERM (unless ``stubborn``) and by SIGKILL."""

    def __init__(self, spawner: FakeSpawner, pid: int, log_path: Path) -> None:
        self.pid = pid
        self.start_ticks = pid
        self.log_path = log_path
        self.stubborn = False
        self.released = False
        self.signals: list[signal.Signals] = []
        self._spawner = spawner
        self._code: int | None = None
        self._ended = trio.Event()

    def log(self, *lines: str) -> None:
        with self.log_path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def die(self, code: int = 1) -> None:
        self._code = code
        self._ended.set()
        self._spawner.living.pop(self.pid, None)

    def send_signal(self, number: signal.Signals) -> None:
        if self._ended.is_set():
            return
        self.signals.append(number)
        if number is signal.SIGKILL or (number is signal.SIGTERM and not self.stubborn):
            self.die(0 if number is signal.SIGTERM else -9)
        elif number is signal.SIGHUP:
            self.log(*self._spawner.hup_lines)

    async def wait(self) -> int | None:
        await self._ended.wait()
        return self._code

    def release(self) -> None:
        self.released = True


class FakeSpawner:
    """Spawns :class:`FakeChild`: gets ready at once, dies early, or says nothing, as told by ``behaviour``."""

    def __init__(self, version: str = "1.6.1") -> None:
        self.version = version
        self.behaviour: Literal["ready", "dies", "silent", "missing"] = "ready"
        self.hup_lines: tuple[str, ...] = HUP_LINES
        self.children: list[FakeChild] = []
        self.living: dict[int, FakeChild] = {}
        self.users: list[str | None] = []

    @property
    def child(self) -> FakeChild:
        return self.children[-1]

    async def spawn(self, argv: Sequence[str], *, log_path: Path, user: str | None) -> Child:
        await trio.lowlevel.checkpoint()
        self.users.append(user)
        if self.behaviour == "missing":
            raise FileNotFoundError(2, "No such file or directory", argv[0])
        child = FakeChild(self, 1000 + len(self.children), log_path)
        assert not [other for other in self.living.values() if other.log_path == log_path], "two at once"
        self.children.append(child)
        self.living[child.pid] = child
        if self.behaviour == "ready":
            child.log(READY_LINE.format(self.version, 4242))
        elif self.behaviour == "dies":
            child.log('level=error msg="Failed to open udp listener" error="it broke"')
            child.die(1)
        return child

    def adopt(self, known: Record) -> Child | None:
        return self.living.get(known.pid) if known.pid is not None else None


async def inline(job: Callable[[], Any], /) -> Any:
    """Run a blocking job right here: an autojump clock would jump over a thread."""
    await trio.lowlevel.checkpoint()
    return job()
