"""The harness itself: what the other tests believe it to do."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.network import Network, sweep, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[Network]:
    with Network() as network:
        network.add("one", "198.51.100.1/24")
        network.add("two", "198.51.100.2/24")
        yield network


def test_hosts_on_the_switch_reach_each_other_and_themselves(pair: Network) -> None:
    one = pair.hosts["one"]
    assert one.ping("198.51.100.2")
    assert one.ping("127.0.0.1")
    assert not one.ping("198.51.100.3")


def test_lost_pings_are_counted(pair: Network) -> None:
    one, two = pair.hosts["one"], pair.hosts["two"]
    pinger = one.pinger(two.address)
    before = pinger.answers()
    two.run("ip", "link", "set", "eth0", "down")
    wait_until(lambda: "no answer" in pinger._child.output(), within_s=20, what="a ping is lost")
    two.run("ip", "link", "set", "eth0", "up")
    wait_until(lambda: pinger.answers() > before + 5, within_s=20, what="pings are answered again")
    result = pinger.stop()
    assert result.lost >= 1
    assert result.longest_gap_s > 0.15
    assert result.sent >= result.lost + before


def test_an_undisturbed_series_of_pings_loses_nothing(pair: Network) -> None:
    pinger = pair.hosts["one"].pinger("198.51.100.2")
    wait_until(lambda: pinger.answers() > 10, within_s=20, what="ten answers")
    assert pinger.stop().lost == 0


def test_leaving_a_network_ends_even_what_outlived_its_parent() -> None:
    with Network() as network:
        one = network.add("one", "198.51.100.1/24")
        one.run("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! > orphan")
        orphan = Path("/proc", (one.directory / "orphan").read_text().strip(), "cmdline")
        assert orphan.read_bytes()
    # Where nobody reaps orphans a zombie is left, which has no command line.
    assert not orphan.exists() or not orphan.read_bytes()


def test_a_sweep_leaves_the_networks_of_the_living_alone(pair: Network) -> None:
    sweep()
    assert pair.hosts["one"].ping("198.51.100.2")


def test_a_child_is_killed_alone(pair: Network) -> None:
    child = pair.hosts["one"].start("sleep", "1000", name="sleep")
    assert child.running
    assert child.stop(signal.SIGTERM) == -signal.SIGTERM
