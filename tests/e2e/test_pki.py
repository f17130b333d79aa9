"""Certificates that look after themselves, on real nebula: a new CA, lives of a minute, revocation; nobody is cut off by it."""

from __future__ import annotations

import json
import time
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.ground import APPLY_LIMIT_S, Ground
from tests.e2e.network import holds_for, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.ground import Machine
    from tests.e2e.network import Network, Pings

CUT_LIMIT_S = 15.0
"""From a node's deletion to the end of its tunnels, on every other node."""
LONGEST_GAP_S = 1.0
LOST_PER_PINGS = 1_000
"""At most one ping is lost of so many, and of fewer."""
LIFETIME_S = 60
RENEWALS = 3


@pytest.fixture
def ground(network: Network, program: tuple[str, ...], nebula: Path) -> Ground:
    """A box that runs, and three machines that reach each other."""
    network.environment["PATH"] = f"{nebula.parent}:{network.environment['PATH']}"
    ground = Ground(network, program)
    ground.box.quickstart()
    for name in ("one", "two", "three"):
        ground.machine(name).join(ground.box)
    for machine in ground.machines:
        wait_until(
            lambda name=machine.name: name in certificates(ground),
            within_s=60,
            what=f"{machine.name} has joined",
        )
    for machine in ground.machines:
        ground.box.wait_applied(machine.name, 1)
    one, *others = ground.machines
    for other in others:
        address = ground.overlay_ip(other)
        wait_until(lambda to=address: one.host.ping(to), within_s=60, what=f"one reaches {other.name}")
    return ground


def certificates(ground: Ground) -> dict[str, str]:
    """Return the fingerprint of each node's newest certificate."""
    nodes = ground.box.ask("node", "list")["nodes"]
    return {node["name"]: node["certificate"]["fingerprint"] for node in nodes if node["certificate"]}


def running(machine: Machine) -> dict[str, Any]:
    """Return what nebula-cert says of the certificate in force."""
    (path,) = machine.config.glob("*/current/host.crt")
    shown = json.loads(machine.host.run("nebula-cert", "print", "-json", "-path", path).stdout)
    found: dict[str, Any] = shown[0] if isinstance(shown, list) else shown
    return found


def trusted(machine: Machine) -> int:
    """Return how many authorities a machine trusts."""
    (path,) = machine.config.glob("*/current/ca.crt")
    return path.read_text().count("BEGIN NEBULA CERTIFICATE")


def hardly_lost(pings: Pings) -> bool:
    return pings.lost <= 1 + pings.sent // LOST_PER_PINGS and pings.longest_gap_s <= LONGEST_GAP_S


@pytest.mark.long
def test_a_ca_is_rotated_under_a_running_network(ground: Ground) -> None:
    box, (one, two, three) = ground.box, ground.machines
    before = box.ask("cluster", "rotate-ca")
    pingers = [one.host.pinger(ground.overlay_ip(other)) for other in (two, three)]
    pingers.append(two.host.pinger(ground.overlay_ip(three)))

    def step(name: str) -> Any:
        return box.ask("cluster", "rotate-ca", "--step", name, "--wait", "--timeout", APPLY_LIMIT_S)

    prepared = step("prepare")
    assert (prepared["phase"], prepared["waiting_for"], prepared["ready"]) == ("prepared", [], True)
    assert [trusted(machine) for machine in ground.machines] == [2, 2, 2]
    issued = step("issue")
    assert issued["phase"] == "issued"
    assert {running(machine)["details"]["issuer"] for machine in ground.machines} == {
        prepared["new_fingerprint"]
    }
    retired = step("retire")
    assert retired["phase"] == "none"
    assert retired["old_fingerprint"] == prepared["new_fingerprint"] != before["old_fingerprint"]
    assert [trusted(machine) for machine in ground.machines] == [1, 1, 1]

    # Whatever was left of tunnels under the old authority is cut within seconds, and made again.
    answered = [pinger.answers() for pinger in pingers]
    wait_until(
        lambda: all(p.answers() > n + 200 for p, n in zip(pingers, answered, strict=True)),
        within_s=60,
        what="pings go on for 20 s",
    )
    for pinger in pingers:
        pings = pinger.stop()
        assert hardly_lost(pings), pings
    late = ground.machine("late")
    late.join(box)
    wait_until(lambda: "late" in certificates(ground), within_s=60, what="late has joined")
    wait_until(
        lambda: late.host.ping(ground.overlay_ip(one)), within_s=60, what="a newcomer reaches the others"
    )


@pytest.mark.long
def test_a_machine_that_was_off_for_two_steps_of_a_rotation_follows(ground: Ground) -> None:
    box, (one, _, three) = ground.box, ground.machines
    three.stop_agent(SIGKILL)
    box.ask("cluster", "rotate-ca", "--step", "prepare")
    refused = box.host.run(*box.command("cluster", "rotate-ca", "--step", "issue"), check=False)
    assert refused.returncode == 3
    assert "three" in refused.stderr
    for name in ("one", "two"):
        box.wait_applied(name, box.node(name)["version"])
    issued = box.ask("cluster", "rotate-ca", "--step", "issue", "--force")
    three.start_agent()
    box.ask("cluster", "rotate-ca", "--wait", "--timeout", APPLY_LIMIT_S)
    assert running(three)["details"]["issuer"] == issued["new_fingerprint"]
    box.ask("cluster", "rotate-ca", "--step", "retire", "--wait", "--timeout", APPLY_LIMIT_S)
    wait_until(lambda: one.host.ping(ground.overlay_ip(three)), within_s=30, what="one reaches three")


@pytest.mark.long
def test_certificates_of_a_minute_renew_by_themselves(ground: Ground) -> None:
    box, (one, two, _) = ground.box, ground.machines
    box.ask("cluster", "update", "--certificate-lifetime-s", LIFETIME_S)
    # The next signing is the first of the short ones: a change of groups brings it.
    for machine in ground.machines:
        version = box.ask("node", "update", machine.name, "--groups", "short")["version"]
        box.wait_applied(machine.name, version)
    seen: dict[str, list[str]] = {machine.name: [] for machine in ground.machines}

    def look() -> bool:
        for machine in ground.machines:
            fingerprint = running(machine)["fingerprint"]
            if fingerprint not in seen[machine.name]:
                seen[machine.name].append(fingerprint)
        return all(len(found) > RENEWALS for found in seen.values())

    pinger = one.host.pinger(ground.overlay_ip(two))
    wait_until(look, within_s=(RENEWALS + 1) * LIFETIME_S, what="every certificate was renewed three times")
    # Had one of them not been taken, its tunnel would be cut when it ends.
    holds_for(lambda: not time.sleep(1), for_s=LIFETIME_S / 3, what="time passes")
    pings = pinger.stop()
    assert hardly_lost(pings), pings
    assert box.ask("rollout")["nodes"]["online"] == 3


def test_a_revoked_node_is_cut_off_everywhere(ground: Ground) -> None:
    box, (one, two, three) = ground.box, ground.machines
    address = ground.overlay_ip(three)
    fingerprint = running(three)["fingerprint"]
    assert all(machine.host.ping(address) for machine in (one, two))
    # Its agent gone, it goes on with what it has: the cut must come from the others.
    three.stop_agent(SIGKILL)
    started = time.monotonic()
    box.ask("node", "delete", "three")
    for machine in (one, two):
        wait_until(
            lambda host=machine.host: not host.ping(address),
            within_s=CUT_LIMIT_S - (time.monotonic() - started),
            what=f"{machine.name} no longer reaches three",
        )
    for machine in (one, two):
        holds_for(lambda host=machine.host: not host.ping(address), for_s=3.0, what="it stays cut")
        (config,) = machine.config.glob("*/current/nebula.yml")
        assert fingerprint in config.read_text()
    lighthouse = next((box.data / "lighthouses").glob("*/config.yml"))
    assert fingerprint in lighthouse.read_text()


@pytest.mark.long
def test_a_certificate_that_was_replaced_by_a_lesser_one_is_blocklisted_when_its_node_runs_that(
    ground: Ground,
) -> None:
    box, (one, two, _) = ground.box, ground.machines
    old = box.ask("node", "update", "one", "--groups", "web,db")
    box.wait_applied("one", old["version"])
    first = running(one)["fingerprint"]
    lesser = box.ask("node", "update", "one", "--groups", "web")
    box.wait_applied("one", lesser["version"])

    def listed() -> bool:
        (config,) = two.config.glob("*/current/nebula.yml")
        return first in config.read_text()

    # Its grace is ten minutes: it is the report that brings the second step.
    wait_until(listed, within_s=APPLY_LIMIT_S, what="the replaced certificate is on the others' blocklist")
    wait_until(
        lambda: one.host.ping(ground.overlay_ip(two)),
        within_s=30,
        what="one is taken with its new certificate",
    )
