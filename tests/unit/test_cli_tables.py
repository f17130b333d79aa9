"""What people see on an 80-column terminal, and what programs get: golden, from sample answers of the API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgegc.cli import remote, status
from edgegc.cli.lighthouse import unseen
from edgegc.cli.main import run
from edgegc.cli.options import Common
from edgegc.model import message
from edgegc.model.lighthouse import LighthouseStatus

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime.now(UTC)
ID = "5b1f6f0e-8c39-4be9-9d3b-1a3c0e1f7a5"

RUNNING = LighthouseStatus(
    cluster_id=f"{ID}1",
    name="home",
    state="running",
    pid=4711,
    overlay_ip="10.42.0.1",
    port=4242,
    version_running=7,
    version_desired=7,
    restarts=0,
    uptime_s=7300.0,
    rss_bytes=13_000_000,
    cpu_percent=0.2,
    fds=8,
    last_error=None,
    log_tail=(),
)


def node(number: int, **changes: Any) -> message.NodeView:
    fields: dict[str, Any] = {
        "id": f"{ID}{number}",
        "name": f"pi-{number}",
        "role": "member",
        "overlay_ip": f"10.42.0.{number}/16",
        "mtu": 1300,
        "groups": ("sensors",),
        "listen_port": None,
        "is_lighthouse": False,
        "is_relay": False,
        "public_addresses": (),
        "routes": (),
        "version": 7,
        "applied_version": 7,
        "state": "online",
        "error": None,
        "nebula_version": "1.9.3",
        "enrolled_at": NOW,
        "last_seen_at": NOW - timedelta(hours=5, minutes=30),
        "certificate": message.CertificateView(fingerprint="ab" * 32, not_after=NOW),
        "created_at": NOW,
        "updated_at": NOW,
    }
    return message.NodeView(**(fields | changes))


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    monkeypatch.setenv("COLUMNS", "80")

    def set_(value: object) -> None:
        monkeypatch.setattr(remote, "ask", lambda common, question, **doing: value)

    return set_


def page(*nodes: message.NodeView, total: int | None = None) -> message.NodePage:
    return message.NodePage(nodes=nodes, total=total or len(nodes), page=1, page_size=500, next_cursor=None)


def test_node_list_fits_80_columns(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(
        page(
            node(2),
            node(
                3, name="the-one-in-the-cellar-behind-the-boiler", groups=("sensors", "floor-minus-1", "old")
            ),
            node(4, state="behind", applied_version=5, nebula_version=None),
            node(5, state="offline", applied_version=None, last_seen_at=None, is_relay=True),
        )
    )
    assert run(["node", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME                         OVERLAY IP  STATE    VERSION   SEEN  ROLE    NEBULA",
        "pi-2                         10.42.0.2   online         7    5 h  member  1.9.3",
        "the-one-in-the-cellar-behi…  10.42.0.3   online         7    5 h  member  1.9.3",
        "pi-4                         10.42.0.4   behind       5→7    5 h  member  -",
        "pi-5 (relay)                 10.42.0.5   offline      -→7  never  member  1.9.3",
    ]


def test_why_nodes_failed_is_told_below_the_list_once_per_reason(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "nebula -test refuses the configuration: yaml: line 3: mapping values are not allowed here"
    failed = [node(number, state="failed", applied_version=6, error=reason) for number in range(3, 10)]
    answer(page(node(2), *failed))
    assert run(["node", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "pi-9  10.42.0.9   failed      6→7   5 h  sensors  member  1.9.3",
        "  pi-3, pi-4, pi-5, pi-6, pi-7 and 2 more: nebula -test refuses the",
        "    configuration: yaml: line 3: mapping values are not allowed here",
    ]


def test_lighthouse_list_fits_80_columns(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = msgspec.structs.replace(
        RUNNING, name="away", state="fatal", pid=None, version_running=None, uptime_s=None, rss_bytes=None,
        cpu_percent=None, last_error="nebula was not found: apt-get install nebula",
    )  # fmt: skip
    answer(message.LighthouseList(lighthouses=(RUNNING, broken)))
    assert run(["lighthouse", "list"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "CLUSTER  STATE    PORT  VERSION  UPTIME    MEMORY    CPU  RESTARTS   PID",
        "home     running  4242        7     2 h  12.4 MiB  0.2 %         0  4711",
        "away     fatal    4242      -→7       -         -      -         0     -",
    ]
    assert captured.err == "away: nebula was not found: apt-get install nebula\n"


def test_json_is_exactly_the_apis(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sample = page(node(2))
    answer(sample)
    assert run(["node", "list", "-o", "json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == json.loads(msgspec.json.encode(sample))
    assert out.count("\n") == 1


def test_quiet_prints_ids_alone(answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]) -> None:
    answer(page(node(2), node(3)))
    assert run(["node", "list", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{ID}2\n{ID}3\n"


def test_a_secret_is_alone_on_stdout_with_quiet(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(node(2, node_token="egn_secret"))
    assert run(["node", "create", "pi-2", "-q"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("egn_secret\n", "")


def test_an_empty_list_says_what_to_do_on_stderr(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(page())
    assert run(["node", "list"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "edgegc key create --show-join" in captured.err


def test_following_a_log_prints_every_line_once() -> None:
    assert unseen((), ("a", "b")) == ("a", "b")
    assert unseen(("a", "b"), ("a", "b")) == ()
    assert unseen(("a", "b", "c"), ("b", "c", "d", "e")) == ("d", "e")
    assert unseen(("a",), ("x", "y")) == ("x", "y")


def test_status_is_one_screen_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    counts = message.RolloutCounts(total=3, online=1, behind=1, failed=0, offline=1)
    cluster = message.ClusterView(
        id=f"{ID}1",
        tenant_id=f"{ID}0",
        name="home",
        network_cidr="10.42.0.0/16",
        mode="managed",
        provide_lighthouse=True,
        provide_relay=True,
        lighthouse_port=4242,
        lighthouse_public_addresses=("203.0.113.9:4242",),
        allowed_routes=(),
        certificate_lifetime_s=1,
        supersede_grace_s=1,
        version=7,
        nodes=3,
        ca=None,
        created_at=NOW,
    )
    found = status.Status(
        version=message.VersionInfo(version="0.1.0", commit="x", python="3.11.2", platform="linux-x86_64"),
        health=message.Health(
            status="degraded", checks={"store": "ok", "clock": "the clock jumped back 2 h"}
        ),
        clusters=(
            status.ClusterStatus(
                cluster=cluster,
                rollout=message.Rollout(
                    version=7, nodes=counts, behind=(), behind_total=0, behind_truncated=False
                ),
                rotation=message.CaRotation(
                    phase="issued",
                    old_fingerprint="ab" * 32,
                    new_fingerprint="cd" * 32,
                    waiting_for=tuple(
                        message.RotationWaiting(id=f"{ID}{n}", name=f"pi-{n}") for n in range(7)
                    ),
                    ready=False,
                ),
            ),
        ),
        lighthouses=(RUNNING,),
        resources={
            "daemon.rss_bytes": 57_000_000.0,
            "daemon.cpu_percent": 0.31,
            "system.disk_free_bytes": 1e9,
        },
        last_backup=None,
    )
    status._print(Common(given_data_dir=Path("/nonexistent")), found)
    assert capsys.readouterr().out.splitlines() == [
        "edgegc 0.1.0  degraded",
        "  clock: the clock jumped back 2 h",
        "",
        "CLUSTER  VERSION  NODES  ONLINE  BEHIND  FAILED  OFFLINE  NETWORK",
        "home           7      3       1       1       0        1  10.42.0.0/16",
        "  home: CA rotation, phase issued: waiting for pi-0, pi-1, pi-2, pi-3, pi-4 and",
        "    2 more, then 'edgegc cluster rotate-ca home --step retire'",
        "",
        "LIGHTHOUSE  STATE    PORT  RUNS  RESTARTS    MEMORY    CPU",
        "home        running  4242     7         0  12.4 MiB  0.2 %",
        "",
        "RESOURCE             NOW       BUDGET",
        "daemon memory   54.4 MiB  ≤ 128.0 MiB",
        "daemon CPU         0.3 %            -",
        "disk free      953.7 MiB   ≥ 64.0 MiB",
        "",
        "last backup: none; 'edgegc backup FILE' makes one",
    ]


def rollout(*behind: message.RolloutBehind, **counts: int) -> message.Rollout:
    nodes = {"total": 0, "online": 0, "behind": 0, "failed": 0, "offline": 0} | counts
    return message.Rollout(
        version=7,
        nodes=message.RolloutCounts(**nodes),
        behind=behind,
        behind_total=len(behind),
        behind_truncated=False,
    )


def test_a_rollout_says_who_of_those_without_the_newest_version_is_offline(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    gone = message.RolloutBehind(
        id=f"{ID}1", name="pi-1", state="offline", version=7, applied_version=6, since=None
    )
    answer(rollout(gone, total=2, online=1, offline=1))
    assert run(["rollout", "--wait"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-2:] == [
        "NODE  STATE    VERSION  SINCE  ID",
        f"pi-1  offline      6→7  never  {ID}1",
    ]
    assert shown.err == "all online nodes run their newest version; 1 offline\n"


def test_a_rollout_with_more_nodes_behind_than_are_shown_says_how_many(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    first = message.RolloutBehind(
        id=f"{ID}1", name="pi-1", state="behind", version=7, applied_version=6, since=None
    )
    found = rollout(first, total=600, behind=600)
    answer(msgspec.structs.replace(found, behind_total=600, behind_truncated=True))
    assert run(["rollout"]) == 0
    assert capsys.readouterr().err == "599 more, see: edgegc node list\n"


def test_a_rollout_without_nodes_is_done_and_one_without_online_nodes_is_not(
    answer: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(rollout())
    assert run(["rollout", "--wait"]) == 0
    assert capsys.readouterr().err == "there are no nodes\n"
    answer(rollout(total=3, offline=3))
    assert run(["rollout", "--wait", "--timeout", "1"]) == 1
    assert capsys.readouterr().err == "edgegc: after 1 s no node is online: 3 are offline\n"
