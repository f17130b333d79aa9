"""The main job on real nebula: a box, two machines that join with one command each, and nothing that dies cuts them off."""

from __future__ import annotations

import stat
import time
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

import pytest

from edgegc.agent.pace import LONGEST_BACKOFF_S
from tests.e2e.ground import APPLY_LIMIT_S, Ground
from tests.e2e.network import holds_for, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.ground import Machine
    from tests.e2e.network import Network, Pinger

JOINED_LIMIT_S = 10.0
"""From the second join to the first ping."""
CUT_LIMIT_S = 15.0
"""From a node's deletion to the end of its tunnels."""
OUTAGE_S = 30.0
"""How long the control plane is away: several times the agents' patience for one poll."""
FAILED_LIMIT_S = 180.0
"""Proof of the new version (30 s), of the old one (as long), and what reports take; on a busy machine."""


@pytest.fixture
def ground(network: Network, program: tuple[str, ...], nebula: Path) -> Ground:
    """A box that runs, and two machines that have not joined yet."""
    network.environment["PATH"] = f"{nebula.parent}:{network.environment['PATH']}"
    ground = Ground(network, program)
    ground.box.quickstart()
    ground.machine("one")
    ground.machine("two")
    return ground


@pytest.fixture
def joined(ground: Ground) -> Ground:
    """The same, after both joins, each node reaching the other."""
    for machine in ground.machines:
        machine.join(ground.box)
    reach_each_other(ground)
    return ground


def reach_each_other(ground: Ground, *, within_s: float = 60.0) -> None:
    one, two = ground.machines
    for machine in ground.machines:
        wait_until(
            lambda name=machine.name: (
                name in {node["name"] for node in ground.box.ask("node", "list")["nodes"]}
            ),
            within_s=within_s,
            what=f"{machine.name} has joined",
        )
    address = ground.overlay_ip(two)
    wait_until(lambda: one.host.ping(address), within_s=within_s, what="one reaches two over the overlay")
    for machine in ground.machines:
        ground.box.wait_applied(machine.name, 1)


def pinging(ground: Ground) -> Pinger:
    one, two = ground.machines
    return one.host.pinger(ground.overlay_ip(two))


def versions(ground: Ground) -> dict[str, tuple[int, int]]:
    nodes = ground.box.ask("node", "list")["nodes"]
    return {node["name"]: (node["version"], node["applied_version"]) for node in nodes}


def test_two_machines_that_join_with_one_command_each_reach_each_other(ground: Ground) -> None:
    one, two = ground.machines
    one.join(ground.box)
    wait_until(lambda: one.status().get("state") == "ok", within_s=60, what="one has joined")
    two.join(ground.box)
    started = time.monotonic()
    wait_until(lambda: len(ground.box.ask("node", "list")["nodes"]) == 2, within_s=60, what="two has joined")
    address = ground.overlay_ip(two)
    remaining_s = JOINED_LIMIT_S - (time.monotonic() - started)
    wait_until(lambda: one.host.ping(address), within_s=remaining_s, what="one reaches two")


def test_a_new_mtu_arrives_at_its_node_and_nowhere_else(joined: Ground) -> None:
    one, two = joined.machines
    before, nebula = versions(joined), two.nebula_pid()
    pinger = pinging(joined)
    wanted = joined.box.ask("node", "update", "one", "--mtu", 1400)["version"]
    joined.box.wait_applied("one", wanted)
    assert one.overlay_device()["mtu"] == 1400
    assert two.overlay_device()["mtu"] == 1300
    assert versions(joined)["two"] == before["two"]
    assert two.nebula_pid() == nebula
    assert pinger.stop().longest_gap_s < 5.0


def test_a_route_that_is_announced_appears_in_the_kernel_of_the_other_node(joined: Ground) -> None:
    one, two = joined.machines
    pinger = pinging(joined)
    joined.box.ask("route", "set", "one", "192.168.77.0/24")
    wait_until(
        lambda: "192.168.77.0/24" in two.host.routes(), within_s=APPLY_LIMIT_S, what="two has the route"
    )
    assert two.host.routes()["192.168.77.0/24"]["dev"] == two.overlay_device()["ifname"]
    assert "192.168.77.0/24" not in one.host.routes()
    joined.box.ask("route", "set", "one")
    wait_until(
        lambda: "192.168.77.0/24" not in two.host.routes(), within_s=APPLY_LIMIT_S, what="the route is gone"
    )
    assert pinger.stop().longest_gap_s < 5.0


def test_a_renamed_node_makes_nobody_download_anything(joined: Ground) -> None:
    def on_disk(machine: Machine) -> set[Path]:
        return set(machine.config.rglob("host.crt"))

    before, files = versions(joined), [on_disk(machine) for machine in joined.machines]
    pinger = pinging(joined)
    joined.box.ask("node", "update", "one", "--name", "uno")
    holds_for(
        lambda: versions(joined) == {"uno": before["one"], "two": before["two"]},
        for_s=5.0,
        what="no version changes",
    )
    assert [on_disk(machine) for machine in joined.machines] == files
    assert pinger.stop().lost == 0


def test_a_lighthouse_that_is_killed_is_back_and_no_ping_is_lost(joined: Ground) -> None:
    box = joined.box
    pinger = pinging(joined)
    dead = box.lighthouse()["pid"]
    box.host.run("kill", "-9", dead)
    wait_until(
        lambda: box.lighthouse()["pid"] not in (None, dead) and box.lighthouse_answers(),
        within_s=20,
        what="another lighthouse answers",
    )
    assert box.lighthouse()["state"] == "running"
    assert pinger.stop().lost == 0


def test_a_control_plane_that_is_away_or_killed_takes_nothing_with_it(joined: Ground) -> None:
    box = joined.box
    lighthouse = box.lighthouse()["pid"]
    nebulas = [machine.nebula_pid() for machine in joined.machines]
    pinger = pinging(joined)

    box.stop(SIGTERM)
    answered = pinger.answers()
    holds_for(box.lighthouse_answers, for_s=OUTAGE_S, what="the lighthouse answers without its daemon")
    assert pinger.answers() > answered + OUTAGE_S
    box.serve()
    wait_until(lambda: box.lighthouse()["pid"] == lighthouse, within_s=20, what="the lighthouse is adopted")

    box.stop(SIGKILL)
    assert box.lighthouse_answers()
    box.serve()
    wait_until(lambda: box.lighthouse()["pid"] == lighthouse, within_s=20, what="it is adopted again")

    assert [machine.nebula_pid() for machine in joined.machines] == nebulas
    assert pinger.stop().lost == 0
    wanted = box.ask("node", "update", "two", "--mtu", 1400)["version"]
    # An agent that found nobody for long may pause for as long before it asks again.
    box.wait_applied("two", wanted, within_s=LONGEST_BACKOFF_S + APPLY_LIMIT_S)
    assert joined.machines[1].overlay_device()["mtu"] == 1400


def test_a_deleted_node_is_cut_off_on_the_other_side(joined: Ground) -> None:
    one, two = joined.machines
    address = joined.overlay_ip(two)
    assert one.host.ping(address)
    # Its agent gone, it goes on with what it has: the cut must come from the others.
    two.stop_agent(SIGKILL)
    joined.box.ask("node", "delete", "two")
    wait_until(lambda: not one.host.ping(address), within_s=CUT_LIMIT_S, what="the tunnel is cut")
    holds_for(lambda: not one.host.ping(address), for_s=3.0, what="it stays cut")


def test_a_version_that_nebula_refuses_is_reported_and_the_old_one_stays(ground: Ground) -> None:
    one, two = ground.machines
    refuse = one.host.directory / "refuse"
    wrapper = one.host.directory / "nebula-wrapper"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" -test "*) [ -e {refuse} ] && {{ echo "the wrapper refuses this"; exit 1; }};; esac\n'
        'exec nebula "$@"\n'
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    one.join(ground.box, "--nebula", wrapper)
    two.join(ground.box)
    reach_each_other(ground)
    before, nebula = ground.box.node("one")["applied_version"], one.nebula_pid()
    pinger = pinging(ground)

    refuse.touch()
    ground.box.ask("node", "update", "one", "--mtu", 1400)
    failed = wait_until(
        lambda: (node := ground.box.node("one"))["state"] == "failed" and node,
        within_s=APPLY_LIMIT_S,
        what="the node is reported as failed",
    )
    assert "the wrapper refuses this" in failed["error"]
    assert failed["applied_version"] == before
    assert one.overlay_device()["mtu"] == 1300
    assert one.nebula_pid() == nebula
    assert pinger.stop().lost == 0

    refuse.unlink()
    wanted = ground.box.ask("node", "update", "one", "--mtu", 1350)["version"]
    ground.box.wait_applied("one", wanted)
    assert one.overlay_device()["mtu"] == 1350


def test_a_version_that_loses_all_lighthouses_is_backed_out_of_by_every_node(joined: Ground) -> None:
    before = versions(joined)
    joined.box.ask("cluster", "update", "--lighthouse-public-addresses", "198.51.100.250:4242")
    for machine in joined.machines:
        failed = wait_until(
            lambda name=machine.name: (node := joined.box.node(name))["state"] == "failed" and node,
            within_s=FAILED_LIMIT_S,
            what=f"{machine.name} is reported as failed",
        )
        assert failed["applied_version"] == before[machine.name][1]
        assert "lighthouse" in failed["error"]
    one, two = joined.machines
    wait_until(
        lambda: one.host.ping(joined.overlay_ip(two)), within_s=30, what="the nodes still reach each other"
    )
    listed = joined.box.host.run(*joined.box.command("node", "list")).stdout
    assert listed.count("failed") >= 2

    joined.box.ask("cluster", "update", "--lighthouse-public-addresses", "198.51.100.1:4242")
    for machine in joined.machines:
        wanted = joined.box.node(machine.name)["version"]
        joined.box.wait_applied(machine.name, wanted)


def test_an_agent_that_is_killed_leaves_its_nebula_running_and_finds_it_again(joined: Ground) -> None:
    one, _ = joined.machines
    nebula = one.nebula_pid()
    pinger = pinging(joined)
    one.stop_agent(SIGKILL)
    holds_for(lambda: one.host.run("kill", "-0", nebula).returncode == 0, for_s=2.0, what="nebula lives on")
    one.start_agent()
    wait_until(
        lambda: one.status().get("state") == "ok" and one.nebula_pid() == nebula,
        within_s=30,
        what="the agent has adopted its nebula",
    )
    assert pinger.stop().lost == 0
    wanted = joined.box.ask("node", "update", "one", "--mtu", 1400)["version"]
    joined.box.wait_applied("one", wanted)
    assert one.overlay_device()["mtu"] == 1400
