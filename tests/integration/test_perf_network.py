"""Namespaces of the laboratory: sockets and processes inside, pings between, nothing left over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio

from edgegc.errors import Error
from edgegc.perf import leftovers, network, pings

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or network.missing() is not None, reason="needs root, iproute2 and /dev/net/tun"
)


def ours() -> list[str]:
    return [path.name for path in network.NAMESPACES.glob(f"{network.PREFIX}-{leftovers.mark()}-*")]


async def test_machines_on_the_switch_reach_each_other_and_nothing_is_left() -> None:
    with network.opened() as net:
        first, second = net.add("first"), net.add("second")
        assert len(ours()) == 3
        async with pings.pinging(first, second.address, every_s=0.01) as series:
            await series.until_answered(10)
            before = series.sent
            series.forget()
            assert series.sent == 0 < before
            await trio.sleep(0.2)
        assert series.lost == 0
        assert series.sent >= 10
        assert len(series.round_trips_ns()) == series.sent
        assert await pings.answers(second, net.box.address, within_s=10)
    assert ours() == []


def test_a_machine_that_is_plugged_in_does_not_move_the_box_to_another_mac() -> None:
    def mac() -> str:
        shown = subprocess.run(
            ["ip", "-n", net.box.namespace, "-json", "link", "show", network.SWITCH],
            capture_output=True,
            text=True,
            check=True,
        )
        (link,) = msgspec.json.decode(shown.stdout)
        return str(link["address"])

    with network.opened() as net:
        before = mac()
        net.add("machine0")
        net.add("machine1")
        assert mac() == before == network.SWITCH_MAC


async def test_pings_to_an_address_that_nobody_has_are_lost() -> None:
    with network.opened() as net:
        async with pings.pinging(net.box, f"{network.SUBNET}.99", every_s=0.02) as series:
            await trio.sleep(0.1)
        assert series.lost == series.sent > 0
        assert series.longest_gap_s > 0
        assert not await pings.answers(net.box, f"{network.SUBNET}.99", within_s=0.1)


async def test_a_failure_inside_leaves_as_what_it_is() -> None:
    with network.opened() as net, pytest.raises(Error, match="over the overlay"):
        async with pings.pinging(net.box, f"{network.SUBNET}.99", every_s=0.02) as series:
            await series.until_answered(0.05)


def test_a_process_inside_has_its_own_network_and_ends_with_it() -> None:
    listen = "import socket, time; s = socket.create_server(('0.0.0.0', 7)); print('up', flush=True); time.sleep(60)"
    with network.opened() as net:
        inside = subprocess.Popen(net.box.enter([sys.executable, "-c", listen]), stdout=subprocess.PIPE)
        assert inside.stdout is not None
        assert inside.stdout.readline() == b"up\n"
        assert net.box.pids() == [inside.pid]
        with net.box.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(("127.0.0.1", 7))
        with socket.socket() as outside, pytest.raises(OSError, match="refused"):
            outside.connect(("127.0.0.1", 7))
    assert inside.wait(10) == -9
    inside.stdout.close()


def test_what_a_killed_suite_left_is_removed_by_the_next_start() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = f"{network.PREFIX}-{gone.pid}-abcdef-box"
    subprocess.run(["ip", "netns", "add", name], check=True)
    survivor = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", "sleep", "60"])
    own = f"{network.PREFIX}-{leftovers.mark()}-busy"
    subprocess.run(["ip", "netns", "add", own], check=True)
    try:
        assert name in network.sweep()
        assert survivor.wait(10) == -9
        assert not Path("/run/netns", name).exists()
        assert Path("/run/netns", own).exists()
    finally:
        subprocess.run(["ip", "netns", "delete", own], check=True)
