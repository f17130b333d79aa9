"""What an agent refuses, each with its own sentence."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from edgegc.agent import verify
from edgegc.agent.verify import Accepted, Refused
from edgegc.client import Bundle
from edgegc.nebula import bundle, keys
from tests.fakes import ControlPlane

PAIR = keys.generate_x25519()
PLANE = ControlPlane()


def received(
    body: bytes,
    version: int = 7,
    *,
    signature: str | None = None,
    digest: str | None = None,
    announced: int | None = None,
) -> Bundle:
    return Bundle(
        body=body,
        version=str(version if announced is None else announced),
        digest=f"sha256:{digest or bundle.digest(body)}",
        signature=PLANE.signature(body, version) if signature is None else signature,
    )


def accept(bundle_: Bundle, *, highest: int = 6, highest_digest: str = "ab", **changes: Any) -> Accepted:
    return verify.accept(
        bundle_, cluster=PLANE.membership(**changes), highest=highest, highest_digest=highest_digest
    )


def test_a_signed_bundle_is_accepted_and_opens() -> None:
    accepted = accept(received(PLANE.bundle(7, PAIR.public)))
    unpacked = verify.open_bundle(accepted, cluster=PLANE.membership())
    assert (accepted.version, unpacked.manifest.version) == (7, 7)


def test_any_of_the_pinned_signers_is_enough() -> None:
    other = base64.b64encode(keys.generate_ed25519().public).decode()
    own = base64.b64encode(PLANE.signer.public).decode()
    assert accept(received(PLANE.bundle(7, PAIR.public)), signers=(other, own)).version == 7


def test_another_nodes_bundle_is_refused_by_name() -> None:
    other = ControlPlane(node=6)
    other.signer = PLANE.signer
    body = other.bundle(7, PAIR.public)
    with pytest.raises(Refused, match=f"another node.*{other.node_id}"):
        accept(received(body, signature=other.signature(body, 7)))


def test_another_clusters_bundle_is_refused_by_name() -> None:
    other = ControlPlane()
    other.cluster_id = "99999999-9999-4999-8999-999999999999"
    body = other.bundle(7, PAIR.public)
    with pytest.raises(Refused, match=f"another cluster.*{other.cluster_id}"):
        accept(received(body, signature=other.signature(body, 7)))


def test_an_older_version_is_refused_although_its_signature_is_good() -> None:
    with pytest.raises(Refused, match="version 5 is older than version 6"):
        accept(received(PLANE.bundle(5, PAIR.public), 5))


def test_an_older_version_offered_as_a_newer_one_is_refused() -> None:
    with pytest.raises(Refused, match="made as version 5 and offered as version 7"):
        accept(received(PLANE.bundle(5, PAIR.public), 5, announced=7))


def test_one_flipped_byte_is_refused_as_damage() -> None:
    body = bytearray(PLANE.bundle(7, PAIR.public))
    digest = bundle.digest(bytes(body))
    body[len(body) // 2] ^= 1
    with pytest.raises(Refused, match="damaged on its way"):
        accept(received(bytes(body), digest=digest))


def test_a_flipped_byte_whose_digest_was_corrected_too_is_refused_as_changed() -> None:
    body = bytearray(PLANE.bundle(7, PAIR.public))
    signature = PLANE.signature(bytes(body), 7)
    body[len(body) // 2] ^= 1
    with pytest.raises(Refused, match="signed by somebody else, or changed"):
        accept(received(bytes(body), signature=signature))


def test_another_signers_bundle_is_refused() -> None:
    body = PLANE.bundle(7, PAIR.public)
    with pytest.raises(Refused, match="signed by somebody else, or changed"):
        accept(received(body, signature=PLANE.signature(body, 7, key=keys.generate_ed25519())))


def test_the_same_version_is_taken_again_and_with_other_contents_refused() -> None:
    body, other = PLANE.bundle(7, PAIR.public), PLANE.bundle(7, PAIR.public, listen_port=4242)
    assert accept(received(body), highest=7, highest_digest=bundle.digest(body)).version == 7
    with pytest.raises(Refused, match="other contents"):
        accept(received(other), highest=7, highest_digest=bundle.digest(body))


@pytest.mark.parametrize(
    "headers",
    [{"version": ""}, {"version": "seven"}, {"version": "-1"}, {"digest": ""}, {"digest": "md5:ab"}],
)
def test_an_answer_without_version_or_digest_is_refused(headers: dict[str, str]) -> None:
    body = PLANE.bundle(7, PAIR.public)
    fields = {"version": "7", "digest": f"sha256:{bundle.digest(body)}", "signature": ""} | headers
    with pytest.raises(Refused, match="without its version or digest"):
        accept(Bundle(body=body, **fields))


@pytest.mark.parametrize("signature", ["", "!", "QUJD"])
def test_a_broken_signature_is_refused(signature: str) -> None:
    with pytest.raises(Refused):
        accept(received(PLANE.bundle(7, PAIR.public), signature=signature))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"node_id": "44444444-4444-4444-8444-444444444444"}, "for node 4444"),
        ({"cluster_id": "44444444-4444-4444-8444-444444444444"}, "for cluster 4444"),
        ({"version": 8}, "for version 8"),
    ],
)
def test_a_signed_bundle_whose_manifest_names_others_is_refused(changes: dict[str, Any], said: str) -> None:
    body = PLANE.bundle(changes.pop("version", 7), PAIR.public, **changes)
    accepted = accept(received(body))
    with pytest.raises(Refused, match=f"version 7 is signed, but malformed: .*{said}"):
        verify.open_bundle(accepted, cluster=PLANE.membership())


def test_a_signed_body_that_is_no_archive_is_refused() -> None:
    with pytest.raises(Refused, match="signed, but malformed"):
        verify.open_bundle(accept(received(b"not an archive")), cluster=PLANE.membership())
