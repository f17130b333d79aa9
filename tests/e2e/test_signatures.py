"""Who has taken the control plane's place, TLS key and all, still can't make an agent run anything that was not made for it."""

from __future__ import annotations

import base64
import json
import sys
import tomllib
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgegc.model.manifest import signed_text
from edgegc.nebula import bundle, keys
from tests.e2e.ground import API_PORT, Ground
from tests.e2e.network import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.e2e.network import Host, Network

REFUSED_LIMIT_S = 30.0

DOWNLOAD = """
import base64, json, ssl, sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as answer:
    print(json.dumps([dict(answer.headers), base64.b64encode(answer.read()).decode()]))
"""


class Stolen(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle as it went over the wire."""

    headers: dict[str, str]
    body: bytes

    @property
    def version(self) -> int:
        return int(self.headers["edgegc-version"])

    def announced(self, body: bytes) -> Stolen:
        """Return the same with another body, and a digest that is right for it."""
        digest = f"sha256:{bundle.digest(body)}"
        return Stolen(headers={**self.headers, "edgegc-digest": digest}, body=body)


def steal(host: Host, url: str, token: str) -> Stolen:
    done = host.run(sys.executable, "-c", DOWNLOAD, f"{url}/api/v1/config/bundle", token)
    headers, body = json.loads(done.stdout)
    wanted = {name.lower(): value for name, value in headers.items() if name.lower().startswith("edgegc-")}
    return Stolen(headers=wanted, body=base64.b64decode(body))


def sign_again(stolen: Stolen, *, cluster_id: str, node_id: str) -> Stolen:
    text = signed_text(
        cluster_id=cluster_id, node_id=node_id, version=stolen.version, digest=bundle.digest(stolen.body)
    )
    signature = base64.b64encode(bundle.sign(keys.generate_ed25519().private, text)).decode()
    return Stolen(headers={**stolen.headers, "edgegc-signature": signature}, body=stolen.body)


@pytest.fixture
def stolen(network: Network, program: tuple[str, ...]) -> tuple[Ground, dict[str, Stolen], dict[str, str]]:
    """A node that has applied a version, and bundles that its agent must not take; with the sentence for each."""
    ground = Ground(network, program)
    box = ground.box
    box.quickstart()
    one = ground.machine("one")
    one.join(box)
    url = f"https://{box.host.address}:{API_PORT}"

    wait_until(lambda: one.status().get("state") == "ok", within_s=60, what="one has joined")
    token = tokens(one.config)[0]
    older = steal(box.host, url, token)
    wanted = box.ask("node", "update", "one", "--mtu", 1310)["version"]
    own = box.wait_applied("one", wanted)
    status = one.status()
    newest = steal(box.host, url, token)
    pub = one.host.directory / "other.pub"
    pub.write_text(keys.pem_x25519_public(keys.generate_x25519().public))
    neighbour = box.ask("node", "create", "neighbour", "--public-key", pub)
    box.ask("cluster", "create", "elsewhere", "--network-cidr", "10.43.0.0/16")
    stranger = box.ask("node", "create", "stranger", "--public-key", pub, "--cluster", "elsewhere")

    flipped = newest.body[:-9] + bytes([newest.body[-9] ^ 1]) + newest.body[-8:]
    ids = {"cluster_id": status["cluster_id"], "node_id": own["id"]}
    bundles = {
        "another node": steal(box.host, url, neighbour["node_token"]),
        "another cluster": steal(box.host, url, stranger["node_token"]),
        "older": older,
        "flipped": Stolen(headers=newest.headers, body=flipped),
        "flipped and announced": newest.announced(flipped),
        "another key": sign_again(newest, **ids),
    }
    sentences = {
        "another node": f"the bundle was made for another node ({neighbour['id']})",
        "another cluster": "the bundle was made for another cluster (",
        "older": f"version {older.version} is older than version {newest.version}",
        "flipped": "the bundle was damaged on its way",
        "flipped and announced": "it was signed by somebody else, or changed on the way",
        "another key": "it was signed by somebody else, or changed on the way",
    }
    return ground, bundles, sentences


def tokens(config: Path) -> list[str]:
    """Return every node token in an agent's configuration."""

    def found(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [token for each in value.values() for token in found(each)]
        if isinstance(value, list):
            return [token for each in value for token in found(each)]
        return [value] if isinstance(value, str) and value.startswith("egn_") else []

    return found(tomllib.loads((config / "agent.toml").read_text()))


def test_an_agent_takes_nothing_that_was_not_signed_for_it(
    stolen: tuple[Ground, Mapping[str, Stolen], Mapping[str, str]],
) -> None:
    ground, bundles, sentences = stolen
    box, (one,) = ground.box, ground.machines
    before = one.status()
    one.stop_agent(SIGTERM)
    box.stop(SIGTERM)
    stage = box.host.directory / "stage"
    stage.mkdir()
    tls = box.data / "tls"
    attacker = (sys.executable, Path(__file__).with_name("replay.py"), API_PORT)
    for name, replayed in bundles.items():
        (stage / "version").write_text(str(max(each.version for each in bundles.values()) + 1))
        (stage / "body").write_bytes(replayed.body)
        (stage / "headers").write_text(
            "".join(f"{key}: {value}\n" for key, value in replayed.headers.items())
        )
        server = box.host.start(*attacker, tls / "certificate.pem", tls / "key.pem", stage, name="attacker")
        one.start_agent()
        wait_until(
            lambda sentence=sentences[name]: sentence in (one.status().get("error") or ""),
            within_s=REFUSED_LIMIT_S,
            what=f"the agent refuses the bundle: {name}",
        )
        status = one.status()
        assert status["applied_version"] == before["applied_version"]
        assert status["nebula"]["pid"] == before["nebula"]["pid"]
        one.stop_agent(SIGKILL)
        server.stop()
