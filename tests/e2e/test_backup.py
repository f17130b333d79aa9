"""A backup taken while the box is written to, restored on another one: nothing answered is missing, and nodes go on."""

from __future__ import annotations

import threading
import time
from signal import SIGINT
from typing import TYPE_CHECKING

import pytest
import trio

from edgegc.client import Client
from edgegc.model import message
from tests.e2e.ground import API_PORT, LIGHTHOUSE_PORT, Box, Ground
from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.network import Network

WRITES_PER_S = 200
AT_ONCE = 64
SAFETY_S = 120.0
SPARE = "198.51.100.200"


class Writers:
    """Creates nodes at a steady rate, whatever the answers take, and notes when each was answered."""

    def __init__(self, socket: Path, cluster_id: str) -> None:
        self._socket = socket
        self._cluster_id = cluster_id
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: trio.run(self._run))
        self.answered: dict[str, float] = {}

    def __enter__(self) -> Writers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(SAFETY_S)

    async def _run(self) -> None:
        room = trio.CapacityLimiter(AT_ONCE)
        clients = [Client(f"unix://{self._socket}") for _ in range(AT_ONCE)]

        async def create(number: int) -> None:
            async with room:
                name = f"written-{number}"
                await clients[number % AT_ONCE].create_node(
                    message.NodeCreate(name=name), cluster_id=self._cluster_id
                )
                self.answered[name] = time.monotonic()

        started = trio.current_time()
        number = 0
        with trio.fail_after(SAFETY_S):
            async with trio.open_nursery() as nursery:
                while not self._ending.is_set():
                    await trio.sleep_until(started + number / WRITES_PER_S)
                    nursery.start_soon(create, number)
                    number += 1
        for client in clients:
            client.close()


async def all_names(socket: Path, cluster_id: str) -> set[str]:
    names: set[str] = set()
    cursor = None
    async with Client(f"unix://{socket}") as client:
        while True:
            page = await client.nodes(message.NodeQuery(page_size=500, cursor=cursor), cluster_id=cluster_id)
            names |= {node.name for node in page.nodes}
            cursor = page.next_cursor
            if cursor is None:
                return names


@pytest.fixture
def ground(network: Network, program: tuple[str, ...], nebula: Path) -> Ground:
    network.environment["PATH"] = f"{nebula.parent}:{network.environment['PATH']}"
    ground = Ground(network, program)
    ground.box.quickstart()
    for name in ("one", "two"):
        ground.machine(name).join(ground.box)
    for name in ("one", "two"):
        wait_until(
            lambda name=name: name in {node["name"] for node in ground.box.ask("node", "list")["nodes"]},
            within_s=60,
            what=f"{name} has joined",
        )
        ground.box.wait_applied(name, 1)
    return ground


def test_a_box_backed_up_under_load_is_restored_elsewhere_and_its_nodes_go_on(
    ground: Ground, network: Network, program: tuple[str, ...]
) -> None:
    box = ground.box
    (cluster,) = box.ask("cluster", "list")["clusters"]
    before = {name: box.node(name) for name in ("one", "two")}
    address = ground.overlay_ip(ground.machines[1])
    file = network.directory / "backup.tar"

    with Writers(box.data / "admin.sock", cluster["id"]) as writers:
        wait_until(lambda: len(writers.answered) >= WRITES_PER_S, within_s=60, what="writes are answered")
        began = time.monotonic()
        box.host.run(*box.command("backup", file))
        ended = time.monotonic()
        count = len(writers.answered)
        wait_until(lambda: len(writers.answered) > count + 20, within_s=60, what="writes go on")
    promised = {name for name, at in writers.answered.items() if at < began}
    meanwhile = {name for name, at in writers.answered.items() if began <= at <= ended}
    assert len(promised) >= WRITES_PER_S
    assert meanwhile, "the backup must have met writers at work"

    assert box.ask("verify", file)["ok"]
    box.stop(SIGINT)

    spare = Box(network.add("spare", f"{SPARE}/24"), program)
    restored = spare.host.run(*program, "restore", file, "--into", spare.data)
    assert "must join again" in restored.stderr
    settings = spare.data / "edgegc.toml"
    settings.write_text(settings.read_text().replace(box.host.address, SPARE))
    spare.serve()
    assert spare.ask("verify")["ok"]
    found = trio.run(all_names, spare.data / "admin.sock", cluster["id"])
    assert promised <= found
    assert {"one", "two"} <= found
    spare.ask("cluster", "update", "--lighthouse-public-addresses", f"{SPARE}:{LIGHTHOUSE_PORT}")

    for machine in ground.machines:
        machine.host.run(
            *program,
            *("agent", "set-server", cluster["name"], f"https://{SPARE}:{API_PORT}"),
            *("--config-dir", machine.config),
        )
    for name, node in before.items():
        now = spare.wait_applied(name, 1_000_000)
        assert (now["id"], now["overlay_ip"]) == (node["id"], node["overlay_ip"])
    wait_until(lambda: ground.machines[0].host.ping(address), within_s=60, what="one reaches two")
    assert spare.lighthouse_answers()
