"""What was acknowledged over HTTP is there: after kill -9 in the middle of many writers, and on a full disk."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from edgegc import errors
from edgegc.client import Client
from edgegc.connection import Unreachable
from edgegc.model import message
from edgegc.nebula import keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SAFETY_S = 120.0
CLIENTS = 50
PAGE = 500


class Serving:
    """``edgegc serve`` on one data directory and one port, killed and started again."""

    def __init__(self, program: tuple[str, ...], data: Path, logs: Path) -> None:
        self.data = data
        self.port = 0
        self._program = program
        self._log = logs / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"unix://{self.data / 'admin.sock'}"

    async def start(self) -> None:
        """Start, and return when the API answers."""
        shown = len(self.text())
        self._process = self._spawn()
        with trio.fail_after(SAFETY_S):
            while not (up := re.search(r"edgegc is up: http://[0-9.]+:(\d+)", self.text()[shown:])):
                assert self._process.poll() is None, self.text()
                await trio.sleep(0.02)
        self.port = int(up[1])

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGEGC_")}
        environment["SHIV_ROOT"] = str(Path(self._program[0]).parent / "shiv")
        if self._program[0] == sys.executable:
            environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(*self._program, "serve", "--data-dir", self.data),
                    # One node asks for everything here, faster than any node may.
                    *("--listen", f"127.0.0.1:{self.port}", "--limits", "off"),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await trio.to_thread.run_sync(self._process.wait)

    async def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        with trio.fail_after(SAFETY_S):
            return await trio.to_thread.run_sync(self._process.wait)

    def text(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def make_cluster(serving: Serving) -> tuple[str, str]:
    """Make a cluster with an admin node; return the cluster's id and that node's token."""
    async with Client(serving.admin) as operator:
        tenant = await operator.create_tenant(message.TenantCreate(name="acme"))
        cluster = await operator.create_cluster(
            message.ClusterCreate(tenant_id=tenant.id, name="home", network_cidr="10.42.0.0/16")
        )
        node = await operator.create_node(
            message.NodeCreate(name="admin", role="admin"), cluster_id=cluster.id
        )
    assert isinstance(node.node_token, str)
    return cluster.id, node.node_token


async def all_nodes(client: Client) -> list[message.NodeView]:
    nodes: list[message.NodeView] = []
    cursor = None
    while True:
        page = await client.nodes(message.NodeQuery(page_size=PAGE, cursor=cursor))
        nodes += page.nodes
        if page.next_cursor is None:
            assert page.total == len(nodes)
            return nodes
        cursor = page.next_cursor


def new_key() -> str:
    return keys.pem_x25519_public(keys.generate_x25519().public)


@pytest.fixture
async def serving(program: tuple[str, ...], tmp_path: Path) -> AsyncIterator[Serving]:
    made = Serving(program, tmp_path / "data", tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize(
    ("creates", "kills"),
    [
        pytest.param(2_000, 2, id="twice"),
        pytest.param(10_000, 10, id="ten times", marks=pytest.mark.long),
    ],
)
async def test_every_node_acknowledged_around_kill_9_is_there_once(
    serving: Serving, creates: int, kills: int
) -> None:
    """NO_ACK_LOST: what was answered is there after any crash, once."""
    await serving.start()
    _, token = await make_cluster(serving)
    names = iter([f"node-{number}" for number in range(creates)])
    acknowledged: dict[str, message.NodeView] = {}
    # A name that is taken when it is tried again: its first attempt was made, and the answer died with the server.
    unanswered: set[str] = set()
    cut = 0

    async def create(client: Client, name: str) -> None:
        nonlocal cut
        asked = message.NodeCreate(name=name, public_key=new_key())
        tried = False
        while True:
            try:
                acknowledged[name] = await client.create_node(asked)
            except Unreachable:
                tried = True
                cut += 1
                await trio.sleep(0.05)
            except errors.Conflict:
                assert tried, f"{name} was there before it was asked for"
                unanswered.add(name)
                return
            else:
                return

    async def write() -> None:
        async with Client(serving.url, token=token) as client:
            for name in names:
                await create(client, name)

    with trio.fail_after(10 * SAFETY_S):
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(write)
            for kill in range(1, kills + 1):
                while len(acknowledged) < creates * kill // (kills + 1):
                    await trio.sleep(0.002)
                await serving.kill()
                await serving.start()

    assert cut >= kills, "every kill must have met writers at work"
    assert acknowledged.keys().isdisjoint(unanswered)
    async with Client(serving.url, token=token) as client:
        nodes = await all_nodes(client)
        found = {node.name: node for node in nodes}
        assert found.keys() == {"admin", *acknowledged, *unanswered}
        for what in ("id", "name", "overlay_ip"):
            counted = Counter(getattr(node, what) for node in nodes)
            assert counted.most_common(1)[0][1] == 1, f"two nodes share one {what}"
        for name, answered in acknowledged.items():
            there = found[name]
            assert (there.id, there.overlay_ip, there.certificate) == (
                answered.id,
                answered.overlay_ip,
                answered.certificate,
            )
    for name in list(acknowledged)[:: creates // 20]:
        # Also the token that was shown once is the one that was kept.
        secret = acknowledged[name].node_token
        assert isinstance(secret, str)
        async with Client(serving.url, token=secret) as node:
            seen = await node.call(message.EffectiveVersion, "GET", "/api/v1/config/version")
        assert seen.version == found[name].version > 0
    assert await serving.stop() == 0


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB, mounted as the data directory."""
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0711", "tmpfs", str(data)], check=True)
    yield data
    subprocess.run(["umount", "--lazy", str(data)], check=True)


def fill(filler: Path) -> None:
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))


async def test_on_a_full_disk_writes_are_503_reads_go_on_and_room_is_all_it_needs(
    small_disk: Path, serving: Serving
) -> None:
    await serving.start()
    _, token = await make_cluster(serving)
    acknowledged: set[str] = set()
    filler = small_disk / "filler"

    async with Client(serving.url, token=token) as client:

        async def create(name: str) -> message.Problem | None:
            """Return what a refusal says, None where the node was made."""
            response = await client.request(
                "POST",
                "/api/v1/nodes",
                body=message.NodeCreate(name=name, public_key=new_key()),
                accept=range(400, 600),
            )
            if response.status == 201:
                acknowledged.add(name)
                return None
            assert response.status == 503, response.body
            assert response.headers["content-type"].startswith("application/problem+json")
            assert int(response.headers["retry-after"]) > 0
            return msgspec.json.decode(response.body, type=message.Problem)

        async def names() -> set[str]:
            return {node.name for node in await all_nodes(client)} - {"admin"}

        assert await create("first") is None
        fill(filler)
        refused: list[message.Problem] = []
        with trio.fail_after(SAFETY_S):
            # What the log already has of the disk may still take a few.
            for number in range(2_000):
                problem = await create(f"node-{number}")
                if problem is not None:
                    refused.append(problem)
                if len(refused) == 20:
                    break
        assert len(refused) == 20
        assert {problem.code for problem in refused} == {"unavailable"}
        assert "disk" in refused[-1].detail
        assert "full" in refused[-1].detail

        assert await names() == acknowledged
        version = await client.call(message.EffectiveVersion, "GET", "/api/v1/config/version")
        assert version.version >= 0
        ready = await client.call(message.Health, "GET", "/health/ready")
        assert ready.status == "degraded"
        assert "full" in ready.checks["store"]

        filler.unlink()
        assert await create("again") is None
        ready = await client.call(message.Health, "GET", "/health/ready")
        assert ready.checks["store"] == "ok"
        assert await names() == acknowledged

        # And once more from the disk: nothing acknowledged was only in memory.
        await serving.kill()
        await serving.start()
        assert await names() == acknowledged
        assert await create("last") is None
    assert await serving.stop() == 0
