"""Quickstart's plan: what it writes before anything is made, and what it refuses."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import click
import msgspec
import pytest

from edgegc.cli import quickstart
from edgegc.cli.failure import Exit, Failure
from edgegc.cli.joining import JoinTarget, join_command
from edgegc.cli.main import run
from edgegc.settings_source import load

if TYPE_CHECKING:
    from pathlib import Path

PLAN = quickstart.Plan(
    name="home",
    network_cidr="10.42.0.0/16",
    public="203.0.113.9:4242",
    listen=("0.0.0.0:8443",),
    public_url=None,
)


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "https://203.0.113.9:8443"),
        ({"listen": ("192.0.2.7:9443",)}, "https://192.0.2.7:9443"),
        ({"listen": ("[2001:db8::1]:9443",)}, "https://[2001:db8::1]:9443"),
        ({"public_url": "https://box.example:443"}, "https://box.example:443"),
    ],
)
def test_the_settings_it_writes_are_complete_for_serve(
    changes: dict[str, object], url: str, tmp_path: Path
) -> None:
    plan = msgspec.structs.replace(PLAN, **changes)
    (tmp_path / "edgegc.toml").write_bytes(quickstart._settings_file(plan))
    settings = load(None, {"data.dir": tmp_path}, {}).settings
    assert settings.api.public_urls == (url,)
    assert settings.api.listen == plan.listen
    assert settings.tls.mode == "self-signed"


def test_a_port_that_changes_with_every_start_is_refused() -> None:
    with pytest.raises(click.UsageError, match="needs a port"):
        quickstart._settings_file(msgspec.structs.replace(PLAN, listen=("0.0.0.0:0",)))


@pytest.mark.parametrize(
    ("given", "address"),
    [("203.0.113.9:4300", "203.0.113.9:4300"), ("203.0.113.9", "203.0.113.9:4242")],
)
def test_the_public_address_may_leave_out_the_port(given: str, address: str) -> None:
    assert quickstart._public_address(given) == address


@pytest.mark.parametrize(
    "given", ["0.0.0.0:4242", "127.0.0.1:4242", "224.0.0.1:4242", "203.0.113.9:0", "box:4242"]
)
def test_a_public_address_that_no_node_can_reach_is_refused(given: str) -> None:
    with pytest.raises(click.UsageError, match="--public"):
        quickstart._public_address(given)


def test_without_a_default_route_it_asks_for_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "default_source", lambda: None)
    with pytest.raises(Failure, match=r"no default route .* give --public ADDR:PORT") as caught:
        quickstart._public_address(None)
    assert caught.value.exit_code == Exit.USAGE


def test_settings_of_the_operators_own_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "edgegc.toml"
    assert quickstart._is_ours(path)
    path.write_bytes(quickstart._settings_file(PLAN))
    assert quickstart._is_ours(path)
    assert tomllib.loads(path.read_text())["tls"] == {"mode": "self-signed"}
    path.write_text("[tls]\n")
    assert not quickstart._is_ours(path)


def test_a_plan_is_read_back_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    assert quickstart._read_plan(tmp_path) is None
    (tmp_path / "quickstart.json").write_bytes(msgspec.json.encode(PLAN))
    assert quickstart._read_plan(tmp_path) == PLAN
    (tmp_path / "quickstart.json").write_bytes(b"{}")
    with pytest.raises(Failure, match="is not what quickstart wrote"):
        quickstart._read_plan(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("--network-cidr", "10.42.0.1/16"),
            "--network-cidr: '10.42.0.1/16' is not in its plain form; did you mean '10.42.0.0/16'?",
        ),
        (("--network-cidr", "10.42.0.0/31"), "--network-cidr: the prefix must be from /8 to /30"),
        (("--network-cidr", "127.0.0.0/24"), "--network-cidr: 127.0.0.0/24 overlaps 127.0.0.0/8"),
        (("--name", "my home"), "--name: 'my home' is not a name"),
        (("--public-url", "ftp://box"), "api.public_urls: 'ftp://box' must be like https://"),
        (("--listen", "8443"), "--listen: '8443' must be host:port"),
    ],
)
def test_what_can_not_be_made_is_refused_before_anything_is_written_and_remembered(
    given: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    arguments = ["quickstart", "--data-dir", str(data), "--public", "203.0.113.9", *given]
    assert run(arguments) == Exit.USAGE
    assert capsys.readouterr().err.startswith(f"edgegc: {said}")
    assert not data.exists()


def test_a_join_command_can_be_pasted() -> None:
    assert join_command(JoinTarget("https://203.0.113.9:8443", "ab" * 32), "egk_x") == (
        f"edgegc join https://203.0.113.9:8443 --key egk_x --pin {'ab' * 32}"
    )
    assert join_command(JoinTarget("https://box", None), "egk_x") == "edgegc join https://box --key egk_x"
    assert join_command(JoinTarget("http://127.0.0.1:80", None), "egk_x").endswith(" --key egk_x")
    assert join_command(JoinTarget("http://box", None), "egk_x").endswith(" --key egk_x --insecure-http")
