from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgegc.agent import render
from edgegc.agent.versions import Versions
from edgegc.errors import Conflict, Error, Invalid, NotFound
from edgegc.nebula import bundle, keys
from tests.fakes import ControlPlane

if TYPE_CHECKING:
    from pathlib import Path

PAIR = keys.generate_x25519()
PLANE = ControlPlane()


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    versions = Versions(tmp_path / PLANE.cluster_id)
    versions.directory.mkdir()
    versions.save_key(PAIR)
    return versions


def store(versions: Versions, number: int, **changes: Any) -> None:
    versions.store(bundle.read(PLANE.bundle(number, PAIR.public, **changes)))


def test_a_stored_version_is_complete_and_reads_back(versions: Versions) -> None:
    assert not versions.has(7)
    store(versions, 7, listen_port=4242)
    assert versions.has(7)
    version = versions.load(7)
    assert (version.number, version.manifest.listen_port) == (7, 4242)
    assert version.fingerprint == versions.certificate(7).fingerprint
    assert version.authorities == {PLANE.ca.fingerprint}
    assert versions.current() is None


def test_a_version_that_was_half_written_at_a_power_cut_is_not_there(versions: Versions) -> None:
    store(versions, 7)
    versions.path(8).with_name(".8.partial").mkdir()
    assert not versions.has(8)
    store(versions, 8)
    assert versions.has(8)


def test_own_settings_win_over_the_bundles(versions: Versions) -> None:
    store(
        versions,
        7,
        tun={"dev": "other0", "mtu": 1300},
        logging={"level": "debug"},
        listen={"host": "::", "port": 1},
    )
    config = versions.prepare(versions.load(7), PLANE.membership(listen_port=5000)).config
    current = versions.directory / "current"
    assert config["tun"] == {"dev": "egc-home", "mtu": 1300}
    assert config["listen"] == {"host": "::", "port": 5000, "send_recv_error": "always"}
    assert config["logging"] == {"level": "info", "format": "text"}
    pki = config["pki"]
    assert isinstance(pki, dict)
    assert pki["disconnect_invalid"] is True
    assert [pki["ca"], pki["cert"], pki["key"]] == [
        str(current / name) for name in ("ca.crt", "host.crt", "host.key")
    ]


def test_the_manifests_port_wins_over_the_machines(versions: Versions) -> None:
    store(versions, 7, listen_port=4242)
    config = versions.prepare(versions.load(7), PLANE.membership(listen_port=5000)).config
    assert render.listen_port(config) == 4242


def test_each_version_links_the_key_that_its_certificate_was_made_for(versions: Versions) -> None:
    store(versions, 7)
    versions.prepare(versions.load(7), PLANE.membership())
    text = (versions.path(7) / "host.key").read_text()
    assert keys.parse_x25519_private(text) == PAIR.private
    assert (versions.path(7) / "host.key").readlink().parts[:2] == ("..", "..")


def test_without_its_key_a_version_is_not_prepared(versions: Versions) -> None:
    versions.store(bundle.read(PLANE.bundle(7, keys.generate_x25519().public)))
    with pytest.raises(Error, match="private key"):
        versions.prepare(versions.load(7), PLANE.membership())


def test_preparing_again_writes_nothing_and_names_the_same_digest(versions: Versions) -> None:
    store(versions, 7)
    first = versions.prepare(versions.load(7), PLANE.membership())
    before = (versions.path(7) / "nebula.yml").stat()
    assert versions.prepare(versions.load(7), PLANE.membership()) == first
    assert (versions.path(7) / "nebula.yml").stat().st_ino == before.st_ino
    other = versions.prepare(versions.load(7), PLANE.membership(log_level="debug"))
    assert other.digest != first.digest


def test_the_switch_is_one_link_and_nebulas_path_stays_the_same(versions: Versions) -> None:
    for number in (7, 8):
        store(versions, number)
        versions.prepare(versions.load(number), PLANE.membership())
        versions.switch(number)
        assert versions.current() == number
        assert versions.config_path.samefile(versions.path(number) / "nebula.yml")
    assert [path.name for path in versions.directory.iterdir() if path.name.startswith(".")] == []


def test_a_current_version_that_is_gone_is_none(versions: Versions) -> None:
    versions.switch(9)
    assert versions.current() is None


def test_pruning_keeps_what_is_in_force_whatever_it_is_told(versions: Versions) -> None:
    for number in (5, 6, 7, 8):
        store(versions, number)
    versions.path(9).with_name(".9.partial").mkdir()
    versions.switch(6)
    versions.prune({8})
    assert sorted(path.name for path in (versions.directory / "versions").iterdir()) == ["6", "8"]


def test_a_version_of_an_earlier_membership_is_replaced_unless_it_is_in_force(versions: Versions) -> None:
    store(versions, 7)
    store(versions, 7)
    store(versions, 7, listen_port=4242)
    assert versions.load(7).manifest.listen_port == 4242
    versions.switch(7)
    with pytest.raises(Conflict):
        store(versions, 7)


def test_what_is_not_there_or_not_understood_is_named(versions: Versions) -> None:
    with pytest.raises(NotFound, match="version 7 is not on this machine"):
        versions.load(7)
    store(versions, 7)
    for name, content, said in (
        ("config.yml", "a: [", "config.yml is not YAML"),
        ("config.yml", "- 1", "config.yml is not a mapping"),
        ("host.crt", "x", "PEM"),
    ):
        whole = (versions.path(7) / name).read_text()
        (versions.path(7) / name).write_text(content)
        with pytest.raises(Invalid, match=said):
            versions.load(7)
        (versions.path(7) / name).write_text(whole)


@pytest.mark.parametrize(
    ("config", "addresses"),
    [
        ({"lighthouse": {"hosts": ["10.42.0.1", "10.42.0.9"]}}, ("10.42.0.1", "10.42.0.9")),
        ({"lighthouse": {"hosts": ["10.42.0.1"]}, "tun": {"disabled": True}}, ()),
        ({"lighthouse": {"hosts": None}}, ()),
        (
            {
                "lighthouse": {"am_lighthouse": True, "hosts": []},
                "static_host_map": {"10.42.0.1": ["203.0.113.9:4242"]},
            },
            ("10.42.0.1",),
        ),
        ({"lighthouse": {"am_lighthouse": True, "hosts": []}, "static_host_map": {}}, ()),
        ({}, ()),
    ],
)
def test_the_lighthouses_that_can_be_asked(config: dict[str, object], addresses: tuple[str, ...]) -> None:
    assert render.lighthouses(config) == addresses


def test_a_section_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid, match="pki is not a section"):
        render.blocklist({"pki": ["x"]})
