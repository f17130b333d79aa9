"""One machine in the clusters of two boxes, on real nebula: what befalls one of them leaves the other alone."""

from __future__ import annotations

import json
import os
import stat
from signal import SIGINT, SIGKILL
from typing import TYPE_CHECKING, Any

from tests.e2e.ground import APPLY_LIMIT_S, Box, Ground
from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from tests.e2e.network import Network

JOINED_LIMIT_S = 60.0


def test_what_befalls_one_cluster_leaves_the_other_alone(network: Network, program: tuple[str, ...]) -> None:
    ground = Ground(network, program)
    home, machine = ground.box, ground.machine("one")
    office = Box(network.add("office", "198.51.100.200/24"), program)
    home.quickstart()
    office.quickstart("--name", "office", "--network-cidr", "10.43.0.0/16")
    refuse = machine.host.directory / "refuse"
    wrapper = machine.host.directory / "nebula-wrapper"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" -test "*) [ -e {refuse} ] && {{ echo "the wrapper refuses this"; exit 1; }};; esac\n'
        'exec nebula "$@"\n'
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)

    def ask(*words: str) -> Any:
        done = machine.host.run(
            *program, "agent", *words, "--config-dir", machine.config, "-o", "json", check=False
        )
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}

    def seen() -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in ask("status").get("clusters", ())}

    def wait_for(cluster: str, state: str) -> dict[str, Any]:
        return wait_until(
            lambda: (shown := seen().get(cluster)) is not None and shown["state"] == state and shown,
            within_s=JOINED_LIMIT_S,
            what=f"{cluster} is {state}",
        )

    machine.join(home)
    wait_for("home", "ok")
    machine.host.run(
        *(*program, "join", *office.join_words, "--nebula", wrapper),
        *("--name", machine.name, "--config-dir", machine.config),
    )
    before = {name: wait_for(name, "ok") for name in ("home", "office")}
    assert before["home"]["nebula"]["pid"] != before["office"]["nebula"]["pid"]
    pinger = machine.host.pinger("10.42.0.1")
    wait_until(lambda: machine.host.ping("10.43.0.1"), within_s=JOINED_LIMIT_S, what="office answers, too")

    # A version that nebula refuses.
    refuse.touch()
    office.ask("node", "update", machine.name, "--mtu", 1400)
    assert "the wrapper refuses this" in wait_for("office", "failed")["error"]
    assert wait_for("home", "ok")["nebula"] == before["home"]["nebula"]
    outcomes = [(each["cluster"], each["what"]) for each in ask("log")["log"]]
    assert ("office", "failed") in outcomes
    assert ("home", "failed") not in outcomes

    # Its nebula dies.
    os.kill(before["office"]["nebula"]["pid"], SIGKILL)
    wait_until(
        lambda: seen()["office"]["nebula"]["pid"] not in (None, before["office"]["nebula"]["pid"]),
        within_s=JOINED_LIMIT_S,
        what="office's nebula is started again",
    )

    # Its control plane and its lighthouse are gone.
    office.stop(SIGINT)
    version = home.node(machine.name)["version"]
    home.set_policy({"port": 80, "proto": "tcp", "host": "any"})
    home.wait_applied(machine.name, version + 1, within_s=APPLY_LIMIT_S)
    shown = seen()
    assert shown["office"]["nebula"]["state"] == "running"
    assert (shown["home"]["state"], shown["home"]["nebula"]) == ("ok", before["home"]["nebula"])
    assert pinger.stop().lost == 0
