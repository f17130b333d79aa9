"""What is rendered of a lighthouse, the operator's overrides, and how it gets onto the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from edgegc.lighthouse import render
from edgegc.model.lighthouse import LighthouseSpec

DIRECTORY = Path("/data/lighthouses/one")


def spec(**changes: object) -> LighthouseSpec:
    fields: dict[str, object] = {
        "cluster_id": "one",
        "cluster_name": "home",
        "version": 7,
        "overlay_ip": "10.42.0.1",
        "port": 4242,
        "config": {
            "pki": {"blocklist": [], "disconnect_invalid": True},
            "listen": {"host": "0.0.0.0", "send_recv_error": "always"},
            "firewall": {"inbound": [{"port": "any", "proto": "icmp", "host": "any"}], "outbound": []},
        },
        "ca_pem": "ca",
        "certificate_pem": "certificate",
        "key_pem": "key",
        "fingerprint": "00",
    }
    return LighthouseSpec(**(fields | changes))  # type: ignore[arg-type]


def rendered(*fragments: dict[str, object], **changes: object) -> dict[str, dict[str, object]]:
    numbered = [render.Fragment(f"{n}.yml", content) for n, content in enumerate(fragments)]
    config = render.render(spec(**changes), DIRECTORY, numbered).files["config.yml"]
    document = yaml.safe_load(config)
    assert isinstance(document, dict)
    return document


def test_it_gets_paths_port_no_device_and_a_log_that_says_when_it_is_ready() -> None:
    config = rendered()
    assert config["pki"]["key"] == "/data/lighthouses/one/host.key"
    assert config["listen"] == {"host": "0.0.0.0", "send_recv_error": "always", "port": 4242}
    assert config["tun"] == {"disabled": True}
    assert config["logging"] == {"level": "info", "format": "text"}


def test_overrides_are_merged_deeply_in_order_and_lists_replace() -> None:
    config = rendered(
        {"stats": {"type": "prometheus", "interval": "10s"}, "listen": {"batch": 16}},
        {"stats": {"interval": "60s"}, "firewall": {"inbound": []}},
    )
    assert config["stats"] == {"type": "prometheus", "interval": "60s"}
    assert config["listen"]["batch"] == 16
    assert config["listen"]["send_recv_error"] == "always"
    assert config["firewall"]["inbound"] == []


def test_overrides_do_not_change_what_makes_it_this_lighthouse() -> None:
    config = rendered(
        {"pki": {"key": "/etc/shadow"}, "listen": {"port": 1, "host": "::"}, "tun": {"disabled": False}}
    )
    assert config["pki"]["key"] == "/data/lighthouses/one/host.key"
    assert (config["listen"]["port"], config["listen"]["host"]) == (4242, "::")
    assert config["tun"]["disabled"] is True


@pytest.mark.parametrize(("level", "used"), [("debug", "debug"), ("error", "info"), (3, "info")])
def test_logs_are_not_made_quieter_than_the_proof_needs(level: object, used: str) -> None:
    assert rendered({"logging": {"level": level}})["logging"]["level"] == used


def test_the_digest_names_version_and_content() -> None:
    first = render.render(spec(), DIRECTORY, ())
    assert render.version_of(first.digest) == 7
    assert render.render(spec(), DIRECTORY, ()).digest == first.digest
    others = [spec(version=8), spec(certificate_pem="renewed"), spec(ca_pem="two"), spec(port=4243)]
    assert len({render.render(other, DIRECTORY, ()).digest for other in others} | {first.digest}) == 5


def test_without_recv_errors_it_is_not_probed() -> None:
    assert render.render(spec(), DIRECTORY, ()).probe is True
    quiet = render.Fragment("a.yml", {"listen": {"send_recv_error": "never"}})
    assert render.render(spec(), DIRECTORY, (quiet,)).probe is False


def test_files_are_written_once_and_readable_for_owner_and_group_only(tmp_path: Path) -> None:
    directory = render.prepare(tmp_path, "one", gid=None)
    contents = render.render(spec(), directory, ()).files
    assert render.write(directory, contents, gid=None) == ["host.key", "host.crt", "ca.crt", "config.yml"]
    assert directory.stat().st_mode & 0o777 == 0o750
    assert (directory / "host.key").stat().st_mode & 0o777 == 0o640
    assert render.write(directory, contents, gid=None) == []
    (directory / "config.yml").write_text("tampered")
    assert render.write(directory, contents, gid=None) == ["config.yml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_files_get_the_group_of_the_lighthouses_user_also_later(tmp_path: Path) -> None:
    directory = render.prepare(tmp_path, "one", gid=None)
    contents = render.render(spec(), directory, ()).files
    render.write(directory, contents, gid=None)
    assert render.write(directory, contents, gid=65534) == []
    render.prepare(tmp_path, "one", gid=65534)
    for path in (directory, directory / "host.key"):
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 65534)


def overrides(tmp_path: Path, **texts: str) -> Path:
    directory = render.prepare(tmp_path, "one", gid=None)
    for name, text in texts.items():
        (directory / render.OVERRIDES / f"{name}.yml").write_text(text)
    return directory


def test_overrides_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    found = render.read_overrides(overrides(tmp_path, b="x: 2", a="x: 1", c=""))
    assert found.fragments == (("a.yml", {"x": 1}), ("b.yml", {"x": 2}), ("c.yml", {}))
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x: [", "flow node"),
        ("- 1", "not a mapping"),
        ("x: 2020-01-01", "date"),
        ("x" * 1_100_000, "larger"),
    ],
)
def test_an_override_that_cannot_be_used_is_named_and_ignored(tmp_path: Path, text: str, says: str) -> None:
    found = render.read_overrides(overrides(tmp_path, good="x: 1", bad=text))
    assert [fragment.name for fragment in found.fragments] == ["good.yml"]
    assert len(found.problems) == 1
    assert "overrides/bad.yml" in found.problems[0]
    assert says in found.problems[0]


def test_an_override_that_became_unusable_stays_as_it_was_when_last_good(tmp_path: Path) -> None:
    directory = overrides(tmp_path, a="x: 1")
    render.keep_good(directory, render.read_overrides(directory).fragments)
    overrides(tmp_path, a="x: [")
    found = render.read_overrides(directory)
    assert found.fragments == (("a.yml", {"x": 1}),)
    assert "its last good content stays" in found.problems[0]


def test_removing_keeps_overrides_and_nothing_else(tmp_path: Path) -> None:
    directory = overrides(tmp_path, a="x: 1")
    render.write(directory, render.render(spec(), directory, ()).files, gid=None)
    render.remove(tmp_path, "one")
    assert sorted(path.name for path in directory.rglob("*")) == ["a.yml", "overrides"]


def test_removing_one_without_overrides_leaves_nothing(tmp_path: Path) -> None:
    directory = overrides(tmp_path)
    render.write(directory, render.render(spec(), directory, ()).files, gid=None)
    render.write_candidate(tmp_path, spec(), (), gid=None)
    render.remove(tmp_path, "one")
    assert list(render.lighthouses_directory(tmp_path).iterdir()) == []


def test_a_candidate_points_to_its_own_files(tmp_path: Path) -> None:
    render.prepare(tmp_path, "one", gid=None)
    config = render.write_candidate(tmp_path, spec(), (), gid=None)
    document = yaml.safe_load(config.read_bytes())
    for key in ("ca", "cert", "key"):
        assert Path(document["pki"][key]).parent == config.parent
        assert Path(document["pki"][key]).is_file()
    render.discard_candidate(tmp_path, "one")
    assert not config.parent.exists()
