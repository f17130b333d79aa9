from __future__ import annotations

import base64
import contextlib
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegc.errors import Conflict, Error, Invalid
from edgegc.model.manifest import Server, signed_text
from edgegc.nebula import archive, bundle, keys
from tests.fuzz import THOUSANDS, mutated

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER, NODE = "11111111-1111-4111-8111-111111111111", "33333333-3333-4333-8333-333333333333"
SIGNER = keys.generate_ed25519()
OTHER = keys.generate_ed25519()


def built(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "config": b"pki:\n  disconnect_invalid: true\n",
        "ca_pem": "the authority",
        "host_pem": "the certificate",
        "cluster_id": CLUSTER,
        "node_id": NODE,
        "version": 7,
        "signers": [SIGNER.public],
        "servers": [Server(url="https://203.0.113.9:8443", pin="ab" * 32)],
        "listen_port": None,
        "restart_delay_s": 0,
    }
    return bundle.build(**(arguments | changes))


def signature_of(body: bytes, *, key: keys.KeyPair = SIGNER, **changes: Any) -> bytes:
    ids: dict[str, Any] = {"cluster_id": CLUSTER, "node_id": NODE, "version": 7}
    return bundle.sign(key.private, signed_text(digest=bundle.digest(body), **(ids | changes)))


def check(body: bytes, signature: bytes) -> None:
    bundle.verify(body, signature, signers=[SIGNER.public], cluster_id=CLUSTER, node_id=NODE, version=7)


def test_a_bundle_reads_back_as_it_was_built() -> None:
    unpacked = bundle.read(built(listen_port=4242, restart_delay_s=15))
    assert set(unpacked.files) == {"manifest.json", "config.yml", "ca.crt", "host.crt"}
    assert unpacked.files["ca.crt"] == b"the authority"
    manifest = unpacked.manifest
    assert (manifest.cluster_id, manifest.node_id, manifest.version) == (CLUSTER, NODE, 7)
    assert (manifest.listen_port, manifest.restart_delay_s) == (4242, 15)
    assert bundle.parse_signers(manifest.signers) == (SIGNER.public,)
    assert manifest.servers == (Server(url="https://203.0.113.9:8443", pin="ab" * 32),)


def test_building_is_deterministic() -> None:
    assert built() == built()


def test_the_signature_covers_the_documented_lines() -> None:
    assert signed_text(cluster_id=CLUSTER, node_id=NODE, version=7, digest="ab" * 32) == (
        b"edgegc-bundle-v1\n" + CLUSTER.encode() + b"\n" + NODE.encode() + b"\n7\n" + b"ab" * 32 + b"\n"
    )


def test_a_bundle_signed_for_this_node_is_accepted() -> None:
    check(built(), signature_of(built()))


def test_any_of_several_signers_will_do() -> None:
    body = built()
    signature = signature_of(body, key=OTHER)
    bundle.verify(
        body, signature, signers=[SIGNER.public, OTHER.public], cluster_id=CLUSTER, node_id=NODE, version=7
    )


ELSEWHERE = "99999999-9999-4999-8999-999999999999"


@pytest.mark.parametrize(
    ("body", "signature", "sentence"),
    [
        (
            built(node_id=ELSEWHERE),
            signature_of(built(node_id=ELSEWHERE), node_id=ELSEWHERE),
            f"the bundle was made for another node \\({ELSEWHERE}\\)",
        ),
        (
            built(cluster_id=ELSEWHERE),
            signature_of(built(cluster_id=ELSEWHERE), cluster_id=ELSEWHERE),
            f"the bundle was made for another cluster \\({ELSEWHERE}\\)",
        ),
        (
            built(version=6),
            signature_of(built(version=6), version=6),
            "the bundle was made as version 6 and offered as version 7",
        ),
        (built(), signature_of(built(), key=OTHER), "signed by somebody else, or changed on the way"),
        (built()[:-1] + b"x", signature_of(built()), "signed by somebody else, or changed on the way"),
        (built(), signature_of(built(), node_id=ELSEWHERE), "signed by somebody else"),
        (built(), b"", "signed by somebody else"),
        (built(), bytes(64), "signed by somebody else"),
        (archive.pack({}), signature_of(built()), "no bundle of edgegc's"),
        (b"<html>captive portal</html>", signature_of(built()), "no bundle of edgegc's"),
    ],
    ids=[
        "node",
        "cluster",
        "version",
        "key",
        "flipped byte",
        "signature",
        "none",
        "zeros",
        "no label",
        "html",
    ],
)
def test_a_bundle_that_was_not_signed_for_this_node_and_version_is_refused(
    body: bytes, signature: bytes, sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        check(body, signature)


def test_a_label_is_believed_only_to_explain_a_refusal() -> None:
    body = built(node_id=ELSEWHERE)
    check(body, signature_of(body))
    with pytest.raises(Invalid, match="is for node"):
        bundle.check_ids(bundle.read(body).manifest, cluster_id=CLUSTER, node_id=NODE, version=7)


def manifest_text(**changes: Any) -> bytes:
    manifest = msgspec.to_builtins(bundle.read(built()).manifest) | changes
    return msgspec.json.encode(manifest)


def repacked(files: dict[str, bytes | None]) -> bytes:
    """The good bundle with some files replaced, added, or (None) left out."""
    merged = bundle.read(built()).files | files
    return archive.pack({name: content for name, content in merged.items() if content is not None})


HASH = bundle.digest(b"x")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"manifest.json": None}, "the bundle has no manifest.json"),
        ({"config.yml": None}, "the bundle has no config.yml"),
        ({"ca.crt": None}, "the bundle has no ca.crt"),
        ({"host.crt": None}, "the bundle has no host.crt"),
        ({"host.key": b"secret"}, "private keys are born on the node"),
        ({"extra": b"x"}, "holds extra, which its manifest does not list"),
        ({"config.yml": b"changed"}, "config.yml is not the one that its manifest describes"),
        ({"manifest.json": b"{"}, "manifest.json is not understood: Input data was truncated"),
        ({"manifest.json": b"\xff"}, "manifest.json is not understood"),
        ({"manifest.json": b"[]"}, "manifest.json is not understood: Expected `object`"),
        ({"manifest.json": b"{}"}, "manifest.json is not understood: Object missing required field"),
        (
            {"manifest.json": manifest_text(version="7")},
            r"not understood: Expected `int`, got `str` - at `\$.version`",
        ),
        ({"manifest.json": manifest_text(format=2)}, "has format 2, this edgegc knows 1: update edgegc"),
        ({"manifest.json": manifest_text(signers=[])}, "signers can't be empty"),
        ({"manifest.json": manifest_text(signers=["!"])}, "not the base64 form"),
        (
            {"manifest.json": manifest_text(signers=[base64.b64encode(b"short").decode()])},
            "not the base64 form",
        ),
        ({"manifest.json": manifest_text(listen_port=70000)}, "has the listen_port 70000"),
        ({"manifest.json": manifest_text(restart_delay_s=-1)}, "has the restart_delay_s -1"),
        ({"manifest.json": manifest_text(files={})}, "which its manifest does not list"),
        (
            {"manifest.json": manifest_text(files=bundle.read(built()).manifest.files | {"gone": HASH})},
            "the bundle has no gone, which its manifest lists",
        ),
        (
            {
                "sub/x": b"x",
                "manifest.json": manifest_text(files=bundle.read(built()).manifest.files | {"sub/x": HASH}),
            },
            "holds sub/x in a directory",
        ),
    ],
)
def test_what_is_wrong_inside_a_bundle_is_said_in_its_own_sentence(
    files: dict[str, bytes | None], sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        bundle.read(repacked(files))


def test_a_manifest_may_say_more_than_is_known() -> None:
    """So that a later control plane can tell later agents something, without a new format."""
    assert bundle.read(repacked({"manifest.json": manifest_text(hint="new")})).manifest.version == 7


@pytest.mark.parametrize(
    ("expected", "sentence"),
    [
        ({"cluster_id": "c"}, f"is for cluster {CLUSTER}, this is c"),
        ({"node_id": "n"}, f"is for node {NODE}, this is n"),
        ({"version": 8}, "is for version 7, this is 8"),
    ],
)
def test_a_manifest_with_other_ids_than_the_signature_is_refused(
    expected: dict[str, Any], sentence: str
) -> None:
    ids: dict[str, Any] = {"cluster_id": CLUSTER, "node_id": NODE, "version": 7}
    manifest = bundle.read(built()).manifest
    bundle.check_ids(manifest, **ids)
    with pytest.raises(Invalid, match=sentence):
        bundle.check_ids(manifest, **(ids | expected))


BUILT = built(listen_port=4242)
MANIFEST = archive.unpack(BUILT)["manifest.json"]


@THOUSANDS
@given(mutated(BUILT))
def test_a_bundle_with_changed_bytes_is_refused_or_what_it_was(body: bytes) -> None:
    with contextlib.suppress(Error):
        assert bundle.read(body) == bundle.read(BUILT)


@THOUSANDS
@given(mutated(MANIFEST) | st.binary(max_size=400))
def test_no_manifest_makes_the_reader_fail_in_another_way(text: bytes) -> None:
    with contextlib.suppress(Error):
        read = bundle.read(repacked({"manifest.json": text}))
        assert set(read.manifest.files) < set(read.files)


def test_a_bundle_is_laid_down_readable_by_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "7"
    bundle.lay_down(bundle.read(built()), directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()} == dict.fromkeys(
        ["ca.crt", "config.yml", "host.crt", "manifest.json"], 0o600
    )
    assert (directory / "host.crt").read_bytes() == b"the certificate"


def test_laying_down_the_same_bundle_again_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "7"
    bundle.lay_down(bundle.read(built()), directory)
    (directory / "nebula.yml").write_text("the agent's own")
    bundle.lay_down(bundle.read(built()), directory)
    assert (directory / "nebula.yml").exists()


def test_another_bundle_does_not_replace_one_that_is_there(tmp_path: Path) -> None:
    directory = tmp_path / "7"
    bundle.lay_down(bundle.read(built()), directory)
    with pytest.raises(Conflict, match="holds another bundle already"):
        bundle.lay_down(bundle.read(built(host_pem="another")), directory)
    assert (directory / "host.crt").read_bytes() == b"the certificate"


def test_a_crash_while_laying_down_leaves_no_half_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "7"
    calls = 0
    fsync = os.fsync

    def dies_at_the_third(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError("power cut")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", dies_at_the_third)
    with pytest.raises(OSError, match="power cut"):
        bundle.lay_down(bundle.read(built()), directory)
    assert not directory.exists()
    bundle.lay_down(bundle.read(built()), directory)
    assert [path.name for path in tmp_path.iterdir()] == ["7"]
