"""The command line against a real daemon: quickstart, then everything over the socket and over TLS with a pin."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parent.parent.parent
START_S = 30.0
PUBLIC = "192.0.2.1"


def environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("EDGEGC_")}
    return ours | {"PYTHONPATH": str(TOP), "COLUMNS": "80"}


def edgegc(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgegc", *arguments],
        env=environment() | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Box:
    """A data directory, and the quickstart that serves it."""

    data: Path
    port: int = field(default_factory=lambda: free_port(socket.SOCK_STREAM))
    udp_port: int = field(default_factory=lambda: free_port(socket.SOCK_DGRAM))
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return (self.data.parent / "out").read_text()

    @property
    def errors(self) -> str:
        return (self.data.parent / "err").read_text()

    def start(self, *extra: str) -> None:
        command = ["quickstart", "--data-dir", self.data, "--listen", f"127.0.0.1:{self.port}", *extra]
        command += ["--public", f"{PUBLIC}:{self.udp_port}", "--public-url", self.url]
        with (self.data.parent / "out").open("w") as out, (self.data.parent / "err").open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgegc", *command],
                env=environment(),
                stdout=out,
                stderr=err,
                text=True,
            )

    def wait_for(self, condition: Any, what: str) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while not condition():
            assert self.process.poll() is None, f"ended while waiting for {what}: {self.errors}"
            assert time.monotonic() < deadline, f"no {what}: {self.output} {self.errors}"
            time.sleep(0.02)

    def wait_until_set_up(self) -> None:
        self.wait_for(lambda: "edgegc join" in self.output, "join command")
        self.wait_for(lambda: not (self.data / "quickstart.json").exists(), "end of the plan")

    def stop(self, number: int = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return edgegc(*arguments, "--data-dir", self.data)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def remote(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        token = (self.data / "operator.token").read_text().strip()
        environ = {"EDGEGC_URL": self.url, "EDGEGC_TOKEN": token, "EDGEGC_PIN": self.join_words()[5]}
        return edgegc(*arguments, **(environ | changes))

    def join_words(self) -> list[str]:
        [line] = [line for line in self.output.splitlines() if line.startswith("edgegc join")]
        return line.split()[1:]


@contextmanager
def new_box() -> Iterator[Box]:
    # Not below tmp_path, which is closed to the user that lighthouses run as.
    with tempfile.TemporaryDirectory(prefix="edgegc-cli-") as directory:
        Path(directory).chmod(0o711)
        box = Box(Path(directory) / "data")
        try:
            yield box
        finally:
            if box.process is not None:
                box.stop()


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with new_box() as box:
        box.start()
        box.wait_until_set_up()
        yield box


@pytest.fixture
def fresh() -> Iterator[Box]:
    with new_box() as box:
        yield box


def test_quickstart_prints_one_join_command_and_where_the_token_is(box: Box) -> None:
    words = box.join_words()
    assert words[:2] == ["join", box.url]
    assert (words[2], words[3][:4], words[4]) == ("--key", "egk_", "--pin")
    assert len(words[5]) == 64
    assert len(words) == 6
    assert box.output.count("edgegc join") == 1
    token = box.data / "operator.token"
    assert f"The operator token is in {token}" in box.output
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text().startswith("ega_")


def test_quickstart_makes_one_tenant_one_cluster_and_a_lighthouse(box: Box) -> None:
    assert [each["name"] for each in box.json("tenant", "list")["tenants"]] == ["home"]
    [cluster] = box.json("cluster", "list")["clusters"]
    assert cluster["provide_lighthouse"] is True
    assert cluster["lighthouse_public_addresses"] == [f"{PUBLIC}:{box.udp_port}"]
    box.wait_for(
        lambda: [each["state"] for each in box.json("lighthouse", "list")["lighthouses"]] == ["running"],
        "running lighthouse",
    )


def test_a_node_is_created_shown_changed_and_deleted_by_name(box: Box) -> None:
    made = box.json("node", "create", "pi-7", "--groups", "sensors,floor-2", "--listen-port", "4300")
    assert made["groups"] == ["sensors", "floor-2"]
    assert made["node_token"].startswith("egn_")
    changed = box.json("node", "update", "pi-7", "--mtu", "1400", "--listen-port", "auto")
    assert (changed["mtu"], changed["listen_port"]) == (1400, None)
    assert box.json("node", "show", "pi-7")["id"] == made["id"]
    token = box.run("node", "rotate-token", "pi-7", "--quiet").stdout
    assert token.startswith("egn_")
    assert token.count("\n") == 1
    assert "pi-7" in box.run("node", "list").stdout
    assert box.run("node", "delete", made["id"]).returncode == 0
    assert box.run("node", "show", "pi-7").returncode == 4


def test_a_cluster_and_its_tenant_are_deleted_by_name_lighthouse_and_files_too(box: Box) -> None:
    port = str(free_port(socket.SOCK_DGRAM))
    box.json("tenant", "create", "guest")
    network = ("--network-cidr", "10.77.0.0/16", "--provide-lighthouse", "--lighthouse-port", port)
    made = box.json("cluster", "create", "lab", "--tenant", "guest", *network)
    box.json("node", "create", "pi-1", "--cluster", "lab")

    def states() -> dict[str, str]:
        return {each["name"]: each["state"] for each in box.json("lighthouse", "list")["lighthouses"]}

    box.wait_for(lambda: states().get("lab") == "running", "second lighthouse")
    directory = box.data / "lighthouses" / made["id"]
    assert directory.exists()
    for noun, name in (("tenant", "guest"), ("cluster", "lab")):
        refused = box.run(noun, "delete", name)
        assert refused.returncode == 3
        assert refused.stderr.endswith("; --cascade does it all the same\n")
    assert box.run("cluster", "delete", "lab", "--cascade").returncode == 0
    box.wait_for(lambda: "lab" not in states() and not directory.exists(), "end of the second lighthouse")
    assert box.run("cluster", "show", "lab").returncode == 4
    assert box.run("tenant", "delete", "guest").returncode == 0
    assert [each["name"] for each in box.json("tenant", "list")["tenants"]] == ["home"]


def test_routes_show_up_in_list_and_topology(box: Box) -> None:
    box.json("node", "create", "gate")
    assert box.json("route", "set", "gate", "192.168.7.0/24")["routes"] == ["192.168.7.0/24"]
    assert "192.168.7.0/24" in box.run("route", "list").stdout
    topology = box.json("topology")
    assert [each["routes"] for each in topology["routes"]] == [["192.168.7.0/24"]]
    assert [each["node_id"] for each in topology["lighthouses"]] == [None]
    assert box.run("node", "delete", "gate").returncode == 0


def test_a_policy_is_shown_previewed_and_set_from_a_file_of_each_kind(box: Box, tmp_path: Path) -> None:
    before = box.json("policy", "show")
    assert "anybody" in box.run("policy", "show").stdout
    node = box.json("node", "create", "ruled", "--groups", "web")
    rules = {"inbound": [{"port": "443", "proto": "tcp", "groups": ["ops"], "on_groups": ["web"]}]}
    files = {
        "rules.json": json.dumps(rules | {"outbound": []}),
        "rules.yml": "inbound:\n- {port: 443, proto: tcp, groups: [ops], on_groups: [web]}\noutbound: []\n",
        "rules.toml": "outbound = []\n[[inbound]]\nport = 443\nproto = 'tcp'\ngroups = ['ops']\non_groups = ['web']\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        # Who has sent no key yet has no bundle that could change.
        changes = rules | {"outbound": [], "nodes": [], "signed_again": []}
        assert box.json("policy", "set", str(tmp_path / name), "--dry-run") == changes
        assert box.json("policy", "set", str(tmp_path / name)) == changes
    assert box.json("policy", "show") == rules | {"outbound": []}
    assert "groups ops" in box.run("policy", "show").stdout
    (tmp_path / "bad.yml").write_text(
        "inbound:\n- {port: 443, proto: tcp, host: any, prot: x}\noutbound: []\n"
    )
    refused = box.run("policy", "set", str(tmp_path / "bad.yml"))
    assert refused.returncode == 2
    assert "inbound[0]" in refused.stderr
    assert "prot" in refused.stderr
    (tmp_path / "before.json").write_text(json.dumps(before))
    assert box.run("policy", "set", str(tmp_path / "before.json")).returncode == 0
    assert box.json("policy", "show") == before
    assert box.run("node", "delete", node["id"]).returncode == 0


def test_keys_and_tokens_are_made_listed_and_revoked(box: Box) -> None:
    join = box.run("key", "create", "--uses", "unlimited", "--label", "lab", "--show-join").stdout.split()
    assert join[:3] == ["edgegc", "join", box.url]
    assert join[5:] == ["--pin", box.join_words()[5]]
    [key] = [each for each in box.json("key", "list")["enrollment_keys"] if each["label"] == "lab"]
    assert key["uses"] is None
    assert box.run("key", "revoke", key["id"]).returncode == 0
    token = box.json("token", "create", "--scopes", "metrics", "--label", "prometheus")
    assert token["token"].startswith("ega_")
    assert "prometheus" in box.run("token", "list").stdout
    assert box.remote("node", "list", EDGEGC_TOKEN=token["token"]).returncode == 3
    assert box.run("token", "revoke", token["id"]).returncode == 0


def test_every_command_works_over_tls_with_token_and_pin(box: Box) -> None:
    for arguments in (
        ["node", "list"],
        ["cluster", "show"],
        ["topology"],
        ["policy", "show"],
        ["rollout"],
        ["lighthouse", "list"],
        ["status"],
    ):
        done = box.remote(*arguments, "-o", "json")
        assert (done.returncode, done.stderr) == (0, ""), arguments
        json.loads(done.stdout)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"EDGEGC_PIN": "00" * 32}, 3, "pin"),
        ({"EDGEGC_PIN": ""}, 3, "certificate"),
        ({"EDGEGC_TOKEN": "ega_" + "0" * 32 + "_" + "x" * 43}, 3, ""),
        ({"EDGEGC_URL": "https://127.0.0.1:1"}, 5, "127.0.0.1:1"),
    ],
)
def test_who_is_not_let_in_learns_it_by_exit_code_and_one_line(
    box: Box, changes: dict[str, str], code: int, words: str
) -> None:
    done = box.remote("node", "list", **changes)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["node", "create", "bad", "--mtu", "100"], 2, "mtu"),
        (["node", "create", "not a name"], 2, "name"),
        (["cluster", "create", "home", "--network-cidr", "10.43.0.0/16"], 3, "home"),
        (["cluster", "create", "big", "--network-cidr", "nonsense"], 2, "network_cidr"),
        (["node", "show", "nobody"], 4, "nobody"),
        (["cluster", "show", "nowhere"], 4, "nowhere"),
        (["node", "show", "5b1f6f0e-8c39-4be9-9d3b-1a3c0e1f7a52"], 4, "node"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_one_line_that_names_the_field(
    box: Box, arguments: list[str], code: int, words: str
) -> None:
    done = box.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_waiting_for_a_rollout_that_no_node_is_there_for_says_so(box: Box) -> None:
    node = box.json("node", "create", "absent")
    done = box.run("rollout", "--wait", "--timeout", "0.5")
    assert done.returncode == 1
    assert re.fullmatch(r"edgegc: after 0.5 s no node is online: [0-9]+ are offline\n", done.stderr)
    assert box.run("node", "delete", node["id"]).returncode == 0


def test_tables_stay_within_80_columns(box: Box) -> None:
    box.json(
        "node", "create", "a-node-with-a-rather-long-name-behind-the-boiler", "--groups", "sensors,floor-2"
    )
    for arguments in (
        ["node", "list"],
        ["lighthouse", "list"],
        ["cluster", "list"],
        ["key", "list"],
        ["status"],
    ):
        lines = box.run(*arguments).stdout.splitlines()
        assert lines, arguments
        assert max(map(len, lines)) <= 80, lines
    assert box.run("node", "delete", "a-node-with-a-rather-long-name-behind-the-boiler").returncode == 0


def test_a_second_quickstart_only_serves_and_says_how_to_make_a_key(fresh: Box) -> None:
    fresh.start()
    fresh.wait_until_set_up()
    assert fresh.stop(signal.SIGTERM) == 0
    fresh.start()
    fresh.wait_for(lambda: "is up" in fresh.errors, "second start")
    assert fresh.run("cluster", "list").returncode == 0
    assert fresh.output == ""
    assert "'edgegc key create --show-join' prints the command" in fresh.errors


@pytest.mark.parametrize("mark", ["quickstart.json", "edgegc.db", "admin.sock", "operator.token"])
def test_a_quickstart_that_was_killed_half_way_is_completed_by_the_next(fresh: Box, mark: str) -> None:
    fresh.start()
    fresh.wait_for(lambda: (fresh.data / mark).exists(), mark)
    assert fresh.process is not None
    fresh.process.kill()
    fresh.process.wait()
    planned = (fresh.data / "quickstart.json").exists()
    fresh.start()
    if planned:
        fresh.wait_until_set_up()
        assert fresh.remote("node", "list").returncode == 0
    else:  # it was quicker than the test
        fresh.wait_for(lambda: "is up" in fresh.errors, "second start")
    assert [each["name"] for each in fresh.json("tenant", "list")["tenants"]] == ["home"]
    assert [each["name"] for each in fresh.json("cluster", "list")["clusters"]] == ["home"]
    assert len(fresh.json("token", "list")["api_tokens"]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs lighthouses as another user")
def test_a_data_directory_that_the_lighthouses_user_cannot_reach_is_told(fresh: Box) -> None:
    fresh.data.parent.chmod(0o700)
    fresh.start()
    fresh.wait_until_set_up()
    fresh.wait_for(lambda: "the lighthouse is " in fresh.errors, "the sentence")
    assert f"can't pass through {fresh.data.parent}: chmod o+x" in fresh.errors
    fresh.data.parent.chmod(0o711)
    fresh.wait_for(
        lambda: [each["state"] for each in fresh.json("lighthouse", "list")["lighthouses"]] == ["running"],
        "running lighthouse",
    )


def test_a_second_daemon_on_the_same_directory_is_refused(box: Box) -> None:
    done = edgegc("serve", "--data-dir", box.data, "--listen", "127.0.0.1:0")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("edgegc: ")
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_a_clear_exit(box: Box, tmp_path: Path) -> None:
    done = edgegc("serve", "--data-dir", tmp_path / "data", "--listen", f"127.0.0.1:{box.port}")
    assert done.returncode != 0
    assert f"127.0.0.1:{box.port} is taken" in done.stderr
    assert "Traceback" not in done.stderr
