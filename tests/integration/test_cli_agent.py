"""``edgegc agent`` and ``edgegc join`` as processes: what they import, print, exit with, and leave running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edgegc.agent import settings, state
from edgegc.model.manifest import Server
from tests.fakes import ControlPlane

ROOT = Path(__file__).parents[2]
HEAVY = (
    "quart",
    "hypercorn",
    "sqlite3",
    "werkzeug",
    "flask",
    "psutil",
    "edgegc.store",
    "edgegc.control",
    "edgegc.api",
)
LIMIT_S = 60.0


def edgegc(*arguments: object, importtime: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
    options = ["-X", "importtime"] if importtime else []
    return subprocess.run(
        [sys.executable, *options, "-m", "edgegc", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        stdin=subprocess.DEVNULL,
        timeout=LIMIT_S,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("agent", "--help"),
        ("join", "--help"),
        ("agent", "status", "--config-dir", "/nonexistent"),
        ("join", "http://127.0.0.1:9", "--key", "egk_x", "--config-dir", "{tmp}"),
    ],
)
def test_the_nodes_side_loads_nothing_of_the_servers(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = edgegc(*(word.format(tmp=tmp_path) for word in arguments), importtime=True)
    modules = imported(done)
    assert "click" in modules
    assert not {name for name in modules for heavy in HEAVY if name == heavy or name.startswith(heavy + ".")}


def test_the_running_agent_loads_nothing_of_the_servers_and_stops_on_sigterm(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "edgegc", "agent", "--config-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + LIMIT_S
    while not (tmp_path / "agent.sock").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    status = edgegc("agent", "status", "--config-dir", tmp_path, "-o", "json")
    assert (status.returncode, json.loads(status.stdout)) == (0, {"clusters": []})
    second = edgegc("agent", "--config-dir", tmp_path)
    assert (second.returncode, second.stderr.count("\n")) == (3, 1)
    assert "an agent runs for" in second.stderr
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    modules = {
        line.rpartition("|")[2].strip() for line in errors.splitlines() if line.startswith("import time:")
    }
    assert not {name for name in modules for heavy in HEAVY if name == heavy or name.startswith(heavy + ".")}


def test_status_without_an_agent_shows_what_the_files_tell_and_fails(tmp_path: Path) -> None:
    own = ControlPlane().membership()
    settings.edit(tmp_path, lambda all_: all_.with_cluster(own))
    done = edgegc("agent", "--config-dir", tmp_path, "status", "-o", "json")
    assert done.returncode == 1
    (cluster,) = json.loads(done.stdout)["clusters"]
    assert (cluster["cluster_id"], cluster["error"]) == (own.id, "the agent is not running")
    assert done.stderr.startswith("edgegc: the agent is not running")
    table = edgegc("agent", "status", "--config-dir", tmp_path)
    assert re.search(r"^home +failed", table.stdout, re.MULTILINE)


def test_the_log_says_what_was_applied_when_without_an_agent(tmp_path: Path) -> None:
    assert edgegc("agent", "log", "--config-dir", tmp_path).stderr == "no version was applied here yet\n"
    home = ControlPlane().membership()
    office = msgspec.structs.replace(
        home, id="5b1f6f0e-8c39-4be9-9d3b-1a3c0e1f7a52", name="office", tun_device="o"
    )
    histories = {
        home: (
            state.Outcome(at=1_000_000_000, version=3, what="applied"),
            state.Outcome(at=1_000_000_200, version=4, what="failed", reason="no lighthouse answers"),
        ),
        office: (state.Outcome(at=1_000_000_100, version=1, what="applied"),),
    }
    for cluster, history in histories.items():
        settings.edit(tmp_path, lambda all_, cluster=cluster: all_.with_cluster(cluster))  # type: ignore[misc]
        (tmp_path / cluster.id).mkdir()
        state.save(tmp_path / cluster.id / "state.json", state.State(history=history))
    everything = json.loads(edgegc("agent", "log", "--config-dir", tmp_path, "-o", "json").stdout)["log"]
    assert [(each["cluster"], each["version"]) for each in everything] == [
        ("home", 3),
        ("office", 1),
        ("home", 4),
    ]
    assert everything[2] == {
        "at": "2001-09-09T01:50:00Z",
        "cluster_id": home.id,
        "cluster": "home",
        "version": 4,
        "what": "failed",
        "reason": "no lighthouse answers",
    }
    (line,) = edgegc("agent", "log", "office", "--config-dir", tmp_path).stdout.splitlines()[1:]
    assert line.split() == ["2001-09-09", "01:48", "office", "1", "applied", "-"]
    unknown = edgegc("agent", "log", "nowhere", "--config-dir", tmp_path)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (4, 1)


def test_set_server_replaces_the_servers_of_one_cluster(tmp_path: Path) -> None:
    settings.edit(tmp_path, lambda all_: all_.with_cluster(ControlPlane().membership()))
    pin = "AB" * 32
    done = edgegc(
        "agent", "set-server", "home", "https://203.0.113.7:8443/", "--pin", pin, "--config-dir", tmp_path
    )
    assert done.returncode == 0
    (server,) = settings.load(tmp_path).clusters[0].servers
    assert (server.url, server.pin) == ("https://203.0.113.7:8443", pin.lower())


def test_a_server_that_moved_keeps_its_pin_unless_told_otherwise(tmp_path: Path) -> None:
    settings.edit(tmp_path, lambda all_: all_.with_cluster(ControlPlane().membership()))
    pin = "ab" * 32
    for given, kept in ((("--pin", pin), pin), ((), pin), (("--pin", ""), None), ((), None)):
        done = edgegc("agent", "set-server", "home", "https://203.0.113.8", *given, "--config-dir", tmp_path)
        assert done.returncode == 0, done.stderr
        assert settings.load(tmp_path).named("home").servers == (Server(url="https://203.0.113.8", pin=kept),)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("agent", "set-server", "nowhere", "https://x", "--config-dir", "{tmp}"),
            4,
            "in no cluster 'nowhere'",
        ),
        (("agent", "set-server", "home", "ftp://x", "--config-dir", "{tmp}"), 2, "must start with"),
        (("join", "http://192.0.2.1", "--key", "egk_x", "--config-dir", "{tmp}"), 2, "--insecure-http"),
        (("agent", "set-server", "home", "http://box", "--config-dir", "{tmp}"), 2, "--insecure-http"),
        (
            ("agent", "set-server", "home", "http://box", "--insecure-http", "--config-dir", "{tmp}"),
            4,
            "in no cluster",
        ),
        (
            ("join", "https://x", "--key", "egk_x", "--nebula", "/nope", "--config-dir", "{tmp}"),
            1,
            "there is no nebula at /nope: correct --nebula",
        ),
        (("join", "http://127.0.0.1:9", "--config-dir", "{tmp}"), 2, "no enrolment key"),
        (("join", "http://127.0.0.1:9", "--key", "ega_x", "--config-dir", "{tmp}"), 2, "starts with egk_"),
        (("join", "http://127.0.0.1:9", "--key", "egk_x", "--config-dir", "{tmp}"), 5, "refused"),
        (("join", "nonsense", "--key", "egk_x", "--config-dir", "{tmp}"), 2, "must start with"),
        (
            ("join", "https://x", "--key", "egk_x", "--pin", "12", "--config-dir", "{tmp}"),
            2,
            "64 hexadecimal",
        ),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = edgegc(*(word.format(tmp=tmp_path) for word in arguments))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert said in done.stderr


def test_the_key_may_come_from_the_environment_and_is_never_printed(tmp_path: Path) -> None:
    done = edgegc("join", "http://127.0.0.1:9", "--config-dir", tmp_path, EDGEGC_KEY="egk_very_secret")
    assert done.returncode == 5
    assert "secret" not in done.stdout + done.stderr
