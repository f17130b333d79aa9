"""Small hand-written stand-ins and samples of the model. One idea each; no mock library."""

from __future__ import annotations

import base64
import signal
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import trio

from edgegc.agent.settings import Cluster as AgentCluster
from edgegc.control.bus import Bus
from edgegc.control.health import Health
from edgegc.control.lighthouse_board import Board
from edgegc.errors import Unavailable
from edgegc.model.cluster import Cluster
from edgegc.model.event import ClusterChanged
from edgegc.model.lighthouse import LighthouseSpec
from edgegc.model.manifest import Server, signed_text
from edgegc.model.node import Node
from edgegc.model.policy import ANY_TO_ANY
from edgegc.nebula import bundle, certificate, keys, plain_yaml
from edgegc.nebula.process import Applied, ApplyFailed, NebulaUnusable, ProcessStatus, Wanted
from edgegc.nebula.states import State
from edgegc.settings import Data, Settings
from edgegc.settings import Lighthouse as LighthouseSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgegc.agent.versions import Versions
    from edgegc.clock import Clock
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
        self.tunnel_kept = False
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

    def keep_tunnel(self, *, kept: bool) -> bool:
        if self._ended.is_set():
            return False
        self.tunnel_kept = kept
        return True

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
        self.removed_tunnels: list[str] = []

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

    def remove_tunnel(self, device: str) -> None:
        self.removed_tunnels.append(device)


class ControlPlane:
    """Makes bundles as a control plane does, with real certificates, for one node of one cluster."""

    def __init__(self, node: int = 5) -> None:
        self.node_id = f"33333333-3333-4333-8333-{node:012d}"
        self.cluster_id = CLUSTER_ID
        self.overlay = IPv4Interface(f"10.42.0.{node}/16")
        self.signer = keys.generate_ed25519()
        self.now = 1_900_000_000
        self.ca_key = keys.generate_ed25519()
        self.ca = certificate.self_sign(
            name="home", key=self.ca_key, not_before=self.now - 3600, not_after=self.now + 10**8
        )

    def certificate(
        self, public_key: bytes, *, not_after: int | None = None
    ) -> certificate.NebulaCertificate:
        return certificate.sign(
            ca=self.ca,
            ca_private=self.ca_key.private,
            name="pi-5",
            overlay=self.overlay,
            subnets=(),
            groups=(),
            not_before=self.now - 3600,
            not_after=self.now + 10**7 if not_after is None else not_after,
            public_key=public_key,
        )

    def bundle(
        self,
        version: int,
        public_key: bytes,
        *,
        lighthouses: Sequence[str] = ("10.42.0.1",),
        not_after: int | None = None,
        **changes: Any,
    ) -> bytes:
        """Return the body of a version. ``changes`` replace sections of its configuration or fields of its manifest."""
        config: dict[str, Any] = {
            "pki": {"blocklist": [], "disconnect_invalid": True},
            "static_host_map": {address: ["203.0.113.9:4242"] for address in lighthouses},
            "lighthouse": {"am_lighthouse": False, "interval": 10, "hosts": list(lighthouses)},
            "listen": {"host": "0.0.0.0"},
            "tun": {"disabled": False, "mtu": 1300},
            "firewall": {"inbound": [], "outbound": [{"port": "any", "proto": "any", "host": "any"}]},
        }
        manifest: dict[str, Any] = {
            "cluster_id": self.cluster_id,
            "node_id": self.node_id,
            "version": version,
            "signers": [self.signer.public],
            "servers": [Server(url="https://203.0.113.9:8443", pin="ab" * 32)],
            "listen_port": None,
            "restart_delay_s": 0,
        }
        manifest |= {name: value for name, value in changes.items() if name in manifest}
        config |= {name: value for name, value in changes.items() if name not in manifest}
        return bundle.build(
            config=plain_yaml.dump(config),
            ca_pem=self.ca.pem(),
            host_pem=self.certificate(public_key, not_after=not_after).pem(),
            **manifest,
        )

    def signature(self, body: bytes, version: int, *, key: keys.KeyPair | None = None, **ids: str) -> str:
        """Return the base64 signature over a body for this node, or for the ``cluster_id`` and ``node_id`` given."""
        named = {"cluster_id": self.cluster_id, "node_id": self.node_id} | ids
        text = signed_text(version=version, digest=bundle.digest(body), **named)
        return base64.b64encode(bundle.sign((key or self.signer).private, text)).decode()

    def membership(self, **changes: Any) -> AgentCluster:
        """Return what ``agent.toml`` says of the node."""
        fields: dict[str, Any] = {
            "id": self.cluster_id,
            "name": "home",
            "tenant_id": "22222222-2222-4222-8222-222222222222",
            "node_id": self.node_id,
            "node_name": "pi-5",
            "node_token": "egn_token",
            "mode": "managed",
            "servers": (Server(url="https://203.0.113.9:8443", pin="ab" * 32),),
            "signers": (base64.b64encode(self.signer.public).decode(),),
            "tun_device": "egc-home",
        }
        return AgentCluster(**(fields | changes))


class FakeNebula:
    """A nebula that takes what is in force in a directory, unless it is told to refuse that version.

    ``refuses`` maps versions to reasons; ``unusable`` makes every apply fail as if nebula were not installed.
    ``applied`` lists the versions it was given, in order.
    """

    def __init__(self, versions: Versions) -> None:
        self.refuses: dict[int, str] = {}
        self.unusable = False
        self.applied: list[int] = []
        self.dies_at: int | None = None
        self._versions = versions
        self._running: int | None = None
        self._pid = 100

    @property
    def status(self) -> ProcessStatus:
        return ProcessStatus(
            state=State.STOPPED if self._running is None else State.RUNNING,
            pid=None if self._running is None else self._pid,
            adopted=False,
            restarts=0,
            started_at=None,
            last_error=None,
            nebula_version=(1, 6, 1),
            config_digest=None,
            port=None,
        )

    @property
    def running(self) -> int | None:
        return self._running

    async def apply(self, wanted: Wanted) -> Applied:
        await trio.lowlevel.checkpoint()
        if self.unusable:
            raise NebulaUnusable("nebula is not installed: install it")
        number = self._versions.current()
        assert number is not None
        self.applied.append(number)
        if number in self.refuses:
            raise ApplyFailed(self.refuses[number])
        self._running = number
        applied = Applied(action="restart", reasons=(), pid=self._pid)
        if number == self.dies_at:
            self._pid += 1  # it died just after its proof, and was started again
        return applied


class FakeLighthouse:
    """Answers pings while a version in ``reached_by`` is in force (None: by all). Counts how often it was asked."""

    def __init__(self, versions: Versions, *, reached_by: set[int] | None = None) -> None:
        self.reached_by = reached_by
        self.asked = 0
        self._versions = versions

    async def __call__(self, addresses: tuple[str, ...], device: str, within_s: float) -> bool:
        self.asked += 1
        deadline = trio.current_time() + within_s
        while trio.current_time() < deadline:
            if self.reached_by is None or self._versions.current() in self.reached_by:
                await trio.lowlevel.checkpoint()
                return True
            await trio.sleep(min(1.0, deadline - trio.current_time()))
        return False


async def inline(job: Callable[[], Any], /) -> Any:
    """Run a blocking job right here: an autojump clock would jump over a thread."""
    await trio.lowlevel.checkpoint()
    return job()


class FakeExecutable:
    """An installed nebula 1.6.1 that accepts every configuration, except one that holds a word of ``refuses``."""

    def __init__(self) -> None:
        self.missing: str | None = None
        self.generation = 1
        self.refuses: set[str] = set()
        self.tested: list[str] = []

    async def find(self) -> tuple[Path, tuple[int, int, int]]:
        await trio.lowlevel.checkpoint()
        if self.missing is not None:
            raise NebulaUnusable(self.missing)
        return Path("/usr/bin/nebula"), (1, 6, 1)

    async def test(self, config_path: Path, *, user: str | None) -> None:
        await trio.lowlevel.checkpoint()
        config = config_path.read_text()  # noqa: ASYNC240
        self.tested.append(config)
        for word in self.refuses:
            if word in config:
                raise ApplyFailed(f"nebula -test refuses the configuration: {word}")


class FakeControl:
    """As much of :class:`~edgegc.control.control.Control` as the lighthouse supervisor uses; ``wanted`` is yours to set."""

    def __init__(self, data_dir: Path, *, clock: Clock | None = None, user: str = "nobody") -> None:
        self.settings = Settings(data=Data(dir=data_dir), lighthouse=LighthouseSettings(user=user))
        self.clock = clock or FakeClock()
        self.bus = Bus()
        self.lighthouses = Board()
        self.health = Health()
        self.specs = self
        self.wanted: dict[str, LighthouseSpec] = {}
        self.failing = False

    async def desired(self) -> list[LighthouseSpec]:
        await trio.lowlevel.checkpoint()
        if self.failing:
            raise Unavailable("the store is busy")
        return list(self.wanted.values())

    def want(self, *specs: LighthouseSpec) -> None:
        """Want exactly these, and say so on the bus."""
        changed = {*self.wanted, *(spec.cluster_id for spec in specs)}
        self.wanted = {spec.cluster_id: spec for spec in specs}
        for cluster_id in sorted(changed):
            self.bus.publish(ClusterChanged(cluster_id=cluster_id, wide_version=1))


def sample_lighthouse(cluster_id: str = CLUSTER_ID, **changes: Any) -> LighthouseSpec:
    """Return the specification of the sample cluster's lighthouse; its certificate is not one."""
    fields: dict[str, Any] = {
        "cluster_id": cluster_id,
        "cluster_name": "home",
        "version": 1,
        "overlay_ip": "10.42.0.1",
        "port": 0,
        "config": {
            "listen": {"host": "0.0.0.0"},
            "firewall": {"inbound": [{"port": "any", "proto": "icmp", "host": "any"}], "outbound": []},
        },
        "ca_pem": "",
        "certificate_pem": "",
        "key_pem": "",
        "fingerprint": None,
    }
    return LighthouseSpec(**(fields | changes))
