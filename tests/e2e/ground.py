"""edgegc on the network: a box that runs the control plane, machines that run agents. As an operator would drive them."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from pathlib import Path
    from signal import Signals

    from tests.e2e.network import Child, Host, Network

START_LIMIT_S = 60.0
"""A first start unpacks the file and makes keys; on a busy machine that takes its time."""
JOIN_LIMIT_S = 30.0
APPLY_LIMIT_S = 45.0
"""From an answered write to its proof on the nodes: a second or two, and then a lot for a busy machine."""
API_PORT = 8443
ANYTHING = {"port": "any", "proto": "any", "host": "any"}
LIGHTHOUSE_PORT = 4242


class Box:
    """The machine with the control plane."""

    def __init__(self, host: Host, program: tuple[str, ...]) -> None:
        self.host = host
        self.data = host.directory / "data"
        self._program = program
        self._daemon: Child | None = None
        self.join_words: list[str] = []

    def quickstart(self, *options: object) -> None:
        """Run the one command that makes a control plane, until it has said how machines join and is ready."""
        self._daemon = daemon = self.host.start(
            *self._program,
            "quickstart",
            *("--data-dir", self.data),
            *("--listen", f"0.0.0.0:{API_PORT}"),
            *("--public", f"{self.host.address}:{LIGHTHOUSE_PORT}"),
            *("--public-url", f"https://{self.host.address}:{API_PORT}"),
            *options,
            name="daemon",
        )
        command = wait_until(
            lambda: (
                self._alive() and re.search(r"edgegc\S* join (\S+ --key \S+(?: --pin \S+)?)", daemon.output())
            ),
            within_s=START_LIMIT_S,
            what="quickstart prints how to join",
        )
        self.join_words = command[1].split()
        self._wait_ready()

    def serve(self) -> None:
        """Start the control plane again, as a service manager would."""
        self._daemon = self.host.start(*self._program, "serve", "--data-dir", self.data, name="daemon")
        self._wait_ready()

    def stop(self, number: Signals) -> None:
        """End the control plane with a signal."""
        assert self._daemon is not None
        self._daemon.stop(number)

    def command(self, *words: object) -> tuple[object, ...]:
        """Return the complete command of a question to this box, over its admin socket."""
        return (*self._program, *words, "--data-dir", self.data)

    def ask(self, *words: object) -> Any:
        """Run a command and return its JSON."""
        done = self.host.run(*self.command(*words), "-o", "json")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def node(self, name: str) -> dict[str, Any]:
        """Return a node as the API shows it."""
        found: dict[str, Any] = self.ask("node", "show", name)
        return found

    def lighthouse(self) -> dict[str, Any]:
        """Return the box's own lighthouse as the API shows it."""
        (found,) = self.ask("lighthouse", "list")["lighthouses"]
        return dict(found)

    def lighthouse_answers(self) -> bool:
        """Tell whether a live nebula answers on the lighthouse's UDP port."""
        return answers_probe(self.host, LIGHTHOUSE_PORT)

    def set_policy(self, *inbound: dict[str, object]) -> None:
        """Let in this and nothing else, and wait until every node that it changes runs it."""
        path = self.host.directory / "policy.json"
        path.write_text(json.dumps({"inbound": inbound, "outbound": [ANYTHING]}))
        preview = self.ask("policy", "set", path, "--dry-run")
        self.ask("policy", "set", path)
        for each in preview["nodes"]:
            version = self.node(each["name"])["version"]
            assert self.wait_applied(each["name"], version)["error"] is None

    def wait_applied(self, name: str, version: int, *, within_s: float = APPLY_LIMIT_S) -> dict[str, Any]:
        """Wait until a node runs a version, or a later one, and is well."""

        def there() -> dict[str, Any] | None:
            node = self.node(name)
            return node if (node["applied_version"] or 0) >= version and node["state"] == "online" else None

        return wait_until(there, within_s=within_s, what=f"{name} runs version {version}")

    def _wait_ready(self) -> None:
        socket_path = self.data / "admin.sock"
        wait_until(
            lambda: self._alive() and get_over_socket(socket_path, "/health/ready") == 200,
            within_s=START_LIMIT_S,
            what="the control plane is ready",
        )

    def _alive(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.running, f"the daemon ended:\n{self._daemon.output()}"
        return True


class Machine:
    """A machine that joins as a node and runs the agent."""

    def __init__(self, host: Host, program: tuple[str, ...]) -> None:
        self.host = host
        self.config = host.directory / "agent"
        self.name = host.name
        self._program = program
        self._agent: Child | None = None

    def join(self, box: Box, *options: object) -> None:
        """Run the one command that makes the machine a node and its agent run."""
        self._agent = self.host.start(
            *self._program,
            "join",
            *box.join_words,
            *("--name", self.name, "--config-dir", self.config, "--start"),
            *options,
            name="agent",
        )

    def start_agent(self) -> None:
        """Start the agent, as a service manager would."""
        self._agent = self.host.start(*self._program, "agent", "--config-dir", self.config, name="agent")

    def stop_agent(self, number: Signals) -> None:
        """End the agent with a signal."""
        assert self._agent is not None
        self._agent.stop(number)

    def status(self) -> dict[str, Any]:
        """Return what the agent says of its only cluster; empty while it knows none."""
        done = self.host.run(
            *self._program, "agent", "status", "--config-dir", self.config, "-o", "json", check=False
        )
        clusters = json.loads(done.stdout)["clusters"] if done.returncode == 0 and done.stdout.strip() else []
        return dict(clusters[0]) if clusters else {}

    def nebula_pid(self) -> int:
        """Return the process id of the nebula that carries the traffic."""
        return int(
            wait_until(
                lambda: (self.status().get("nebula") or {}).get("pid"),
                within_s=JOIN_LIMIT_S,
                what=f"nebula runs on {self.name}",
            )
        )

    def overlay_device(self) -> dict[str, Any]:
        """Return what the kernel says of the tunnel device."""
        for link in json.loads(
            self.host.run("ip", "-json", "-details", "link", "show", "type", "tun").stdout
        ):
            return dict(link)
        raise AssertionError(f"{self.name} has no tunnel device")


class Ground:
    """A box and machines that have joined it."""

    def __init__(self, network: Network, program: tuple[str, ...]) -> None:
        self._network = network
        self._program = program
        self.box = Box(network.add("box", "198.51.100.1/24"), program)
        self.machines: list[Machine] = []

    def machine(self, name: str) -> Machine:
        """Plug in a machine that has not joined yet."""
        address = f"198.51.100.{len(self.machines) + 2}/24"
        machine = Machine(self._network.add(name, address), self._program)
        self.machines.append(machine)
        return machine

    def overlay_ip(self, machine: Machine) -> str:
        """Return a node's address in the overlay."""
        return str(self.box.node(machine.name)["overlay_ip"]).partition("/")[0]


def answers_probe(host: Host, port: int) -> bool:
    """Send nebula's own test of a tunnel that does not exist, and tell whether it was refused, as only a live one does."""
    index = int.from_bytes(os.urandom(4))
    packet = struct.pack("!BBHIQ", 0x11, 0, 0, index, 1).hex()
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); "
        f"s.sendto(bytes.fromhex('{packet}'), ('127.0.0.1', {port})); print(s.recv(64).hex())"
    )
    answer = host.run("python3", "-c", script, check=False).stdout.strip()
    return answer[:2] == "12" and answer[8:16] == f"{index:08x}"


def get_over_socket(path: Path, target: str) -> int | None:
    """Return the status of a GET over a Unix socket; None if nobody answers."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(10)
        try:
            connection.connect(str(path))
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n".encode())
            line = connection.makefile("rb").readline()
        except OSError:
            return None
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else None
