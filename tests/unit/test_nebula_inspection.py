"""What is said of a bundle as a file, and which do not hold together."""

from __future__ import annotations

import pytest

from edgegc.errors import Error, Invalid
from edgegc.nebula import keys
from edgegc.nebula.inspection import inspect
from tests import zoo
from tests.fakes import ControlPlane

PLANE = ControlPlane()
PAIR = keys.generate_x25519()
FILES = {
    "config.yml": zoo.CONFIG,
    "ca.crt": PLANE.ca.pem().encode(),
    "host.crt": PLANE.certificate(PAIR.public).pem().encode(),
    "host.key": keys.pem_x25519_private(PAIR.private).encode(),
}


def test_a_rendered_bundle_says_for_whom_it_is() -> None:
    seen = inspect(PLANE.bundle(7, PAIR.public), at=PLANE.now)
    assert (seen.mode, seen.version, seen.cluster_id, seen.node_id) == (
        "managed",
        7,
        PLANE.cluster_id,
        PLANE.node_id,
    )
    assert {file.name for file in seen.files} == {"manifest.json", "config.yml", "ca.crt", "host.crt"}
    assert seen.certificate is not None
    assert seen.certificate.addresses == ("10.42.0.5/16",)
    assert seen.authorities is not None
    assert [each.name for each in seen.authorities] == ["home"]


def test_one_to_be_uploaded_is_for_no_node() -> None:
    seen = inspect(zoo.bundle(FILES | {"notes.txt": b"x"}), at=PLANE.now)
    assert (seen.mode, seen.version, seen.node_id) == ("uploaded", None, None)
    assert [file.name for file in seen.files] == [*FILES, "notes.txt"]
    assert seen.certificate is not None
    without = inspect(zoo.bundle({name: FILES[name] for name in ("config.yml", "ca.crt")}), at=PLANE.now)
    assert without.certificate is None


def test_authorities_of_a_later_kind_are_left_alone() -> None:
    later = b"-----BEGIN NEBULA CERTIFICATE V2-----\nAAAA\n-----END NEBULA CERTIFICATE V2-----\n"
    assert inspect(zoo.bundle(FILES | {"ca.crt": later}), at=PLANE.now).authorities is None


@pytest.mark.parametrize(
    ("files", "at", "words"),
    [
        (FILES, PLANE.now + 2 * 10**7, "expired"),
        (FILES | {"ca.crt": ControlPlane().ca.pem().encode()}, PLANE.now, "not trusted here"),
        (
            FILES | {"host.key": keys.pem_x25519_private(keys.generate_x25519().private).encode()},
            PLANE.now,
            "host.key is not the key of its host.crt",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(files: dict[str, bytes], at: int, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        inspect(zoo.bundle(files), at=at)


@pytest.mark.parametrize("name", [name for name, (_, status, _) in zoo.ZOO.items() if status != 413])
def test_the_zoo_is_refused_here_too(name: str) -> None:
    with pytest.raises(Error):
        inspect(zoo.ZOO[name][0](), at=PLANE.now)
