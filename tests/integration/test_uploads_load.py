"""Uploads and downloads as many as there may be at once, against a daemon of its own: all right, and memory stays flat."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from edgegc.client import Client
from edgegc.errors import Error
from edgegc.model import message
from tests import zoo

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0
MIB = 1024 * 1024
LARGEST = 10 * MIB
UPLOADS, CLUSTERS, DOWNLOADS = 20, 4, 50


class Daemon:
    """``edgegc serve`` with limits on, so that they are part of what is measured."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.log = directory / "daemon.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "edgegc",
                    "serve",
                    "--data-dir",
                    str(self.data),
                    "--listen",
                    "127.0.0.1:0",
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=directory,
                stdout=log,
                stderr=log,
            )
        self.peak = 0
        self._ends = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def up(self) -> None:
        deadline = time.monotonic() + LIMIT_S
        while "edgegc is up" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def rss(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    @contextmanager
    def watched(self) -> Iterator[int]:
        """Follow memory meanwhile; gives what it was at the beginning."""
        self.peak = idle = self.rss()
        self._ends.clear()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        try:
            yield idle
        finally:
            self._ends.set()
            self._watcher.join()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def client(self, token: str | None = None) -> Client:
        return Client(f"unix://{self.data / 'admin.sock'}", token=token)

    def cli(self, *arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "edgegc", *arguments, "--data-dir", str(self.data), "-o", "json"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=self.data.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    def _watch(self) -> None:
        while not self._ends.wait(0.005):
            self.peak = max(self.peak, self.rss())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path)
    try:
        running.up()
        yield running
    finally:
        running.end()


async def clusters_of(daemon: Daemon, count: int) -> list[str]:
    async with daemon.client() as client:
        tenant = await client.create_tenant(message.TenantCreate(name="acme"))
        return [
            (
                await client.create_cluster(
                    message.ClusterCreate(
                        tenant_id=tenant.id, name=f"c{n}", network_cidr="10.42.0.0/16", mode="uploaded"
                    )
                )
            ).id
            for n in range(count)
        ]


async def member_of(daemon: Daemon, cluster_id: str) -> str:
    async with daemon.client() as client:
        made = await client.create_node(message.NodeCreate(name="n"), cluster_id=cluster_id)
        assert isinstance(made.node_token, str)
        return made.node_token


async def warm(daemon: Daemon, cluster_id: str) -> None:
    """Let everything that is loaded on its first use be loaded: idle is what a box is after its first day."""
    async with daemon.client() as client:
        await client.upload_bundle(zoo.bundle(), cluster_id=cluster_id)
    token = await member_of(daemon, cluster_id)
    async with daemon.client(token) as node:
        await node.bundle(limit_bytes=LARGEST)


async def test_20_uploads_and_50_downloads_of_10_mib_at_once_stay_within_60_mib(daemon: Daemon) -> None:
    (first, *others) = await clusters_of(daemon, CLUSTERS + 1)
    await warm(daemon, first)
    bodies = {seed: zoo.sized(LARGEST - 4096, seed) for seed in range(UPLOADS)}
    tokens = [await member_of(daemon, cluster_id) for cluster_id in others]
    good: list[int] = []
    wanted: dict[str, set[str]] = {cluster_id: set() for cluster_id in others}

    async def upload(seed: int) -> None:
        cluster_id = others[seed % CLUSTERS]
        async with daemon.client() as client:
            made = await client.upload_bundle(bodies[seed], cluster_id=cluster_id)
        assert made.size == len(bodies[seed])
        assert made.digest == hashlib.sha256(bodies[seed]).hexdigest()
        wanted[cluster_id].add(made.digest)

    async def download(number: int) -> None:
        hasher = hashlib.sha256()
        async with daemon.client(tokens[number % CLUSTERS]) as client:
            head = await client.download("GET", "/api/v1/config/bundle", hasher.update)
        digest = hasher.hexdigest()
        assert head.headers["edgegc-digest"] == f"sha256:{digest}"
        assert digest in wanted[others[number % CLUSTERS]]
        good.append(number)

    with trio.fail_after(LIMIT_S), daemon.watched() as idle:
        async with trio.open_nursery() as nursery:
            for seed in range(UPLOADS):
                nursery.start_soon(upload, seed)
        async with trio.open_nursery() as nursery:
            for number in range(DOWNLOADS):
                nursery.start_soon(download, number)
    assert sorted(good) == list(range(DOWNLOADS))
    risen = daemon.peak - idle
    assert risen <= 60 * MIB, f"{risen / MIB:.1f} MiB above the {idle / MIB:.1f} MiB of idle"


async def test_uploads_beside_downloads_stay_within_60_mib(daemon: Daemon) -> None:
    (first, *others) = await clusters_of(daemon, CLUSTERS + 1)
    await warm(daemon, first)
    async with daemon.client() as client:
        for seed, cluster_id in enumerate(others):
            await client.upload_bundle(zoo.sized(LARGEST - 4096, seed), cluster_id=cluster_id)
    tokens = [await member_of(daemon, cluster_id) for cluster_id in others]

    # Made before: a client that is busy for seconds after it connected is sent away.
    bodies = [zoo.sized(LARGEST - 4096, 100 + seed) for seed in range(UPLOADS)]

    async def upload(seed: int) -> None:
        async with daemon.client() as client:
            await client.upload_bundle(bodies[seed], cluster_id=others[seed % CLUSTERS])

    async def download(number: int) -> None:
        hasher = hashlib.sha256()
        async with daemon.client(tokens[number % CLUSTERS]) as client:
            head = await client.download("GET", "/api/v1/config/bundle", hasher.update)
        assert head.headers["edgegc-digest"] == f"sha256:{hasher.hexdigest()}"

    with trio.fail_after(LIMIT_S), daemon.watched() as idle:
        async with trio.open_nursery() as nursery:
            for number in range(DOWNLOADS):
                nursery.start_soon(download, number)
            for seed in range(UPLOADS):
                nursery.start_soon(upload, seed)
    risen = daemon.peak - idle
    assert risen <= 60 * MIB, f"{risen / MIB:.1f} MiB above the {idle / MIB:.1f} MiB of idle"


async def test_the_zoo_costs_the_server_less_than_32_mib_and_leaves_nothing_on_disk(daemon: Daemon) -> None:
    clusters = await clusters_of(daemon, 1 + len(zoo.ZOO) // 8)
    await warm(daemon, clusters[0])
    before = {path.name for path in daemon.data.rglob("*")}
    refused = 0
    with trio.fail_after(LIMIT_S), daemon.watched() as idle:
        for number, (name, (make, _, words)) in enumerate(zoo.ZOO.items()):
            async with daemon.client() as client:
                with pytest.raises(Error) as error:
                    await client.upload_bundle(make(), cluster_id=clusters[number % len(clusters)])
            assert words in error.value.message, name
            refused += 1
    assert refused >= 25
    assert {path.name for path in daemon.data.rglob("*")} == before
    risen = daemon.peak - idle
    assert risen <= 32 * MIB, f"{risen / MIB:.1f} MiB above the {idle / MIB:.1f} MiB of idle"
    async with daemon.client() as client:
        for cluster_id in clusters[1:]:
            assert (await client.bundles(cluster_id=cluster_id)).bundles == ()


def test_the_command_line_goes_through_a_bundles_life(daemon: Daemon, tmp_path: Path) -> None:
    daemon.cli("tenant", "create", "acme")
    made = daemon.cli("cluster", "create", "field", "--network-cidr", "10.9.0.0/16", "--mode", "uploaded")
    assert (made["mode"], made["ca"]) == ("uploaded", None)
    one, two = tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"
    one.write_bytes(zoo.sized(50_000, 1))
    two.write_bytes(zoo.sized(50_000, 2))
    assert daemon.cli("bundle", "upload", str(one))["version"] == 1
    assert daemon.cli("bundle", "upload", str(two))["version"] == 2
    assert daemon.cli("bundle", "activate", "1")["version"] == 3
    daemon.cli("bundle", "delete", "3", code=3)
    daemon.cli("bundle", "delete", "2")
    listed = daemon.cli("bundle", "list")["bundles"]
    assert [(each["version"], each["active"]) for each in listed] == [(3, True), (1, False)]
    got = daemon.cli("bundle", "download", "3", str(tmp_path / "got.tar.gz"))
    assert Path(got["file"]).read_bytes() == one.read_bytes()
    assert Path(got["file"]).stat().st_mode & 0o777 == 0o600
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(zoo.bundle({"config.yml": zoo.CONFIG}))
    assert "has no ca.crt" in daemon.cli("bundle", "upload", str(wrong), code=2)
