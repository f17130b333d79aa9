"""A node of an uploaded cluster: which files it takes from the bundle, and which are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgegc.agent import render, verify
from edgegc.agent.versions import Versions
from edgegc.client import Bundle
from edgegc.errors import Error, Invalid
from edgegc.nebula import bundle, keys, upload
from tests import zoo
from tests.fakes import ControlPlane

if TYPE_CHECKING:
    from pathlib import Path

    from edgegc.agent.settings import Cluster

PAIR = keys.generate_x25519()
PLANE = ControlPlane()
CONFIG = b"listen: {port: 4242}\ntun: {mtu: 1400}\nlighthouse: {hosts: [10.42.0.1]}\n"
CERTIFICATE = PLANE.certificate(PAIR.public).pem().encode()
KEY = keys.pem_x25519_private(PAIR.private).encode()


def member(**changes: Any) -> Cluster:
    return PLANE.membership(mode="uploaded", **changes)


def archive(**more: bytes) -> bytes:
    return zoo.bundle(
        {"config.yml": CONFIG, "ca.crt": PLANE.ca.pem().encode()}
        | {name.replace("_", "."): content for name, content in more.items()}
    )


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    versions = Versions(tmp_path / PLANE.cluster_id)
    versions.directory.mkdir()
    return versions


def store(versions: Versions, body: bytes, number: int = 7) -> None:
    versions.store(upload.read(body, cluster_id=PLANE.cluster_id, node_id=PLANE.node_id, version=number))


def read(path: Path) -> bytes:
    return path.read_bytes()


def test_a_signed_archive_without_manifest_is_opened_and_keeps_servers_and_signers() -> None:
    body = archive()
    received = Bundle(
        body=body, version="7", digest=f"sha256:{bundle.digest(body)}", signature=PLANE.signature(body, 7)
    )
    accepted = verify.accept(received, cluster=member(), highest=0, highest_digest="")
    unpacked = verify.open_bundle(accepted, cluster=member())
    assert set(unpacked.files) == {"manifest.json", "config.yml", "ca.crt"}
    assert (unpacked.manifest.version, unpacked.manifest.signers, unpacked.manifest.servers) == (7, (), ())


def test_one_that_is_malformed_is_refused_though_it_is_signed() -> None:
    body = zoo.bundle({"config.yml": CONFIG})
    received = Bundle(
        body=body, version="7", digest=f"sha256:{bundle.digest(body)}", signature=PLANE.signature(body, 7)
    )
    accepted = verify.accept(received, cluster=member(), highest=0, highest_digest="")
    with pytest.raises(verify.Refused, match=r"^version 7 is signed, but malformed: .*no ca\.crt"):
        verify.open_bundle(accepted, cluster=member())


def test_certificate_and_key_of_the_bundle_are_used_where_it_has_them(versions: Versions) -> None:
    store(versions, archive(host_crt=CERTIFICATE, host_key=KEY))
    version = versions.load(7)
    versions.prepare(version, member())
    path = versions.path(7)
    assert (read(path / "host.crt"), read(path / "host.key")) == (CERTIFICATE, KEY)
    assert not (path / "host.key").is_symlink()
    assert (path / "host.key").stat().st_mode & 0o777 == 0o600
    assert version.authorities == {PLANE.ca.fingerprint}


def test_else_they_are_the_machines_own_and_the_key_is_the_one_it_joined_with(versions: Versions) -> None:
    versions.save_key(PAIR)
    (versions.directory / "host.crt").write_bytes(CERTIFICATE)
    store(versions, archive())
    versions.prepare(versions.load(7), member())
    versions.switch(7)
    current = versions.directory / "current"
    assert (read(current / "host.crt"), read(current / "host.key")) == (CERTIFICATE, KEY)
    assert versions.certificate(7).details.public_key == PAIR.public


def test_a_key_that_was_made_elsewhere_lies_beside_its_certificate(versions: Versions) -> None:
    (versions.directory / "host.crt").write_bytes(CERTIFICATE)
    store(versions, archive())
    with pytest.raises(Error, match="the private key of the certificate of version 7 is not on this machine"):
        versions.prepare(versions.load(7), member())
    (versions.directory / "host.key").write_bytes(KEY)
    versions.prepare(versions.load(7), member())
    assert read(versions.path(7) / "host.key") == KEY


def test_without_any_certificate_the_machine_says_what_to_do(versions: Versions) -> None:
    store(versions, archive())
    with pytest.raises(Invalid, match=r"host\.pub signed \(nebula-cert sign -in-pub\) and put the result at"):
        versions.load(7)


def test_a_new_certificate_of_its_own_is_taken_at_the_next_look(versions: Versions) -> None:
    versions.save_key(PAIR)
    (versions.directory / "host.crt").write_bytes(CERTIFICATE)
    store(versions, archive())
    before = versions.prepare(versions.load(7), member())
    renewed = PLANE.certificate(PAIR.public, not_after=PLANE.now + 5 * 10**7)
    (versions.directory / "host.crt").write_text(renewed.pem())
    version = versions.load(7)
    assert version.fingerprint == renewed.fingerprint
    assert versions.prepare(version, member()).digest != before.digest


@pytest.mark.parametrize(("own", "port"), [(0, 4242), (5000, 5000)])
def test_the_bundles_port_counts_where_the_machine_leaves_it_open(
    own: int, port: int, versions: Versions
) -> None:
    store(versions, archive(host_crt=CERTIFICATE, host_key=KEY))
    config = versions.prepare(versions.load(7), member(listen_port=own)).config
    assert render.listen_port(config) == port
    assert config["tun"] == {"mtu": 1400, "dev": "egc-home"}


def test_authorities_of_a_kind_that_is_not_understood_are_told_apart_by_their_text(
    versions: Versions,
) -> None:
    later = b"-----BEGIN NEBULA CERTIFICATE V2-----\nAAAA\n-----END NEBULA CERTIFICATE V2-----\n"
    body = zoo.bundle(
        {"config.yml": CONFIG, "ca.crt": later + later.replace(b"AAAA", b"BBBB"), "host.crt": CERTIFICATE}
    )
    store(versions, body)
    assert len(versions.load(7).authorities) == 2
